"""All models: the table, and the weights of their layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from lwap import figures
from lwap.checkpoints.manifest import CheckpointInfo, folder_size, read_object
from lwap.encoding.sources import BUNDLED, bundled_folder
from lwap.errors import LwapError
from lwap.library.results import dev_score, gain, layer_weights
from lwap.library.stored import StoredModel, list_models
from lwap.pooling.declarations import needs_training
from lwap.ui import links, widgets
from lwap.ui.frame import escape, say_gone
from lwap.ui.links import CHECKPOINT
from lwap.ui.model_words import in_words, pooling_words, trained

SHIPPED, OWN, PACKAGE = "shipped", "yours", "package"
NEXT, SAID, ASKS = "models_next", "models_said", "models_asks"


@dataclass(frozen=True)
class Entry:
    """A row of the table: a checkpoint, or the bundled encoder.

    Attributes:
        name: The name that the model picker takes.
        key: What the menu calls it: the name, unless two have it.
        origin: "shipped", "yours" or "package".
        stored: The checkpoint; None for the bundled encoder.
        weights: Weight of each state on its dev set, (S,), or 1 for the last layer where the
            pooling reads that alone; None where none was recorded.
        size_bytes: Size on disk.
        problem: What is wrong with it, or "".
    """

    name: str
    key: str
    origin: str
    stored: StoredModel | None
    weights: list[float] | None
    size_bytes: int
    problem: str = ""

    @property
    def info(self) -> CheckpointInfo | None:
        """What the checkpoint says of itself; None where it cannot be read."""
        return self.stored.info if self.stored else None


def entries() -> list[Entry]:
    """Return what there is: shipped, the person's own, the bundled encoder."""
    found: list[Entry] = []
    for stored in list_models():
        is_known = any(entry.key == stored.name for entry in found)
        found.append(
            Entry(
                name=stored.name,
                key=f"{stored.name} (yours)" if is_known else stored.name,
                origin=SHIPPED if stored.is_shipped else OWN,
                stored=stored,
                weights=_weights(stored.info) if stored.info else None,
                size_bytes=stored.size_bytes,
                problem=stored.problem,
            )
        )
    return [*found, _bundled()]


def _bundled() -> Entry:
    weights, size, problem = None, 0, ""
    try:
        if folder := bundled_folder():
            size = folder_size(folder)
            layers = read_object(folder / "config.json")["num_hidden_layers"]
            weights = _last_layer(layers + 1)
    except LwapError as error:
        problem = str(error)
    return Entry(BUNDLED, BUNDLED, PACKAGE, None, weights, size, problem)


def _weights(info: CheckpointInfo) -> list[float] | None:
    return layer_weights(info) if needs_training(info.pooling) else _last_layer(info.num_states)


def _last_layer(num_states: int) -> list[float]:
    return [0.0] * (num_states - 1) + [1.0]


def chosen_of(found: Sequence[Entry]) -> Entry:
    """Return the entry that is looked into; say so where the chosen one is gone."""
    keys = [entry.key for entry in found]
    if (wanted := st.session_state.pop(NEXT, None)) in keys:
        st.session_state[CHECKPOINT] = wanted
    elif st.session_state.get(CHECKPOINT, keys[0]) not in keys:
        gone = st.session_state[CHECKPOINT]
        st.session_state[CHECKPOINT] = keys[0]
        if SAID not in st.session_state:
            say_gone(gone)
    linked = st.query_params.get(CHECKPOINT)
    chosen = st.session_state.get(CHECKPOINT) or (linked if linked in keys else keys[0])
    return found[keys.index(chosen)]


def table(found: Sequence[Entry]) -> None:
    """Draw all models as a table."""
    rows = pd.DataFrame([_row(entry) for entry in found])
    if not rows["State"].any():
        rows = rows.drop(columns="State")
    st.dataframe(
        rows,
        hide_index=True,
        column_config={
            "Model": st.column_config.TextColumn(pinned=True),
            "State": st.column_config.TextColumn(width=95),
            "Dev score": st.column_config.TextColumn(
                help="Spearman × 100 on the dev set that the step was chosen on, 95 % interval."
            ),
            "Against mean": st.column_config.TextColumn(
                help="Difference to the untouched encoder's mean on the same pairs, 95 % interval."
            ),
            "MB": st.column_config.NumberColumn(format="%.1f"),
        },
    )


def _row(entry: Entry) -> dict[str, object]:
    row: dict[str, object] = {"Model": entry.key, "State": _state(entry), "Origin": entry.origin}
    row |= dict.fromkeys(["Pooling", "Trained", "Dev score", "Against mean"], "")
    row |= {"MB": entry.size_bytes / 1e6}
    row |= dict.fromkeys(["Dev set", "Data", "Encoder"], "")
    info = entry.info
    if info is not None:
        row |= {
            "Pooling": pooling_words(info),
            "Trained": trained(info),
            "Dev score": in_words(dev_score(info)),
            "Against mean": in_words(gain(info), "+"),
            "Dev set": str(info.results.get("dev_set", "")),
            "Data": info.trained_on,
            "Encoder": _encoder(info),
        }
    elif entry.origin == PACKAGE:
        row |= {"Pooling": "mean", "Trained": "as published", "Encoder": BUNDLED}
    return row


def _state(entry: Entry) -> str:
    """Return what is wrong with a model, in a word."""
    if not entry.problem:
        return ""
    return "damaged" if entry.info is None else "name taken"


def _encoder(info: CheckpointInfo) -> str:
    """Return an encoder's name without what its id or folder says before it."""
    return re.split(r"[/\\]", info.encoder.rstrip("/\\"))[-1]


def weights_figure(found: Sequence[Entry], chosen: Entry) -> None:
    """Draw the layer weights of all models that have recorded theirs."""
    drawn = [entry for entry in found if entry.weights is not None]
    if drawn:
        widgets.draw(
            "model-weights",
            figures.model_weights,
            [entry.weights for entry in drawn],
            [entry.key for entry in drawn],
            selected=drawn.index(chosen) if chosen in drawn else None,
        )
    if lacking := [entry.key for entry in found if entry.weights is None]:
        st.caption(f"No weights recorded: {escape(', '.join(lacking))}.")


def choose(found: Sequence[Entry], chosen: Entry) -> None:
    """Draw the menu of models, bound to the link."""
    st.session_state[CHECKPOINT] = chosen.key
    st.selectbox(
        "Details of",
        [entry.key for entry in found],
        key=CHECKPOINT,
        on_change=ask_nothing,
        **links.BOUND,
    )


def ask_nothing() -> None:
    """Take back a question: what to rename a model to, or whether to delete it."""
    st.session_state.pop(ASKS, None)
