"""Figures in their place on a page: choose what to draw, draw it, say what it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from lwap import figures
from lwap.ui import cache, widgets
from lwap.ui.frame import escape, messages, theme

if TYPE_CHECKING:
    from lwap.analysis.explanation import Explanation

GRID = 6  # sentences side by side
TEXT = "layers_text"  # the key of the box of sentences


def take_sentences(sentences: list[str]) -> None:
    """Put sentences from another page into the box, before this page is opened."""
    lines = (" ".join(text.split()) for text in sentences)
    st.session_state[TEXT] = "\n".join(lines)


def one_sentence(explanation: Explanation, row: int) -> None:
    """Draw weights, attention and knock-out of one sentence over one axis of states."""
    widgets.show(
        figures.layer_attention(
            explanation.attention[row],
            explanation.weights[row],
            explanation.knockout[row],
            query_names=_query_names(explanation),
            theme=theme(),
        ),
        "attention",
    )


def side_by_side(explanation: Explanation) -> None:
    """Draw the attention of the first sentences on one colour scale."""
    count = min(GRID, len(explanation.texts))
    if len(explanation.texts) > GRID:
        st.caption(f"The first {GRID} of {len(explanation.texts)} sentences, on one colour scale.")
    widgets.show(
        figures.layer_attention_grid(
            explanation.attention[:count], list(explanation.texts[:count]), theme=theme()
        ),
        "attention-grid",
    )


def difference(explanation: Explanation, model: str, sentences: list[str]) -> None:
    """Draw the difference between two sentences, or between two checkpoints on one sentence."""
    # The plain encoder is left out: it has no attention to compare with.
    others = [name for name in cache.trained_names() if name != model]
    by_model = st.toggle(
        "Between two checkpoints instead of two sentences",
        key="by_model",
        bind="query-params",
        persist_state="session",
    )
    if by_model:
        left, right = st.columns(2)
        with left:
            first = second = widgets.choose("Sentence", sentences, "sentence")
        other_name = right.selectbox(
            "Other checkpoint",
            others,
            key="other",
            bind="query-params",
            persist_state="session",
            accept_new_options=True,
        )
        with messages():
            other = cache.explain(other_name, sentences)
            same_shape = other.attention.shape == explanation.attention.shape
        labels = (model, other_name)
        if not same_shape:
            st.error(
                f"The attention of '{escape(other_name)}' has {other.attention.shape[1]} × "
                f"{other.attention.shape[2]} entries, that of '{escape(model)}' "
                f"{explanation.attention.shape[1]} × {explanation.attention.shape[2]}; only equal "
                "shapes can be subtracted. Choose a checkpoint on the same encoder with the same "
                "queries."
            )
            return
    else:
        if len(sentences) < 2:
            st.info("A difference needs two sentences. Add a second line on the left.")
            return
        left, right = st.columns(2)
        with left:
            first = widgets.choose("From", sentences, "from")
        with right:
            second = widgets.choose("To", sentences, "to", default=1)
        other, labels = explanation, (sentences[first], sentences[second])
    widgets.show(
        figures.layer_attention_difference(
            explanation.attention[first],
            other.attention[second],
            explanation.weights[first],
            other.weights[second],
            label_a=labels[0],
            label_b=labels[1],
            theme=theme(),
        ),
        "attention-difference",
    )
    if not by_model and first != second:
        widgets.show(
            figures.knockout_bars(
                explanation.pair_knockout(first, second),
                title="Change of the two sentences' cosine when a state is removed",
                theme=theme(),
            ),
            "pair-knockout",
        )


def all_sentences(explanation: Explanation) -> None:
    """Draw sentences × states, with mean and spread on top."""
    widgets.show(
        figures.sentence_weights(explanation.weights, list(explanation.texts), theme=theme()),
        "sentence-weights",
    )


def states_without_attention(model: str, sentences: list[str]) -> None:
    """Draw the similarity of an encoder's states, where no head attends over them."""
    st.info(
        "This model has no trained layer attention: it takes its vector from fixed layers. Below "
        "is how far its states differ from each other. For attention, weights and knock-out, pick "
        "a checkpoint in the sidebar.",
        icon=":material/info:",
    )
    row = widgets.choose("Sentence", sentences, "sentence")
    similarity = cache.state_similarity(model, sentences)[row]
    widgets.show(figures.state_similarity(similarity, theme=theme()), "states")
    st.caption(
        "Cosine between the mean vectors of every two states of this sentence. Dark off the "
        "diagonal: the layers say different things, so the choice of layer matters."
    )


def _query_names(explanation: Explanation) -> list[str] | None:
    queries, states = explanation.attention.shape[1:]
    return None if queries == states else explanation.query_names
