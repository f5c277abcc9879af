"""Figures of a space of embeddings as a map: every sentence a point in the plane."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.checks import checked_arrays, checked_texts
from lwap.figures.layout import (
    PHONE,
    SIZE,
    SMALL,
    add_text,
    count_legend_lines,
    finish,
    halo,
    header_color_bar,
    padded,
    top_legend,
)
from lwap.figures.marks import CLICKABLE
from lwap.figures.placement import place_labels
from lwap.figures.style import (
    ACCENT,
    CATEGORIES,
    CATEGORY_SYMBOLS,
    CLEAR,
    Palette,
    growing_scale,
    palette_of,
    translucent,
)
from lwap.figures.texts import (
    clean,
    colored,
    escape,
    format_number,
    hover_text,
    shorten,
)

_WEBGL_FROM = 1500  # points; fewer are drawn sharper, saved and moved, as SVG
_PLOT = 430  # px, height of a map
_SIDE = 8  # px, margins beside a map
_LINE = 18  # px, a line of the header
_LEGEND_WIDTH = 600  # px, at which the legend's lines are reckoned; on a phone it takes more
_LEGEND_LINE = 19  # px
_TITLE, _NOTE, _NAME = 40, 54, 24  # columns of the header's lines, and of a name in the legend
_CELLS = 140  # of the density along the longer side of the span
_BAR = 32  # px, the colour bar's part of the header
_CONTROLS = 66  # px, slider and buttons below an animation
_BUTTONS = 128  # px, width of the buttons
_STEP, _MOVE = 900, 600  # ms, between two frames of an animation, and of that in motion
_MOST_RINGS = 4000
_LABEL = 24  # columns of the label of an added sentence
_OPACITY = 0.85  # points that lie on each other are seen, and one alone is not pale

_BUTTON_TEXT = "#12191b"

Span = tuple[tuple[float, float], tuple[float, float]]


def space_map(
    coordinates: Any,
    texts: Sequence[str],
    *,
    values: Any = None,
    value_name: str = "",
    value_form: str = ".2f",
    value_span: tuple[float, float] | None = None,
    categories: Sequence[str | None] | None = None,
    order: Sequence[str] | None = None,
    drawn: Sequence[int] | None = None,
    selected: Sequence[int] | None = None,
    focus: int | None = None,
    neighbours: Sequence[int] | None = None,
    added: Any = None,
    added_texts: Sequence[str] | None = None,
    span: Any = None,
    note: str = "",
    title: str | None = None,
    is_lasso: bool = True,
    theme: str = "light",
) -> go.Figure:
    """Draw sentences as points of a map, coloured by a value or a category.

    Both axes have one scale and no meaning of their own, so they have no numbers. `customdata` of
    every point and ring is [its row], that of an added sentence [−1 − its index]. Height and size
    of the plot depend on the values or categories and on whether there is a title, not on the
    points, so that two maps side by side are equally large.

    Args:
        coordinates: (N, 2), where the sentences stand.
        texts: N sentences, for the hover of the points that are drawn.
        values: (N,), a number of each sentence for its colour; NaN is unknown and drawn in grey.
        value_name: what the values are, for header and hover.
        value_form: format of the values.
        value_span: the values that have the ends of the colour scale, for maps that are to have
            one scale. None: the lowest and the highest value.
        categories: N labels for the colours, "" or None where there is none.
        order: the categories that have a colour, in order of the colours, at most 12; all others
            are grey. None: the most frequent ones.
        drawn: rows that have a mark, above the density of all N points. None: every row has one
            and there is no density.
        selected: rows that are ringed in the accent colour, drawn or not; of more than 4,000 an
            even part.
        focus: a row with a bold ring.
        neighbours: rows that are joined with the focus by thin lines.
        added: (M, 2), where new sentences stand.
        added_texts: M new sentences.
        span: the lowest and the highest x, then those of y, for maps that are to have one scale.
            None: all points and the added ones, with a margin.
        note: a line below the title.
        title: a bold line above the map.
        is_lasso: whether dragging draws a lasso; without it, nothing.
        theme: "light" or "dark".

    Raises:
        ValueError: shapes disagree, a coordinate is not finite, a row is none of 0 to N − 1, both
            values and categories are given, `order` has more than 12 or repeated entries, there
            are neighbours but no focus, a span is empty, or the theme is unknown.
    """
    palette = palette_of(theme)
    coordinates = _checked_places("coordinates", coordinates, "N")
    count = len(coordinates)
    texts = checked_texts("texts", texts, count)
    coloring = _checked_coloring(
        count, values, value_name, value_form, categories, order, palette, theme, value_span
    )
    shown = _checked_rows("drawn", range(count) if drawn is None else drawn, count)
    ringed = _checked_rows("selected", () if selected is None else selected, count)
    middle = _checked_rows("focus", () if focus is None else (focus,), count)
    near = _checked_rows("neighbours", () if neighbours is None else neighbours, count)
    if near.size and not middle.size:
        raise ValueError("neighbours are joined with the focus, but focus is None")
    added, added_texts = _checked_added(added, added_texts)
    spans = _checked_span(span, np.concatenate([coordinates, added]))

    # WebGL draws above all SVG: rings are seen only if they are drawn as the points are.
    scatter = go.Scattergl if len(shown) > _WEBGL_FROM else go.Scatter
    size = _point_size(len(shown))
    figure = go.Figure()
    if drawn is not None:
        figure.add_trace(_density(coordinates, spans, palette))
    figure.add_traces(_points(coordinates, texts, shown, coloring, scatter, palette, theme))
    if ringed.size:
        # Not the first ones: rows may be sorted by topic.
        part = np.linspace(0, len(ringed) - 1, min(len(ringed), _MOST_RINGS)).round().astype(int)
        # Many thick rings would cover the points that they are to show.
        wider, width = (6, 2) if len(part) <= 60 else (4, 1.3) if len(part) <= 300 else (3, 0.8)
        ring = _rings(
            coordinates, ringed[part], scatter, "selected", size + wider, ACCENT[theme], width
        )
        figure.add_trace(ring.update(hoverinfo="skip", hovertemplate=None))
    if near.size:
        figure.add_trace(_spokes(coordinates, int(middle[0]), near, scatter, palette))
        ring = _rings(coordinates, near, scatter, "neighbour rings", size + 4, palette.text, 1.5)
        figure.add_trace(ring.update(hovertext=_hover(texts, near, coloring)))
    if middle.size:
        ring = _rings(coordinates, middle, scatter, "focus", size + 11, palette.text, 3.5)
        figure.add_trace(ring.update(hovertext=_hover(texts, middle, coloring)))
    if len(added):
        _add_sentences(
            figure, added, added_texts, coordinates[middle], spans, scatter, palette, theme
        )

    heads = [] if title is None else [f"<b>{escape(shorten(title, _TITLE))}</b>"]
    heads.append(colored(escape(shorten(note, _NOTE)), palette.muted) if note else "&nbsp;")
    height, top, bottom = _add_surroundings(figure, "<br>".join(heads), coloring, palette, 0)
    figure.update_layout(**_axes(palette, spans))
    finish(figure, palette, height, left=_SIDE, right=_SIDE, top=top, bottom=bottom)
    # A zoom stays when the figure is drawn anew in its place, which Streamlit does not do where
    # points were chosen: another content is another chart to it.
    return figure.update_layout(dragmode="lasso" if is_lasso else False, uirevision="map")


def map_span(*maps: Any) -> Span:
    """Return the extent of maps of the same sentences, a little wider, to be their `span`.

    Args:
        maps: (N, 2) each.
    """
    every = np.concatenate(maps).astype(np.float64)
    low, high = every.min(axis=0), every.max(axis=0)
    room = 0.04 * np.maximum(high - low, 1e-6)  # points on a line have no height
    (left, bottom), (right, top) = (low - room).tolist(), (high + room).tolist()
    return (left, right), (bottom, top)


def map_walk(
    coordinates: Any,
    names: Sequence[str],
    texts: Sequence[str],
    *,
    categories: Sequence[str | None] | None = None,
    order: Sequence[str] | None = None,
    values: Any = None,
    value_name: str = "",
    notes: Sequence[str] | None = None,
    theme: str = "light",
) -> go.Figure:
    """Draw maps of the same sentences as an animation, with a slider and buttons below.

    `customdata` of every point is [its row]. A frame holds nothing but the places of the points
    and the header: texts and colours are those of the first one.

    Args:
        coordinates: (F, N, 2), where the sentences stand in each frame.
        names: F names of the frames, such as "layer 3".
        texts: N sentences, for the hover.
        categories: N labels for the colours, "" or None where there is none.
        order: the categories that have a colour, as in `space_map`.
        values: (N,), a number of each sentence for its colour; NaN is unknown and drawn in grey.
        value_name: what the values are, for header and hover.
        notes: F lines for the header, each shown with its frame.
        theme: "light" or "dark".

    Raises:
        ValueError: shapes disagree, a coordinate is not finite, both values and categories are
            given, `order` has more than 12 or repeated entries, or the theme is unknown.
    """
    palette = palette_of(theme)
    coordinates = _checked_places("coordinates", coordinates, "FN")
    steps, count, _ = coordinates.shape
    names = checked_texts("names", names, steps)
    texts = checked_texts("texts", texts, count)
    lines = [""] * steps if notes is None else checked_texts("notes", notes, steps)
    coloring = _checked_coloring(
        count, values, value_name, ".2f", categories, order, palette, theme
    )
    spans = _checked_span(None, coordinates.reshape(-1, 2))
    shown = np.arange(count)
    is_smooth = count <= _WEBGL_FROM  # WebGL cannot move points
    scatter = go.Scatter if is_smooth else go.Scattergl
    heads = [
        f"<b>{escape(shorten(name, _TITLE))}</b><br>"
        + (colored(escape(shorten(line, _NOTE)), palette.muted) if line else "&nbsp;")
        for name, line in zip(names, lines, strict=True)
    ]

    figure = go.Figure()
    figure.add_traces(_points(coordinates[0], texts, shown, coloring, scatter, palette, theme))
    height, top, bottom = _add_surroundings(figure, heads[0], coloring, palette, _CONTROLS)
    figure.update_layout(**_axes(palette, spans))
    figure.update_xaxes(fixedrange=True)
    figure.update_yaxes(fixedrange=True)
    finish(figure, palette, height, left=_SIDE, right=_SIDE, top=top, bottom=bottom)

    rows = [trace.customdata[:, 0] for trace in figure.data]
    places = coordinates.astype(np.float32)
    _, *others = figure.layout.annotations
    figure.frames = [
        go.Frame(
            # Not the name: two frames may be called alike.
            name=str(step),
            data=[scatter(x=places[step, part, 0], y=places[step, part, 1]) for part in rows],
            traces=list(range(len(rows))),
            layout=dict(annotations=[_header_text(head, palette, coloring), *others]),
        )
        for step, head in enumerate(heads)
    ]
    return figure.update_layout(**_controls(names, is_smooth, palette, theme))


# --- colours -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Group:
    """Points of one trace: one category, or all that have a value."""

    name: str
    rows: np.ndarray  # sorted
    color: str
    symbol: str = "circle"
    rank: int = 0  # in the legend


@dataclass(frozen=True)
class _Coloring:
    """What the colour of a point says; equal for two maps of the same sentences."""

    groups: list[_Group]  # in the order in which they are drawn
    values: np.ndarray | None = None  # (N,), for the colours of the last group
    span: tuple[float, float] = (0.0, 1.0)
    value_name: str = ""
    form: str = ".2f"
    labels: list[str] | None = None

    def line(self, row: int) -> str:
        """What the hover of a point says below its sentence."""
        if self.values is not None:
            value = self.values[row]
            printed = "unknown" if np.isnan(value) else f"<b>{format_number(value, self.form)}</b>"
            return f"{escape(clean(self.value_name))}: {printed}" if self.value_name else printed
        if self.labels is not None:
            return f"<b>{escape(clean(self.labels[row]))}</b>" if self.labels[row] else "no label"
        return ""


def _checked_coloring(
    count: int,
    values: Any,
    value_name: str,
    form: str,
    categories: Sequence[str | None] | None,
    order: Sequence[str] | None,
    palette: Palette,
    theme: str,
    value_span: tuple[float, float] | None = None,
) -> _Coloring:
    if values is not None and categories is not None:
        raise ValueError("values and categories are both given; a point has one colour")
    if order is not None and categories is None:
        raise ValueError("order is given without the categories that it orders")
    if values is not None:
        (values,) = checked_arrays(values=(values, "N", "nan"))
        if len(values) != count:
            raise ValueError(f"values has {len(values)} entries; expected {count}")
        known = np.isfinite(values)
        groups = [
            _Group("unknown", np.flatnonzero(~known), palette.zero),
            _Group("values", np.flatnonzero(known), palette.plain),
        ]
        span = (float(values[known].min()), float(values[known].max())) if known.any() else (0, 1)
        if value_span is not None:
            span = (float(value_span[0]), float(value_span[1]))
            if not (np.isfinite(span).all() and span[0] <= span[1]):
                raise ValueError(f"value_span is {value_span}; expected two numbers, lowest first")
        return _Coloring(groups, values, span, value_name, form)
    if categories is None:
        return _Coloring([_Group("points", np.arange(count), palette.plain)])
    if not isinstance(categories, str):
        categories = ["" if label is None else label for label in categories]
    labels = checked_texts("categories", categories, count)
    return _Coloring(_category_groups(labels, order, palette, theme), labels=labels)


def _category_groups(
    labels: list[str], order: Sequence[str] | None, palette: Palette, theme: str
) -> list[_Group]:
    """One group a category of `order`, above all others and those without a label."""
    colors = CATEGORIES[theme]
    counts = Counter(label for label in labels if label)
    if order is None:
        order = sorted(counts, key=lambda label: (-counts[label], label))[: len(colors)]
    order = [str(label) for label in order]
    if len(order) > len(colors):
        raise ValueError(f"order has {len(order)} categories; there are {len(colors)} colours")
    if len(set(order)) < len(order):
        raise ValueError(f"order names a category twice: {order}")
    if "" in order:
        raise ValueError("order has an empty label, which is no category")
    array = np.array(labels, dtype=object)
    is_empty = array == ""
    is_other = ~is_empty & ~np.isin(array, np.array(order, dtype=object))
    others = f"other ({len(counts.keys() - set(order))})"
    return [
        _Group("no label", np.flatnonzero(is_empty), palette.zero, "circle-open", len(order) + 1),
        _Group(others, np.flatnonzero(is_other), palette.zero, "circle", len(order)),
        *(
            _Group(
                escape(shorten(label, _NAME)),
                np.flatnonzero(array == label),
                colors[place],
                CATEGORY_SYMBOLS[place % len(CATEGORY_SYMBOLS)],
                place,
            )
            for place, label in enumerate(order)
        ),
    ]


def _checked_places(name: str, places: Any, letters: str, *permissions: str) -> np.ndarray:
    """Copy points of the plane, of one shape letter a dimension but the last, to float64."""
    shape = np.shape(places)
    if len(shape) != len(letters) + 1 or shape[-1] != 2:
        raise ValueError(f"{name} has shape {shape}; expected ({', '.join(letters)}, 2)")
    (array,) = checked_arrays(**{name: (places, f"{letters}C", *permissions)})
    return array


def _checked_rows(name: str, rows: Sequence[int], count: int) -> np.ndarray:
    """Different rows in ascending order."""
    found = np.unique(np.asarray(rows if isinstance(rows, np.ndarray) else list(rows)))
    if not found.size:
        return np.zeros(0, dtype=int)
    if found.dtype.kind not in "iu":
        raise ValueError(f"{name} are rows, so whole numbers, got {found[0]}")
    outside = found[(found < 0) | (found >= count)]
    if outside.size:
        raise ValueError(f"{name} names row {outside[0]}; the rows are 0 to {count - 1}")
    return found.astype(int)


def _checked_added(added: Any, texts: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
    if added is None:
        if texts is not None:
            raise ValueError("added_texts is given without the places, added")
        return np.zeros((0, 2)), []
    added = _checked_places("added", added, "M", "empty")
    if texts is None:
        texts = [f"added {index + 1}" for index in range(len(added))]
    return added, checked_texts("added_texts", texts, len(added))


def _checked_span(span: Any, points: np.ndarray) -> Span:
    """The lowest and the highest x and y.  points: (N, 2)"""
    if span is None:
        (x_low, x_high), (y_low, y_high) = (padded(column, 0.05) for column in points.T)
        return (x_low, x_high), (y_low, y_high)
    (ends,) = checked_arrays(span=(span, "CE"))
    if ends.shape != (2, 2):
        raise ValueError(f"span has shape {ends.shape}; expected (2, 2)")
    for axis, (low, high) in zip("xy", ends, strict=True):
        if low >= high:
            raise ValueError(f"span of {axis} ends at {high:g}, not above its start {low:g}")
    (x_low, x_high), (y_low, y_high) = ends.tolist()
    return (x_low, x_high), (y_low, y_high)


# --- points --------------------------------------------------------------------------------------


def _point_size(count: int) -> int:
    return 8 if count <= 300 else 6 if count <= _WEBGL_FROM else 4


def _points(
    coordinates: np.ndarray,
    texts: Sequence[str],
    shown: np.ndarray,
    coloring: _Coloring,
    scatter: Any,
    palette: Palette,
    theme: str,
) -> list[Any]:
    """Build one trace a group that has points among those shown.  coordinates: (N, 2)"""
    size = _point_size(len(shown))
    edge = dict(color=palette.background, width=0.5 if size == 8 else 0)
    steady = dict(marker=dict(opacity=_OPACITY))
    is_shown = np.zeros(len(coordinates), dtype=bool)
    is_shown[shown] = True
    traces = []
    for group in coloring.groups:
        rows = group.rows[is_shown[group.rows]]
        if not rows.size:
            continue  # its colour stays free, so that two maps agree
        marker = dict(size=size, opacity=_OPACITY, symbol=group.symbol, line=edge)
        if group.symbol == "triangle-up":  # looks smaller than the others
            marker["size"] += 2
        if group.symbol.endswith("-open"):
            marker["line"] = dict(width=1.2)
        if group.name == "values" and coloring.values is not None:
            marker |= _value_colors(coloring, rows, palette, theme)
        else:
            marker["color"] = group.color
        traces.append(
            scatter(
                **_places(coordinates, rows),
                mode="markers",
                marker=marker,
                hovertext=_hover(texts, rows, coloring),
                **CLICKABLE | dict(selected=steady, unselected=steady),
                legendrank=1000 + group.rank,
                name=group.name,
            )
        )
    return traces


def _places(coordinates: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    """Arguments of a trace of these rows: places in single precision, and the rows."""
    x, y = coordinates[rows].T.astype(np.float32)
    return dict(x=x, y=y, customdata=rows[:, None].astype(np.int32))


def _value_colors(
    coloring: _Coloring, rows: np.ndarray, palette: Palette, theme: str
) -> dict[str, Any]:
    low, high = coloring.span
    ends = [low, high] if high > low else [low]
    return dict(
        color=coloring.values[rows].astype(np.float32),
        cmin=low,
        cmax=high if high > low else low + 1,
        colorscale=growing_scale(theme),
        colorbar=header_color_bar(palette, 1, ends, coloring.form, shift=2),
    )


def _hover(texts: Sequence[str], rows: np.ndarray, coloring: _Coloring) -> list[str]:
    lines = []
    for row in rows:
        sentence, line = hover_text(texts[row], most=3), coloring.line(row)
        lines.append(f"{sentence}<br>{line}" if line else sentence)
    return lines


def _density(coordinates: np.ndarray, spans: Span, palette: Palette) -> go.Heatmap:
    """Build the number of points in each cell, on a logarithmic scale; empty cells are clear."""
    extents = np.array([high - low for low, high in spans])
    bins = np.maximum(1, np.round(_CELLS * extents / extents.max())).astype(int)
    counts, *_ = np.histogram2d(*coordinates.T, bins=bins, range=spans)
    z = np.full(counts.T.shape, np.nan, dtype=np.float32)
    np.log10(1 + counts.T, out=z, where=counts.T > 0, casting="same_kind")
    step = extents / bins
    return go.Heatmap(
        z=z,
        x0=spans[0][0] + step[0] / 2,
        dx=step[0],
        y0=spans[1][0] + step[1] / 2,
        dy=step[1],
        zmin=0,
        zmax=float(np.log10(1 + max(counts.max(), 1))),
        colorscale=[[0, translucent(palette.zero, 0.1)], [1, translucent(palette.zero, 0.75)]],
        showscale=False,
        hoverinfo="skip",
        name="density",
    )


def _rings(
    coordinates: np.ndarray,
    rows: np.ndarray,
    scatter: Any,
    name: str,
    size: int,
    color: str,
    width: float,
) -> Any:
    return scatter(
        **_places(coordinates, rows),
        mode="markers",
        marker=dict(
            symbol="circle",  # many of "circle-open" run together in WebGL
            size=size,
            color=CLEAR,
            line=dict(color=color, width=width),
            opacity=1,
        ),
        **CLICKABLE,
        showlegend=False,
        name=name,
    )


def _spokes(
    coordinates: np.ndarray, focus: int, rows: np.ndarray, scatter: Any, palette: Palette
) -> Any:
    """Build one thin line from the focus to each of the rows."""
    ends = np.full((len(rows), 3, 2), np.nan, dtype=np.float32)  # the third is the gap
    ends[:, 0] = coordinates[focus]
    ends[:, 1] = coordinates[rows]
    return scatter(
        x=ends[:, :, 0].ravel(),
        y=ends[:, :, 1].ravel(),
        mode="lines",
        line=dict(color=palette.muted, width=1.2),
        hoverinfo="skip",
        showlegend=False,
        name="neighbours",
    )


def _add_sentences(
    figure: go.Figure,
    places: np.ndarray,
    texts: Sequence[str],
    focus: np.ndarray,
    spans: Span,
    scatter: Any,
    palette: Palette,
    theme: str,
) -> None:
    """Add new sentences as stars, with labels that keep off the focus.  places: (M, 2)"""
    x, y = places.T.astype(np.float32)
    figure.add_trace(
        scatter(
            x=x,
            y=y,
            mode="markers",
            marker=dict(
                symbol="star",
                size=17,
                color=ACCENT[theme],
                line=dict(color=palette.background, width=1.5),
                opacity=1,
            ),
            hovertext=[f"{hover_text(text, most=3)}<br><b>added</b>" for text in texts],
            customdata=-1 - np.arange(len(places), dtype=np.int32)[:, None],
            **CLICKABLE,
            showlegend=False,
            name="added",
        )
    )
    labels = [shorten(text, _LABEL) for text in texts]
    sizes = np.array([(6.2 * len(label), 15) for label in labels])
    low, high = np.array(spans).T
    marks = np.concatenate([places, focus])
    offsets = place_labels(
        np.clip((marks - low) / (high - low), 0, 1),
        np.full(len(marks), 9.0),
        range(len(places)),
        sizes,
        widths=(PHONE - 2 * _SIDE, _PLOT),
        height=PHONE - 2 * _SIDE,
    )
    for label, place, (right, up) in zip(labels, places, offsets, strict=True):
        figure.add_annotation(
            text=escape(label),
            x=place[0],
            y=place[1],
            xshift=right,
            yshift=up,
            showarrow=False,
            font=dict(size=SMALL, color=palette.text, shadow=halo(palette)),
        )


# --- around the map ------------------------------------------------------------------------------


def _add_surroundings(
    figure: go.Figure, head: str, coloring: _Coloring, palette: Palette, controls: int
) -> tuple[int, int, int]:
    """Add header and legend; return the figure's height and the margins above and below the plot.

    `head` is a safe text, and `controls` are pixels that are kept free between plot and legend.
    """
    lines = 1 + head.count("<br>")
    top = 6 + _LINE * lines + (_BAR if coloring.values is not None else 0)
    figure.add_annotation(_header_text(head, palette, coloring))
    if coloring.values is not None:
        grey = " (grey: unknown)" if np.isnan(coloring.values).any() else ""
        name = escape(shorten(coloring.value_name, 30 - len(grey)) + grey)
        add_text(figure, name, palette, xshift=3 - _SIDE, y=1, yshift=9)
    bottom = 8 + controls
    names = [group.name for group in coloring.groups if group.rows.size]
    if coloring.labels is not None:
        bottom += 6 + _LEGEND_LINE * count_legend_lines(names, _LEGEND_WIDTH)
        legend = top_legend(palette) | dict(
            y=-(8 + controls) / _PLOT, yanchor="top", itemsizing="constant"
        )
        figure.update_layout(showlegend=True, legend=legend)
    return top + _PLOT + bottom, top, bottom


def _header_text(head: str, palette: Palette, coloring: _Coloring) -> go.layout.Annotation:
    holder = go.Figure()
    shift = 3 + (_BAR if coloring.values is not None else 0)
    add_text(holder, head, palette, xshift=3 - _SIDE, y=1, yshift=shift)
    return holder.layout.annotations[0]


def _axes(palette: Palette, spans: Span) -> dict[str, Any]:
    """Both axes of a map: a thin frame, one scale, nothing to read."""
    common = dict(
        showgrid=False,
        zeroline=False,
        showticklabels=False,
        ticks="",
        showline=True,
        mirror=True,
        linecolor=palette.zero,
        linewidth=1,
    )
    return dict(
        xaxis=common | dict(range=list(spans[0])),
        yaxis=common | dict(range=list(spans[1]), scaleanchor="x", scaleratio=1),
    )


def _controls(
    names: Sequence[str], is_smooth: bool, palette: Palette, theme: str
) -> dict[str, Any]:
    """Slider and buttons of an animation with a frame for each of the names."""
    motion = dict(duration=_MOVE if is_smooth else 0, easing="cubic-in-out")
    # Without a redraw at its end, a frame changes no header.
    common = dict(mode="immediate", transition=motion)
    play = common | dict(frame=dict(duration=_STEP, redraw=True), fromcurrent=True)
    jump = common | dict(frame=dict(duration=motion["duration"], redraw=True))
    stop = dict(mode="immediate", frame=dict(duration=0, redraw=False), transition=dict(duration=0))
    menu = dict(
        type="buttons",
        direction="right",
        showactive=False,
        x=0,
        xanchor="left",
        y=0,
        yanchor="top",
        pad=dict(l=0, r=0, t=14, b=0),
        # Plotly paints a button under the pointer nearly white: its text is dark on both pages.
        bgcolor=palette.grid if theme == "light" else palette.muted,
        bordercolor=palette.zero,
        font=dict(size=SIZE, color=_BUTTON_TEXT),
        buttons=[
            dict(label="Play", method="animate", args=[None, play]),
            dict(label="Pause", method="animate", args=[[None], stop]),
        ],
    )
    slider = dict(
        active=0,
        x=0,
        xanchor="left",
        y=0,
        yanchor="top",
        len=1,
        pad=dict(l=_BUTTONS, r=12, t=20, b=0),
        currentvalue=dict(visible=False),  # the header says it
        bgcolor=palette.zero,
        activebgcolor=ACCENT[theme],
        bordercolor=palette.zero,
        tickcolor=palette.zero,
        ticklen=4,
        minorticklen=4,
        font=dict(size=SMALL, color=palette.muted),
        transition=motion,
        steps=[
            dict(label=escape(shorten(name, 12)), method="animate", args=[[str(step)], jump])
            for step, name in enumerate(names)
        ],
    )
    return dict(updatemenus=[menu], sliders=[slider])
