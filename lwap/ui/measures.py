"""Measures of a space as tables and cards show them: the better direction, and what they mean."""

from __future__ import annotations

import streamlit as st

from lwap.evaluation.declarations import by_label


def title(label: str) -> str:
    """Return a measure's label with its better direction."""
    return f"{label} {by_label(label).better}"


def about(label: str) -> str:
    """Return what a measure means, in a sentence."""
    return by_label(label).explanation


def column(name: str, form: str = "%.3f", more: str = ""):
    """Return how a table shows a measure; `more` is to be known of it there."""
    return st.column_config.NumberColumn(title(name), format=form, help=about(name) + more)
