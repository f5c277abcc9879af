"""What a session remembers and what its link says. Plain data and ids only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

ASSETS = Path(__file__).parents[2] / "assets"
LINK_CHARACTERS = 2000  # what a link may carry; browsers and proxies cut longer ones


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


def link_values(name: str) -> list[str]:
    """Return what the link says under `name` (several values)."""
    return st.query_params.get_all(name)


def put_in_link(name: str, values: Sequence[str]) -> bool:
    """Put values into the link; return False, and leave them out, where they are too long."""
    fits = sum(map(len, values)) <= LINK_CHARACTERS
    wanted = list(values) if fits else []
    if st.query_params.get_all(name) != wanted:
        if wanted:
            st.query_params[name] = wanted
        elif name in st.query_params:
            del st.query_params[name]
    return fits
