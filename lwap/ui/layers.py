"""The parts of the Layers page: sentences, three views of their attention, all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from lwap import figures
from lwap.errors import InputError
from lwap.ui import cache, files, layerwise, links, widgets
from lwap.ui.frame import messages, say_error
from lwap.ui.links import LAYERS_TEXT
from lwap.ui.state import example, lines_of

if TYPE_CHECKING:
    from lwap.analysis.explanation import Explanation

GRID = 6  # sentences side by side
MAX_SENTENCES = links.MOST["layers"]


def sentence_box(menu_key: str, link: str) -> list[str]:
    """Draw the example menu and the sentences, one a line; return the sentences.

    Raises:
        InputError: If there are none, or more than the limit.
    """

    def text_of(entry: dict[str, Any]) -> str:
        return "\n".join(entry["sentences"])

    def fill() -> None:
        st.session_state[LAYERS_TEXT] = text_of(example(st.session_state[menu_key]))

    chosen = widgets.example_menu(menu_key, fill)
    text = st.session_state.get(LAYERS_TEXT)
    filled_with = st.session_state.get("layers_example")
    if text is None:
        st.session_state[LAYERS_TEXT] = "\n".join(links.values(link)) or text_of(chosen)
    elif filled_with != chosen["title"] and text == text_of(example(filled_with)):
        fill()  # another one was chosen on another page, and this one was not edited
    st.session_state["layers_example"] = chosen["title"]
    sentences = lines_of(
        st.text_area("Sentences, one a line", key=LAYERS_TEXT, height=230, persist_state="session")
    )
    is_example = sentences == chosen["sentences"]
    if is_example:
        st.caption(f"**What to look for.** {chosen['look_for']}")
    if not links.put(link, [] if is_example else sentences):
        st.caption(links.TOO_LONG.format("These sentences are"))
    if not sentences:
        raise InputError("There is no sentence yet. Write one a line, or pick an example.")
    if len(sentences) > MAX_SENTENCES:
        raise InputError(
            f"{len(sentences)} sentences are more than this page draws; the limit is "
            f"{MAX_SENTENCES}. Remove some, or use: python -m lwap explain --file FILE"
        )
    return sentences


def side_by_side(explanation: Explanation) -> None:
    """Draw the attention of the first sentences on one colour scale."""
    count = min(GRID, len(explanation.texts))
    if len(explanation.texts) > GRID:
        st.caption(f"The first {GRID} of {len(explanation.texts)} sentences, on one colour scale.")
    widgets.draw(
        "attention-grid",
        figures.layer_attention_grid,
        explanation.attention[:count],
        list(explanation.texts[:count]),
    )


def difference(explanation: Explanation, model: str, sentences: list[str]) -> None:
    """Draw the difference between two sentences, or between two checkpoints on one sentence."""
    by_model = st.toggle(
        "Between two checkpoints instead of two sentences", key="by_model", **links.BOUND
    )
    if by_model:
        compared = _another_checkpoint(explanation, model, sentences)
    else:
        compared = _two_sentences(explanation, sentences)
    if compared is None:
        return
    other, labels, first, second = compared
    widgets.draw(
        "attention-difference",
        figures.layer_attention_difference,
        explanation.attention[first],
        other.attention[second],
        explanation.weights[first],
        other.weights[second],
        label_a=labels[0],
        label_b=labels[1],
    )
    if not by_model and first != second:
        widgets.draw(
            "pair-knockout",
            figures.knockout_bars,
            explanation.pair_knockout(first, second),
            title="Change of the two sentences' cosine when a state is removed",
        )


# What is compared with the explanation: another one, labels of both, and a row of each.
_Compared = tuple["Explanation", tuple[str, str], int, int]


def _another_checkpoint(
    explanation: Explanation, model: str, sentences: list[str]
) -> _Compared | None:
    left, right = st.columns(2)
    with left:
        row = widgets.choose("Sentence", sentences, "sentence")
    with right:
        # The plain encoder is left out: it has no attention to compare with.
        others = [name for name in cache.trained_names() if name != model]
        name = st.selectbox(
            "Other checkpoint", others, key="other", accept_new_options=True, **links.BOUND
        )
    if name is None:
        st.info("There is no other checkpoint yet. Type a name or a folder, or train one.")
        return None
    with messages():
        other = cache.explain(name, sentences)
    shape, own = other.attention.shape, explanation.attention.shape
    if shape != own:
        say_error(
            f"The attention of '{name}' has {shape[1]} × {shape[2]} entries, that of '{model}' "
            f"{own[1]} × {own[2]}; only equal shapes can be subtracted. Choose a checkpoint on the "
            "same encoder with the same queries."
        )
        return None
    return other, (model, name), row, row


def _two_sentences(explanation: Explanation, sentences: list[str]) -> _Compared | None:
    if len(sentences) < 2:
        st.info("A difference needs two sentences. Add a second line on the left.")
        return None
    left, right = st.columns(2)
    with left:
        first = widgets.choose("From", sentences, "from")
    with right:
        second = widgets.choose("To", sentences, "to", default=1)
    return explanation, (sentences[first], sentences[second]), first, second


def all_sentences(explanation: Explanation) -> None:
    """Draw sentences × states, with mean and spread on top."""
    widgets.draw(
        "sentence-weights", figures.sentence_weights, explanation.weights, list(explanation.texts)
    )


def states_without_attention(model: str, sentences: list[str]) -> None:
    """Draw the similarity of an encoder's states, where no head attends over them."""
    layerwise.say_no_attention(
        "attention, weights and knock-out", "Below is how much its states differ. "
    )
    row = widgets.choose("Sentence", sentences, "sentence")
    similarity = cache.state_similarity(model, sentences)[row]
    widgets.draw("states", figures.state_similarity, similarity)
    st.caption(
        "Cosine between the mean vectors of every two states of this sentence. Dark off the "
        "diagonal: the layers say different things, so the choice of layer matters."
    )


def take_away(explanation: Explanation) -> None:
    """Draw weights and knock-out of all sentences as a table to download, with their attention."""
    states = explanation.state_names
    sentences = pd.Series(explanation.texts, name="sentence")
    weights = pd.DataFrame(explanation.weights, columns=states)
    effects = pd.DataFrame(explanation.knockout, columns=states).add_prefix("knock-out ")
    table = pd.concat([sentences, weights, effects], axis=1)
    with st.expander("Table and download"):
        st.dataframe(table, hide_index=True)
        files.csv_button("Weights and knock-out (CSV)", table, "lwap-layers.csv")
        attention = np.round(explanation.attention, 6).tolist()
        st.download_button(
            "Attention (JSON)",
            pd.DataFrame({"sentence": sentences, "attention": attention}).to_json(
                orient="records", force_ascii=False
            ),
            "lwap-attention.json",
            "application/json",
            on_click="ignore",
        )
