"""What colours the points of both maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st

from lwap import figures
from lwap.ui import cache, links
from lwap.ui.frame import escape
from lwap.ui.space import mapping
from lwap.ui.space.mapping import Drawn, Spaces
from lwap.ui.space.sentences import Dataset
from lwap.ui.space.waiting import result

MOST_COLOURS = 12  # categories that get one
_CLUSTER, _HDBSCAN = "Cluster (k-means)", "Cluster (HDBSCAN)"
_DOMINANT, _ENTROPY = "Dominant layer", "Attention entropy"
_LENGTH, _DISTANCE = "Length", "Distance to the mean"
_ERROR, _CHANGE, _MOVED = "Projection error", "Neighbours changed", "Movement"
_HELP = (
    "Labels come from the data. Clusters are found in the full space of the first map and drawn "
    "in both. Dominant layer and attention entropy: of the layer attention of the second map's "
    "model. Projection error: share of a point's 15 nearest neighbours that the map does not "
    "keep near. Neighbours changed: share of its 10 nearest in the full space that differ between "
    "the two spaces."
)


@dataclass(frozen=True, eq=False)
class Colours:
    """What colours the points of both maps.

    Attributes:
        name: What it is.
        categories: A label of each point; None for numbers.
        order: The labels that get a colour.
        values: Numbers of each point, one array a map; None for labels.
        form: Format of the numbers.
    """

    name: str
    categories: tuple[str, ...] | None = None
    order: tuple[str, ...] = ()
    values: tuple[np.ndarray, np.ndarray] | None = None
    form: str = ".2f"

    def of(self, place: int) -> figures.PointColors:
        """Return the colours of one map, which share the scale of both."""
        if self.categories is not None:
            return figures.PointColors(categories=self.categories, order=self.order)
        if self.values is None:
            return figures.PointColors()
        both = np.concatenate([values[np.isfinite(values)] for values in self.values])
        ends = (float(both.min()), float(both.max())) if both.size else (0.0, 1.0)
        return figures.PointColors(self.values[place], self.name, self.form, ends)


def menu(data: Dataset, models: Sequence[str]) -> str:
    """Draw the menu of what can colour the points, bound to the link; return the choice."""
    table = data.table
    options = [*table.labels, *table.numbers, _CLUSTER, _HDBSCAN]
    if any(cache.facts(name).has_attention for name in models):
        options += [_DOMINANT, _ENTROPY]
    options += [_LENGTH, _DISTANCE, _ERROR, _CHANGE, _MOVED]
    default = options[0] if table.labels or table.numbers else _CHANGE
    options = list(dict.fromkeys([default, *options]))  # a column may be called as one of ours
    if st.session_state.get("colour", default) not in options:
        del st.session_state["colour"]
    return st.selectbox("Colour by", options, key="colour", help=_HELP, **links.BOUND)


def colours(name: str, data: Dataset, found: Spaces, drawn: Drawn) -> Colours:
    """Return what colours the points; says what is left grey, and why."""
    table, spaces = data.table, found.spaces
    if name in table.labels:
        return _labelled(name, table.labels[name])
    if name in table.numbers:
        values = table.numbers[name]
        if missing := int(np.isnan(values).sum()):
            st.caption(f"'{escape(name)}' is missing in {missing:,} rows, which are grey.")
        return Colours(name, values=(values, values), form=".3g")
    if name in (_CLUSTER, _HDBSCAN):
        kind = "hdbscan" if name == _HDBSCAN else "kmeans"
        count = min(MOST_COLOURS, max(2, len(table) // 5))
        labels = result(mapping.clusters(found, kind, count), "Clusters", "clusters")
        return Colours(name) if labels is None else _labelled(name, labels, "in no cluster")
    if name in (_DOMINANT, _ENTROPY):
        place = 1 if cache.facts(found.request.models[1]).has_attention else 0
        weights = result(mapping.layer_weights(found, place), "Layer attention", "weights")
        if weights is None:
            return Colours(name)
        if name == _ENTROPY:
            shares = np.clip(weights, 1e-12, None)
            entropy = -(shares * np.log(shares)).sum(axis=1) / np.log(weights.shape[1])
            return Colours("Attention entropy, 1 is even", values=(entropy, entropy))
        states = [figures.state_name(state) for state in range(weights.shape[1])]
        labels = [states[state] for state in weights.argmax(axis=1)]
        order = [state for state in states if state in labels][:MOST_COLOURS]
        return Colours(name, tuple(labels), tuple(order))
    if name == _LENGTH:
        lengths = np.array([float(len(text.split())) for text in table.sentences])
        return Colours("Length in words", values=(lengths, lengths), form=".0f")
    if name == _DISTANCE:
        both = _distance(spaces[0].unit), _distance(spaces[1].unit)
        return Colours("1 − cosine to the mean", values=both)
    if name == _ERROR:
        both = 1 - drawn.quality[0].point_recall, 1 - drawn.quality[1].point_recall
        return Colours("Neighbours that the map loses", values=both)
    if name == _MOVED:
        return Colours("Movement, in radii", values=(drawn.maps.moved, drawn.maps.moved))
    changed = 1 - found.neighbours_kept
    return Colours("Neighbours changed", values=(changed, changed))


def _labelled(name: str, labels: Sequence[str], missing: str = "without a label") -> Colours:
    counts = Counter(label for label in labels if label)
    order = [label for label, _ in counts.most_common(MOST_COLOURS)]
    if set(order) == set(counts):  # all of them: in the order of the data, as topics are
        order = list(dict.fromkeys(label for label in labels if label))
        if all(label.isdecimal() for label in order):
            order.sort(key=int)
    said = []
    if len(counts) > MOST_COLOURS:
        said.append(
            f"'{escape(name)}' has {len(counts):,} different values; the {MOST_COLOURS} most "
            "frequent are coloured, the others grey. A column with fewer values shows more."
        )
    if empty := sum(not label for label in labels):
        said.append(f"{empty:,} sentences are {missing} and grey.")
    if said:
        st.caption(" ".join(said))
    return Colours(name, tuple(labels), tuple(order))


def _distance(unit: np.ndarray) -> np.ndarray:
    mean = unit.mean(axis=0, dtype=np.float64)
    return 1 - unit @ (mean / max(np.linalg.norm(mean), 1e-12)).astype(np.float32)
