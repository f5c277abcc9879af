"""Figures of what a training run has changed: layer weights and pairs, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.axes import score_axis, state_axis
from lwap.figures.charts import bar_panel, dot_panel, weight_panel
from lwap.figures.checks import checked_arrays, checked_texts
from lwap.figures.labels import legend_height
from lwap.figures.marks import dots, segments, state_bars
from lwap.figures.panels import HEADER, compose
from lwap.figures.style import CLEAR, Palette, palette_of, signed_colors, translucent
from lwap.figures.template import SMALL, halo
from lwap.figures.texts import escape, format_number, hover_text, shorten

_REVISION = "training"  # the same always: what a click has hidden stays so when drawn anew


def weights_before_after(weights: Mapping[str, Any], *, theme: str = "light") -> go.Figure:
    """Draw the mean layer weights of a model before and after, and their difference.

    Args:
        weights: what the model is called → its weights (S,), in order of time, at most 4; None
            leaves one out, and with only one there is no difference. The difference is that of
            the last to the first.

    Raises:
        ValueError: there are no weights or more than 4.
    """
    palette = palette_of(theme)
    given = {name: values for name, values in weights.items() if values is not None}
    if not 1 <= len(given) <= 4:
        raise ValueError(f"weights has {len(given)} states of a model; expected 1 to 4")
    arrays = checked_arrays(**{f"weights[{name!r}]": (v, "S") for name, v in given.items()})
    is_changed = len(arrays) > 1
    shares = np.linspace(0.7, 0.4, max(len(arrays) - 2, 0)).round(2)[::-1].tolist()
    colors = [palette.plain] if is_changed else []
    colors += [*(translucent(palette.accent, share) for share in shares), palette.accent]
    names = [shorten(name, 30) for name in given]
    bars = [
        state_bars(values, color, hover="%{fullData.name}<br>", name=escape(name))
        for name, values, color in zip(names, arrays, colors, strict=True)
    ]
    panels = [weight_panel(bars, palette, "Mean layer weights", body=150)]
    if is_changed:
        change = arrays[-1] - arrays[0]
        first, *_, last = (escape(shorten(name, 20)) for name in given)
        options: dict[str, Any] = dict(
            signed=True, showlegend=False, name="difference", header=HEADER + 8
        )
        colors, note = signed_colors(change, palette), f"{last} − {first}"
        panels.append(bar_panel(change, colors, "Difference", note, **options))
    return compose(
        panels,
        state_axis(len(arrays[0]), "hidden state"),
        palette,
        legend=legend_height(names, line=20) if is_changed else 0,
        barmode="group",
        bargroupgap=0.06,
        uirevision=_REVISION,
    )


def moved_pairs(
    before: Any,
    after: Any,
    labels: Sequence[str],
    *,
    gold: Any = None,
    most: int = 12,
    x_title: str = "cosine",
    value_format: str = ".3f",
    theme: str = "light",
) -> go.Figure:
    """Draw the pairs whose score moved most: one row a pair, from before to after.

    The largest movement is on top; a pair without both scores is left out. Orange pairs rose,
    purple ones fell. `customdata` of every dot is [index of the pair].

    Args:
        before: (P,), scores before; NaN where unknown.
        after: (P,), scores after, on the same scale; NaN as above.
        labels: P pairs, for instance "first ↔ second", whole in the hover; equal ones keep rows
            of their own.
        gold: (P,), reference scores on the same scale, NaN where unknown; no marks if None.
        most: rows that are drawn.
        x_title: what the scale is, with its unit.
        value_format: Python format of a score.

    Raises:
        ValueError: `most` is below 1.
    """
    palette = palette_of(theme)
    arrays = {"before": (before, "P", "nan", "empty"), "after": (after, "P", "nan", "empty")}
    if gold is not None:
        arrays["gold"] = (gold, "P", "nan", "empty")
    scores = np.stack(checked_arrays(**arrays))
    labels = checked_texts("labels", labels, scores.shape[1])
    if most < 1:
        raise ValueError(f"most must be 1 or more, got {most}")
    moves = scores[1] - scores[0]
    known = np.flatnonzero(np.isfinite(moves))
    order = known[np.argsort(-np.abs(moves[known]), kind="stable")][:most]
    shown = [labels[pair] for pair in order]
    key = "○ before → ● after" + (", ┃ gold" if gold is not None else "")
    panel = dot_panel(
        shown,
        palette,
        _movements(scores[:, order], shown, order, value_format, palette),
        head="Pairs that moved most",
        note=key if shown else "no pair has both scores",
        header=HEADER,
    )
    x_axis = score_axis(scores[:, order], escape(x_title))
    return compose([panel], x_axis, palette, margin=dict(l=4), uirevision=_REVISION)


def _movements(
    scores: np.ndarray, labels: Sequence[str], pairs: np.ndarray, form: str, palette: Palette
) -> list[go.Scatter]:
    """Build a line from before to after in each row, with its marks and its length.

    scores: (2, R) or, with gold scores, (3, R); pairs: (R,), for the custom data
    """
    rows, moves = np.arange(len(pairs)), scores[1] - scores[0]
    colors = np.array(signed_colors(moves, palette))
    moved = [format_number(move, f"+{form}") for move in moves]
    traces = []
    for color in dict.fromkeys(colors.tolist()):
        chosen = np.flatnonzero(colors == color)
        name = "rose" if color == palette.positive else "fell"
        start, end = scores[:2, chosen]
        traces.append(segments(start, end, chosen, color, 3, name=name))
    page, gold = dict(color=palette.background, width=1), dict(color=palette.gold, width=3)
    marks = {
        "before": dict(size=10, color=palette.background, line=dict(color=colors, width=2)),
        "after": dict(size=12, color=colors, line=page),
        "gold": dict(symbol="line-ns", size=12, color=palette.gold, line=gold),
    }
    hover = []
    for label, numbers, move in zip(labels, scores.T, moved, strict=True):
        said = [*zip(marks, (format_number(one, form) for one in numbers), strict=False)]
        lines = [f"{name}: <b>{number}</b>" for name, number in [*said, ("movement", move)]]
        hover.append("<br>".join([hover_text(label), *lines]))
    for (name, marker), numbers in zip(marks.items(), scores, strict=False):
        traces.append(dots(numbers, rows, marker, hover, pairs[:, None].tolist(), name=name))
    movement = go.Scatter(
        x=scores[:2].mean(axis=0),
        y=rows,
        mode="markers+text",
        marker=dict(size=12, color=CLEAR),  # the text stands below it
        text=moved,
        textposition="bottom center",
        textfont=dict(size=SMALL, color=palette.text, shadow=halo(palette)),
        hoverinfo="skip",
        name="movement",
    )
    return [*traces, movement]
