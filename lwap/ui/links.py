"""Links: what the address says of a view, and the ways from one page to another."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from lwap.errors import InputError
from lwap.ui import state

LINK_CHARACTERS = 2000  # what a link may carry; browsers and proxies cut longer ones
BOUND: dict[str, Any] = {"bind": "query-params", "persist_state": "session"}  # of a widget
LAYERS_TEXT, SEARCH_TEXT = "layers_text", "search_text"  # keys of boxes that other pages fill
TOO_LONG = "{} too long for a link; the link keeps the rest of the view."
CHECKPOINT = "checkpoint"  # the model that the Models page looks into
SAME_MODEL = "the same model"  # as the first map's, on the Space page
# How many sentences, or pairs of them, are sent to a page at most.
MOST = {"layers": 200, "pairs": 50, "search": 5_000}


def values(name: str) -> list[str]:
    """Return what the link says under `name` (several values)."""
    return st.query_params.get_all(name)


def put(name: str, said: Sequence[str]) -> bool:
    """Put values into the link; return False, and leave them out, where they are too long."""
    fits = sum(map(len, said)) <= LINK_CHARACTERS
    wanted = list(said) if fits else []
    if st.query_params.get_all(name) != wanted:
        if wanted:
            st.query_params[name] = wanted
        elif name in st.query_params:
            del st.query_params[name]
    return fits


def put_pairs(name: str, pairs: pd.DataFrame) -> bool:
    """Put pairs into the link, as `put` does."""
    rows = pairs.astype(object).where(pairs.notna(), None).to_numpy().tolist()
    return put(name, [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows])


def pairs(name: str) -> pd.DataFrame:
    """Return the pairs that the link carries.

    Raises:
        InputError: If it was cut or changed.
    """
    rows = []
    for value in values(name):
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(value)
            if isinstance(row, list) and len(row) == len(state.PAIR_COLUMNS):
                rows.append(row)
    if not rows:
        raise InputError(
            "The link's pairs cannot be read; it was cut or changed. Ask for it again, or remove "
            f"'{name}=' from the address."
        )
    return pd.DataFrame(rows, columns=state.PAIR_COLUMNS)


# --- sentences and pairs ------------------------------------------------------------------------


def put_sentences(key: str, sentences: Sequence[str]) -> None:
    """Put sentences into the box with this key, before it is drawn."""
    st.session_state[key] = state.one_a_line(sentences)


_PUT: dict[str, Callable[[Sequence[Any]], None]] = {
    "layers": lambda sentences: put_sentences(LAYERS_TEXT, sentences),
    "search": lambda sentences: put_sentences(SEARCH_TEXT, sentences),
    "pairs": lambda pairs: state.set_pairs(pd.DataFrame(pairs, columns=state.PAIR_COLUMNS[:2])),
}


def open_button(place, page: str, items: Sequence[Any], **options: Any) -> None:
    """Draw a button that opens sentences, or pairs of them, on another page."""
    most = MOST[page]
    first = f" (first {most:,})" if len(items) > most else ""
    if place.button(
        f"Open in {page.capitalize()}{first}", key=f"to_{page}", width="stretch", **options
    ):
        _PUT[page](items[:most])
        _go(page)


# --- models -------------------------------------------------------------------------------------


def use_model_button(name: str, key: str, *, is_usable: bool = True) -> bool:
    """Draw the button that picks a model in the sidebar; return whether it was pressed."""
    is_picked = st.session_state["model"] == name
    return st.button(
        "Use this model",
        type="primary",
        on_click=st.session_state.update,  # a callback runs before the picker is drawn
        args=({"model": name},),
        disabled=is_picked or not is_usable,
        help="It is the model in the sidebar." if is_picked else None,
        key=key,
    )


def model_card(name: str) -> None:
    """Draw the link to a model's card."""
    st.page_link(
        "pages/models.py",
        label="Its card, under Models",
        icon=":material/inventory_2:",
        query_params={CHECKPOINT: name},
    )


def to_spaces(models: tuple[str, str], strategies: tuple[str, str]) -> dict[str, str]:
    """Return what a link to the Space page says, to show two spaces of the example.

    Args:
        models: The first map's, which is the sidebar's too, and the second one's.
        strategies: Of each.
    """
    return {
        "model": models[0],
        "space_a": strategies[0],
        "space_model": SAME_MODEL if models[0] == models[1] else models[1],
        "space_b": strategies[1],
    }


def to_evaluation(model: str, second: str) -> dict[str, str]:
    """Return what a link to the Evaluate page says, to compare two models."""
    return {"model": model, "second": second}


def page_button(label: str, page: str, link: dict[str, str], **options: Any) -> None:
    """Draw a button that opens a page and shows there what a link says."""
    if st.button(label, on_click=_take, args=(page, link), **options):
        _go(page, link)


def _take(page: str, link: dict[str, str]) -> None:
    """Choose what a link says, whatever was chosen before; a callback."""
    st.session_state.update(link)
    for key in link:
        st.session_state.pop(f"{key}_default", None)  # it was chosen, and not by default
    if page == "space":
        st.session_state.pop("space_data", None)  # the example is the default


def _go(page: str, link: dict[str, str] | None = None) -> None:
    # The link needs what it is to say in words: it does not follow what a callback has chosen for
    # a widget that is not yet there. The sidebar's is, and Streamlit refuses to be told of it.
    # With {} the address is emptied; without it Streamlit refuses, as widgets are bound to it.
    said = {key: value for key, value in (link or {}).items() if key != "model"}
    st.switch_page(f"pages/{page}.py", query_params=said)
