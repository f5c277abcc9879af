"""Spaces and maps while they are computed: progress, a stop, another try."""

from __future__ import annotations

from typing import Any

import streamlit as st

from lwap.errors import LwapError
from lwap.ui import widgets
from lwap.ui.frame import escape
from lwap.ui.space import mapping
from lwap.ui.space.mapping import Drawn, Lookup, MapRequest, Spaces
from lwap.ui.space.sentences import Dataset
from lwap.ui.work import FAILED, STOPPED

WAITED_FOR_UMAP = 0.4  # seconds, as PCA can be shown: enough to read a map from the disk


def measured(chosen: MapRequest, data: Dataset) -> Spaces:
    """Return the measured spaces; while they are not there, say why and end the page."""
    asked = chosen.spaces
    found = mapping.find_spaces(asked) or mapping.spaces(asked, data.table)
    if not widgets.is_done(
        found,
        mapping.forget,
        what="Sentences encoded",
        key="space",
        before="Measuring both spaces.",
        stopped=widgets.ENCODED_IS_KEPT,
    ):
        st.stop()
    for note in found.notes:
        st.caption(escape(note))
    return found


def drawn_maps(chosen: MapRequest, found: Spaces) -> Drawn:
    """Return the maps to show: UMAP once it is there, PCA until then, with a line on progress."""
    if chosen.method == "pca":
        return found.pca
    work = mapping.find_umap(chosen) or mapping.umap(chosen, found)
    if work.state == STOPPED:
        again = widgets.with_button("Draw UMAP", "umap_again", mapping.forget, work)
        again.info("UMAP was stopped; this is the PCA map.", icon=":material/stop_circle:")
        return found.pca
    if work.wait(WAITED_FOR_UMAP) and work.result is not None:
        for note in work.notes:
            st.caption(escape(note))
        return work.result
    if work.state == FAILED:
        again = widgets.with_button("Try again", "umap_again", mapping.forget, work)
        again.error(f"{escape(work.error)} Below is the PCA map.", icon=":material/error:")
        return found.pca
    widgets.follow(
        work,
        "UMAP is being drawn, PCA is shown meanwhile: step",
        "UMAP is being prepared, PCA is shown meanwhile.",
        "umap_stop",
    )
    return found.pca


def result(work: Lookup, what: str, key: str) -> Any:
    """Return the result of something that was looked up; None while it is not there, and why."""
    is_there = widgets.is_done(
        work, mapping.forget, what=what, key=key, before=f"{what}.", stopped=f"{what}: stopped."
    )
    return work.result if is_there else None


def warm_up() -> None:
    """Start the process of UMAP, so that it is ready when the spaces are measured."""
    try:
        mapping.umap_process().warm_up()
    except OSError as error:  # too little memory to start one: PCA still works
        raise LwapError(
            f"The process that draws UMAP maps cannot be started ({error.strerror}). Close other "
            "programs, or choose PCA."
        ) from error
