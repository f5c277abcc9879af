"""Pairs: would another pooling rank my pairs differently?"""

import streamlit as st

from lwap.ui import cache, frame, pairs, widgets

READING = """
One row a pair, one dot a strategy; rows on top are those on which the strategies **disagree** most.

Cosines of different strategies live on different scales: 0.9 can be low for *cls* and high for
*mean*. So the first view shows each pair's **rank** in this set, which is all that a rank
correlation sees; there the gold score, if you have one, is the black or white mark. *Percentile*
places each cosine among random pairs of the sentences on this page (100 = closer than all of
them): related pairs crowd near 100, and one that does not stands out.

Click a dot to see that pair layer by layer: the cosine of CLS and mean vectors at each state, what
weight the layers get in either sentence, and what the pair's cosine loses or gains without each.
"""

frame.header("Pairs", "Would another pooling rank my pairs differently?", READING)
model = frame.model_name()

with frame.messages():
    table = pairs.pair_table("example", "p")
    facts = cache.facts(model)
    left, right = st.columns([2, 3], vertical_alignment="center")
    with left:
        scale = pairs.scale_menu()
    with right, st.expander("Strategies"):
        strategies = widgets.strategy_menu("strategies", facts)
    texts = list(zip(table["sentence1"], table["sentence2"], strict=True))
    with widgets.progress("Sentences encoded", 2 * len(texts)) as progress:
        comparison = cache.compare(model, texts, strategies, progress)
    widgets.say_truncated(comparison.is_truncated, facts.max_tokens, "Pair")
    scaled = pairs.on_scale(scale, comparison, table["score"].to_numpy(dtype=float))
    if table["score"].notna().any():
        left, right = st.columns([3, 2], gap="large")
        with right:
            pairs.correlations(model, comparison, table["score"])
    else:
        left = st.container()
    with left:
        pairs.overview(comparison, scaled)
    pairs.one_pair(model, comparison, scaled)
    pairs.all_scores(comparison, scaled, table["score"])
