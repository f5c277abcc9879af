"""Figures of a space of embeddings as a map: every sentence a point in the plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.axes import Axis, padded
from lwap.figures.checks import checked_arrays, checked_texts
from lwap.figures.labels import Label, beside, legend_height
from lwap.figures.marks import OWN_HOVER
from lwap.figures.panels import Panel, color_bar, compose
from lwap.figures.points import CheckedMarks, Group, PointColors, PointMarks, checked_places
from lwap.figures.style import CLEAR, Palette, growing_scale, palette_of, translucent
from lwap.figures.template import PHONE, SIZE, SMALL, WIDE
from lwap.figures.texts import escape, hover_text, shorten

_WEBGL_FROM = 1500  # points; fewer are drawn sharper, saved and moved, as SVG
_PLOT = 430  # px, height of a map
_SIDE = 8  # px, margins beside a map
_LINE = 18  # px, a line of the header
_LEGEND_LINE = 19  # px
_TITLE, _NOTE = 40, 54  # columns of the header's lines
_CELLS = 140  # of the density along the longer side of the span
_BAR = 32  # px, the colour bar's part of the header
_CONTROLS = 66  # px, slider and buttons below an animation
_BUTTONS = 128  # px, width of the buttons
_STEP, _MOVE = 900, 600  # ms, between two frames of an animation, and of that in motion
_MOST_RINGS = 4000
_LABEL = 24  # columns of the label of an added sentence
_OPACITY = 0.85  # points that lie on each other are seen, and one alone is not pale
_BUTTON_TEXT = "#12191b"

Span = tuple[Sequence[float], Sequence[float]]  # the lowest and the highest x, then those of y


def space_map(
    coordinates: Any,
    texts: Sequence[str],
    *,
    colors: PointColors | None = None,
    marks: PointMarks | None = None,
    span: Any = None,
    title: str | None = None,
    note: str = "",
    theme: str = "light",
) -> go.Figure:
    """Draw sentences as points of a map, for choosing some of them with a lasso.

    Both axes have one scale and no meaning of their own, so they have no numbers. `customdata` of
    every point and ring is [its row], that of an added sentence [−1 − its index]. Height and size
    of the plot depend on the colours and on whether there is a title, not on the points, so that
    two maps side by side are equally large.

    Args:
        coordinates: (N, 2), where the sentences stand.
        texts: N sentences, for the hover of the points that are drawn.
        colors: what the colours say. None: all points are alike.
        marks: which points are drawn, and which stand out. None: all, and none.
        span: the lowest and the highest x, then those of y, for maps that are to have one scale.
            None: all points and the added ones, with a margin.
        title: a bold line above the map.
        note: a line below the title.

    Raises:
        ValueError: a row is none of 0 to N − 1, there are neighbours but no focus, or the span is
            empty.
    """
    palette = palette_of(theme)
    coordinates = checked_places("coordinates", coordinates, "N")
    has_density = marks is not None and marks.drawn is not None
    checked = (marks or PointMarks()).checked(len(coordinates))
    texts = checked_texts("texts", texts, len(coordinates))
    points = _Points(coordinates, texts, colors or PointColors(), len(checked.drawn), palette)
    spans = _checked_span(span, np.concatenate([coordinates, checked.added]))
    traces = [_density(coordinates, spans, palette)] if has_density else []
    figure = _plot(
        points,
        [*traces, *points.traces(checked.drawn), *_on_top(points, checked)],
        spans,
        head=escape(shorten(title, _TITLE)) if title is not None else "",
        note=escape(shorten(note, _NOTE)) if note else "&nbsp;",
        annotations=_names(checked, coordinates[checked.focus], spans, palette),
    )
    # A zoom stays when the figure is drawn anew in its place, which Streamlit does not do where
    # points were chosen: another content is another chart to it.
    figure.update_layout(dragmode="lasso", uirevision="map")
    return figure.update_xaxes(fixedrange=False).update_yaxes(fixedrange=False)


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


def map_animation(
    coordinates: Any,
    names: Sequence[str],
    texts: Sequence[str],
    *,
    colors: PointColors | None = None,
    theme: str = "light",
) -> go.Figure:
    """Draw maps of the same sentences as an animation, with a slider and buttons below.

    `customdata` of every point is [its row]. A frame holds nothing but the places of the points
    and the header: texts and colours are those of the first one.

    Args:
        coordinates: (F, N, 2), where the sentences stand in each frame.
        names: F names of the frames, such as "layer 3".
        texts: N sentences, for the hover.
        colors: what the colours say. None: all points are alike.
    """
    palette = palette_of(theme)
    coordinates = checked_places("coordinates", coordinates, "FN")
    steps, count, _ = coordinates.shape
    names = checked_texts("names", names, steps)
    texts = checked_texts("texts", texts, count)
    points = _Points(coordinates[0], texts, colors or PointColors(), count, palette)
    spans = _checked_span(None, coordinates.reshape(-1, 2))
    heads = [escape(shorten(name, _TITLE)) for name in names]
    traces = points.traces(np.arange(count))
    figure = _plot(points, traces, spans, head=heads[0], controls=_CONTROLS)

    rows = [trace.customdata[:, 0] for trace in traces]
    header = figure.layout.annotations[0].to_plotly_json()
    said = header["text"].removeprefix(f"<b>{heads[0]}</b>")
    figure.frames = [
        go.Frame(
            # Not the name: two frames may be called alike.
            name=str(step),
            data=[points.scatter(x=at[part, 0], y=at[part, 1]) for part in rows],
            traces=list(range(len(rows))),
            layout=dict(annotations=[header | dict(text=f"<b>{head}</b>{said}")]),
        )
        for step, (at, head) in enumerate(zip(coordinates.astype(np.float32), heads, strict=True))
    ]
    is_smooth = points.scatter is go.Scatter  # WebGL cannot move points
    return figure.update_layout(_controls(names, is_smooth, palette))


def _checked_span(span: Any, points: np.ndarray) -> Span:
    """The lowest and the highest x and y.  points: (N, 2)"""
    if span is None:
        return padded(points[:, 0], 0.05), padded(points[:, 1], 0.05)
    (ends,) = checked_arrays(span=(span, "CE"))
    if ends.shape != (2, 2):
        raise ValueError(f"span has shape {ends.shape}; expected (2, 2)")
    for axis, (low, high) in zip("xy", ends, strict=True):
        if low >= high:
            raise ValueError(f"span of {axis} ends at {high:g}, not above its start {low:g}")
    return tuple(ends.tolist())


# --- points --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Points:
    """The points of a map and what all of its traces share."""

    places: np.ndarray  # (N, 2)
    texts: list[str]
    colors: PointColors
    drawn: int  # points with a mark
    palette: Palette

    @property
    def scatter(self) -> Any:
        """WebGL draws above all SVG: what lies on the points is drawn as they are."""
        return go.Scattergl if self.drawn > _WEBGL_FROM else go.Scatter

    @property
    def size(self) -> int:
        return 8 if self.drawn <= 300 else 6 if self.drawn <= _WEBGL_FROM else 4

    @cached_property
    def groups(self) -> list[Group]:
        return self.colors.groups(len(self.places), self.palette.theme)

    def marks(self, places: np.ndarray, data: np.ndarray, **arguments: Any) -> Any:
        """Build marks in single precision.  places: (M, 2), data: (M,)"""
        x, y = places.T.astype(np.float32)
        data = data[:, None].astype(np.int32)
        return self.scatter(x=x, y=y, customdata=data, mode="markers", **OWN_HOVER | arguments)

    def hover(self, rows: np.ndarray) -> list[str]:
        lines = ((hover_text(self.texts[row], most=3), self.colors.line(row)) for row in rows)
        return [f"{sentence}<br>{line}" if line else sentence for sentence, line in lines]

    def traces(self, shown: np.ndarray) -> list[Any]:
        """Build one trace a group that has points among those shown."""
        edge = dict(color=self.palette.background, width=0.5 if self.size == 8 else 0)
        steady = dict(marker_opacity=_OPACITY)
        traces = []
        for group in self.groups:
            rows = np.intersect1d(group.rows, shown)
            if not rows.size:
                continue  # its colour stays free, so that two maps agree
            marker: dict[str, Any] = dict(
                size=self.size, opacity=_OPACITY, symbol=group.symbol, line=edge
            )
            if group.symbol == "triangle-up":  # looks smaller than the others
                marker["size"] += 2
            if group.symbol.endswith("-open"):
                marker["line"] = dict(width=1.2)
            marker |= self._value_scale(rows) if group.has_values else dict(color=group.color)
            look: dict[str, Any] = dict(
                marker=marker, selected=steady, unselected=steady, name=group.name
            )
            hover, rank = self.hover(rows), 1000 + group.rank
            traces.append(
                self.marks(self.places[rows], rows, hovertext=hover, legendrank=rank, **look)
            )
        return traces

    def rings(
        self, rows: np.ndarray, name: str, color: str, wider: int, width: float, **arguments: Any
    ) -> Any:
        """Build rings, so many pixels wider than the points."""
        # Many of "circle-open" run together in WebGL.
        line = dict(color=color, width=width)
        marker = dict(symbol="circle", size=self.size + wider, color=CLEAR, line=line)
        look = dict(marker=marker, showlegend=False, name=name)
        return self.marks(self.places[rows], rows, **look, **arguments)

    def _value_scale(self, rows: np.ndarray) -> dict[str, Any]:
        assert self.colors.ends is not None  # values always have them
        low, high = self.colors.ends
        return dict(
            color=self.colors.values[rows].astype(np.float32),
            cmin=low,
            cmax=high if high > low else low + 1,
            colorscale=growing_scale(self.palette.theme),
            colorbar=color_bar([low, high] if high > low else [low], self.colors.form),
        )


def _density(coordinates: np.ndarray, spans: Span, palette: Palette) -> go.Heatmap:
    """Build the number of points in each cell, on a logarithmic scale; empty cells are clear."""
    extents = np.array([high - low for low, high in spans])
    bins = np.maximum(1, np.round(_CELLS * extents / extents.max())).astype(int)
    x, y = coordinates.T
    counts, *_ = np.histogram2d(x, y, bins=bins.tolist(), range=spans)
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


def _on_top(points: _Points, marks: CheckedMarks) -> list[Any]:
    """Build what stands out: the selected rows, the focus with its neighbours, new sentences."""
    palette, traces = points.palette, []
    if len(marks.selected):
        # Not the first ones: rows may be sorted by topic.
        count = min(len(marks.selected), _MOST_RINGS)
        part = np.linspace(0, len(marks.selected) - 1, count).round().astype(int)
        # Many thick rings would cover the points that they are to show.
        look = (6, 2) if count <= 60 else (4, 1.3) if count <= 300 else (3, 0.8)
        silent: dict[str, Any] = dict(hoverinfo="skip", hovertemplate=None)
        ringed = marks.selected[part]
        traces.append(points.rings(ringed, "selected", palette.accent, *look, **silent))
    if len(marks.neighbours):
        traces.append(_spokes(points, int(marks.focus[0]), marks.neighbours))
    rings = (("neighbour rings", marks.neighbours, 4, 1.5), ("focus", marks.focus, 11, 3.5))
    for name, rows, wider, width in rings:
        if len(rows):
            hover = points.hover(rows)
            traces.append(points.rings(rows, name, palette.text, wider, width, hovertext=hover))
    if len(marks.added):
        edge = dict(color=palette.background, width=1.5)
        star = dict(symbol="star", size=17, color=palette.accent, line=edge)
        hover = [f"{hover_text(text, most=3)}<br><b>added</b>" for text in marks.added_texts]
        shared: dict[str, Any] = dict(marker=star, showlegend=False, name="added", hovertext=hover)
        traces.append(points.marks(marks.added, -1 - np.arange(len(marks.added)), **shared))
    return traces


def _spokes(points: _Points, focus: int, rows: np.ndarray) -> Any:
    """Build one thin line from the focus to each of the rows."""
    ends = np.full((len(rows), 3, 2), np.nan, dtype=np.float32)  # the third is the gap
    ends[:, 0] = points.places[focus]
    ends[:, 1] = points.places[rows]
    return points.scatter(
        x=ends[:, :, 0].ravel(),
        y=ends[:, :, 1].ravel(),
        mode="lines",
        line=dict(color=points.palette.muted, width=1.2),
        hoverinfo="skip",
        showlegend=False,
        name="neighbours",
    )


def _names(marks: CheckedMarks, focus: np.ndarray, spans: Span, palette: Palette) -> list[Axis]:
    """The beginnings of new sentences beside their stars, off the focus.  focus: (1 or 0, 2)"""
    names = [escape(shorten(text, _LABEL)) for text in marks.added_texts]
    return beside(
        [
            Label([name], x, y, 9.0, palette.muted, palette.text)
            for name, (x, y) in zip(names, marks.added, strict=True)
        ],
        spans,
        palette,
        obstacles=focus,
        radii=np.full(len(focus), 9.0),
        widths=(PHONE - 2 * _SIDE, _PLOT),  # its scale makes a map no wider than that
        height=PHONE - 2 * _SIDE,
    )


# --- around the map ------------------------------------------------------------------------------


def _plot(
    points: _Points, traces: Sequence[Any], spans: Span, *, controls: int = 0, **panel: Any
) -> go.Figure:
    """Put a map below its header; `controls` pixels stay free between plot and legend."""
    colors, palette = points.colors, points.palette
    header, lines = 6 + _LINE * len({"head", "note"} & {name for name in panel if panel[name]}), []
    if colors.values is not None:
        grey = " (grey: unknown)" if np.isnan(colors.values).any() else ""
        lines = ["&nbsp;", escape(shorten(colors.name, 30 - len(grey)) + grey)]
        header += _BAR
    bottom, layout = 8 + controls, {}
    if colors.categories is not None:
        entries = [group.name for group in points.groups if group.rows.size]
        legend = dict(y=-bottom / (header + _PLOT), yanchor="top", itemsizing="constant")
        layout = dict(showlegend=True, legend=legend)
        bottom += 6 + legend_height(entries, WIDE, _LEGEND_LINE)
    frame: Axis = dict(showgrid=False, showticklabels=False, showline=True, mirror=True)
    frame |= dict[str, Any](linecolor=palette.zero, linewidth=1)
    x_axis, y_axis = (frame | dict(range=list(span)) for span in spans)
    y_axis |= dict[str, Any](scaleanchor="x", scaleratio=1)
    map_panel = Panel(_PLOT, traces, y_axis, header=header, lines=lines, **panel)
    margin = dict(l=_SIDE, r=_SIDE, b=bottom)
    return compose([map_panel], x_axis, palette, margin=margin).update_layout(layout)


def _controls(names: Sequence[str], is_smooth: bool, palette: Palette) -> dict[str, Any]:
    """Slider and buttons of an animation with a frame for each of the names."""
    motion = dict(duration=_MOVE if is_smooth else 0, easing="cubic-in-out")
    # Without a redraw at its end, a frame changes no header.
    common = dict(mode="immediate", transition=motion)
    play = common | dict(frame=dict(duration=_STEP, redraw=True), fromcurrent=True)
    jump = common | dict(frame=dict(duration=motion["duration"], redraw=True))
    stop = dict(mode="immediate", frame=dict(duration=0, redraw=False), transition=dict(duration=0))
    corner = dict(x=0, xanchor="left", y=0, yanchor="top")
    menu = corner | dict(
        type="buttons",
        direction="right",
        showactive=False,
        pad=dict(l=0, r=0, t=14, b=0),
        # Plotly paints a button under the pointer nearly white: its text is dark on both pages.
        bgcolor=palette.grid if palette.theme == "light" else palette.muted,
        bordercolor=palette.zero,
        font=dict(size=SIZE, color=_BUTTON_TEXT),
        buttons=[
            dict(label="Play", method="animate", args=[None, play]),
            dict(label="Pause", method="animate", args=[[None], stop]),
        ],
    )
    slider = corner | dict(
        active=0,
        len=1,
        pad=dict(l=_BUTTONS, r=12, t=20, b=0),
        currentvalue=dict(visible=False),  # the header says it
        bgcolor=palette.zero,
        activebgcolor=palette.accent,
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
