"""What a session remembers: the examples, and the table of pairs. Plain data only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

ASSETS = Path(__file__).parents[2] / "assets"
PAIR_COLUMNS = ["sentence1", "sentence2", "score"]


# --- examples -----------------------------------------------------------------------------------


@st.cache_data(show_spinner=False)
def phenomena() -> list[dict[str, Any]]:
    """Return the examples: id, title, look_for, sentences, pairs (frame with scores)."""
    found = json.loads((ASSETS / "examples.json").read_text(encoding="utf-8"))["phenomena"]
    pairs = pd.read_csv(ASSETS / "pairs.csv")
    return [
        {**entry, "pairs": pairs[pairs["subset"] == entry["id"]].drop(columns="subset")}
        for entry in found
    ]


@st.cache_data(show_spinner=False)
def sample_pairs() -> pd.DataFrame:
    """Return all scored pairs of the examples: sentence1, sentence2, score, subset."""
    return pd.read_csv(ASSETS / "pairs.csv")


@st.cache_data(show_spinner=False)
def collection() -> dict[str, Any]:
    """Return the example to search in: title, sentences, queries (text, look_for)."""
    return json.loads((ASSETS / "collection.json").read_text(encoding="utf-8"))


def example(title: str | None) -> dict[str, Any]:
    """Return one example by its title; the first where the title is unknown."""
    found = phenomena()
    return next((entry for entry in found if entry["title"] == title), found[0])


# --- sentences, one a line ----------------------------------------------------------------------


def lines_of(text: str) -> list[str]:
    """Return the lines of a box that are not blank, one a sentence."""
    # Not str.splitlines: it also cuts at form feeds and U+2028, inside of sentences.
    return [line.strip() for line in text.split("\n") if line.strip()]


def one_a_line(sentences: Sequence[str]) -> str:
    """Return the text of a box of sentences."""
    return "\n".join(text.replace("\r", "\n").replace("\n", " ") for text in sentences)


# --- the table of pairs -------------------------------------------------------------------------


def as_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Return sentence1, sentence2 (str, "" for none) and score (float, NaN for none) of a table."""
    table = table.reset_index(drop=True)
    sentences = {
        name: ["" if value is None or value != value else str(value) for value in table[name]]
        for name in PAIR_COLUMNS[:2]
    }
    score = pd.to_numeric(table["score"], errors="coerce") if "score" in table else float("nan")
    return pd.DataFrame({**sentences, "score": score}).astype({"score": float})


def set_pairs(table: pd.DataFrame) -> None:
    """Fill the session's table of pairs, before it is drawn."""
    st.session_state["pairs"] = st.session_state["pairs_base"] = as_pairs(table)
    st.session_state["pairs_version"] = st.session_state.get("pairs_version", 0) + 1


def is_unedited_example() -> bool:
    """Return whether the table of pairs shows an example as it is."""
    shown = example(st.session_state.get("pairs_example"))["pairs"]
    return st.session_state["pairs"].equals(as_pairs(shown))


def scored_pairs() -> pd.DataFrame | None:
    """Return the whole pairs of the table that have scores, as sentence1, sentence2, score.

    None where the person brought none: the table shows an example as it is, or its scores can
    rank nothing.
    """
    if "pairs" not in st.session_state or is_unedited_example():
        return None
    pairs = as_pairs(st.session_state["pairs"])
    is_whole = pairs[PAIR_COLUMNS[:2]].map(lambda text: bool(text.strip())).all(axis=1)
    pairs = pairs[is_whole & np.isfinite(pairs["score"])].reset_index(drop=True)
    return pairs if len(pairs) >= 3 and pairs["score"].nunique() > 1 else None
