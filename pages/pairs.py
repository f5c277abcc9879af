"""Pairs: would another pooling rank my pairs differently?"""

import streamlit as st

from lwap.ui import cache, figures, frame, pairs, widgets

READING = """
One row a pair, one dot a strategy; rows on top are those on which the strategies **disagree** most.

Cosines of different strategies live on different scales: 0.9 can be low for *cls* and high for
*mean*. So the first view shows each cosine's **percentile** among random pairs of the sentences on
this page (100 = closer than all of them). *Rank in this set* orders the pairs themselves, which is
all that a rank correlation sees; there the gold score, if you have one, is the black or white mark.

Click a dot to see that pair layer by layer: the cosine of CLS and mean vectors at each state, what
weight the layers get in either sentence, and what the pair's cosine loses or gains without each.
"""

frame.header("Pairs", "Would another pooling rank my pairs differently?", READING)
model = frame.model_name()

with frame.messages():
    table = pairs.pair_table("example", "p")
    facts = cache.facts(model)
    strategies = widgets.strategy_menu("strategies", facts)
    texts = list(zip(table["sentence1"], table["sentence2"], strict=True))
    with widgets.progress("Sentences encoded", 2 * len(texts)) as progress:
        comparison = cache.compare(model, texts, strategies, progress)
    widgets.say_truncated(comparison.is_truncated, facts.max_tokens, "Pair")
    overview, correlation = st.columns([3, 2], gap="large") if table["score"].notna().any() else (
        st.container(),
        None,
    )
    with overview:
        selected = pairs.overview(comparison, table["score"].to_numpy(dtype=float))
    if correlation is not None:
        with correlation:
            pairs.correlations(model, comparison, table["score"])
    pairs.one_pair(model, comparison, selected)
    pairs.all_scores(comparison, table["score"])
