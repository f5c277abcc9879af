"""One sentence or one pair, layer by layer: pictures that several pages show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from lwap import figures
from lwap.ui import cache, widgets

if TYPE_CHECKING:
    from lwap.analysis.comparison import Comparison
    from lwap.analysis.explanation import Explanation


def sentence(explanation: Explanation, row: int) -> None:
    """Draw weights, attention and knock-out of one sentence over one axis of states."""
    widgets.draw(
        "attention",
        figures.layer_attention,
        explanation.attention[row],
        explanation.weights[row],
        explanation.knockout[row],
        query_names=_query_names(explanation),
    )


def _query_names(explanation: Explanation) -> list[str] | None:
    queries, states = explanation.attention.shape[1:]
    return None if queries == states else explanation.query_names


def pair(model: str, comparison: Comparison, row: int) -> None:
    """Draw the cosine of a pair in each state, the weights of its sentences, and the knock-out."""
    left, right = st.columns(2, gap="large")
    with left:
        layers = comparison.layers
        widgets.draw(
            "layer-similarity",
            figures.layer_similarity,
            layers.query[row],
            layers.mean[row],
            references=dict(
                zip(comparison.strategies, comparison.cosines[row].tolist(), strict=True)
            ),
            cls_name=layers.query_name,
        )
    with right:
        if not cache.facts(model).has_attention:
            say_no_attention("layer weights and knock-out of the pair")
            return
        texts = [comparison.first[row], comparison.second[row]]
        bank = comparison.bank  # where the summaries were kept, nothing is encoded anew
        explanation = cache.explain(
            model, texts if bank is None else bank.select(comparison.rows[row])
        )
        widgets.draw(
            "pair-weights",
            figures.pair_weights,
            explanation.weights[0],
            explanation.weights[1],
            label_a=texts[0],
            label_b=texts[1],
        )
        widgets.draw(
            "pair-knockout",
            figures.knockout_bars,
            explanation.pair_knockout(0, 1),
            title=f"Change of the pair's {explanation.strategy} cosine without a state",
        )


def say_no_attention(hidden: str, below: str = "") -> None:
    """Say that the model has no layer attention; `hidden` is what is not seen therefore."""
    st.info(
        f"This model has no trained layer attention: it reads fixed layers. {below}Pick a "
        f"checkpoint in the sidebar to see {hidden}.",
        icon=":material/info:",
    )
