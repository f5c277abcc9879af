"""Which two spaces are shown, and how they are drawn."""

from __future__ import annotations

from typing import Any

import streamlit as st

from lwap.ui import cache, frame, links, widgets
from lwap.ui.space import colours
from lwap.ui.space.mapping import MapRequest, Request
from lwap.ui.space.sentences import Dataset

METHODS = ["UMAP", "PCA"]


def choices(model: str, data: Dataset) -> tuple[MapRequest, str]:
    """Draw the menus of both spaces, colour and projection, bound to the link; return them.

    Raises:
        LwapError: If a model cannot be loaded.
    """
    one, two, three, four, five = st.columns(
        [15, 18, 15.5, 18.5, 24], gap="small", vertical_alignment="bottom"
    )
    facts = cache.facts(model)
    with one:
        first = widgets.strategy_choice("First map", "space_a", "mean", facts)
    with two:
        other = frame.second_model(
            "Second map: model",
            "space_model",
            none=links.SAME_MODEL,
            help="Another checkpoint shows what training changed, the same model what another "
            "pooling or layer changes.",
        )
    with three:
        own = cache.facts(other)
        default = widgets.own_strategy(own, "cls")
        second = widgets.strategy_choice("Second map: strategy", "space_b", default, own)
    with four:
        colour = colours.menu(data, (model, other))
    with five:
        left, right = st.columns([2, 1], vertical_alignment="bottom", gap="small")
        with left:
            method = widgets.row("Projection", METHODS, "projection")
        with (
            right,
            st.popover("", icon=":material/tune:", help="Settings of UMAP", width="stretch"),
        ):
            settings = _settings()
    spaces = Request(
        models=(model, other),
        fingerprints=(cache.fingerprint(model), cache.fingerprint(other)),
        strategies=(first, second),
        data=data.digest,
    )
    return MapRequest(spaces, method.lower(), **settings), colour


def _settings() -> dict[str, Any]:
    return {
        "n_neighbors": st.slider(
            "Neighbours",
            2,
            100,
            15,
            key="neighbours",
            help="How many of each point's neighbours the map tries to keep near: few show fine "
            "structure, many the whole.",
            **links.BOUND,
        ),
        "min_dist": st.slider(
            "Minimum distance",
            0.0,
            1.0,
            0.1,
            0.05,
            key="min_dist",
            help="How tightly points may be packed.",
            **links.BOUND,
        ),
        "seed": int(
            st.number_input(
                "Seed",
                0,
                9999,
                0,
                key="map_seed",
                help="Another seed gives another map of the same space; see *Chance*.",
                **links.BOUND,
            )
        ),
    }
