"""How a figure is put together: panels, each a plot with a header, over one horizontal axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from lwap.figures.axes import Axis
from lwap.figures.style import Palette
from lwap.figures.template import LEFT, RIGHT, SMALL, TICKS, template
from lwap.figures.texts import colored, format_number

HEADER = 40  # px, two lines of text above a panel
BAR_HEADER = 52  # px, the same below another panel and with a colour bar at the right


@dataclass(frozen=True)
class Panel:
    """One plot with a vertical axis of its own, below a header.

    Traces, annotations and shapes name the axes of their panel "x" and "y", also as "x domain";
    `compose` gives the axes their numbers. A colour bar of a trace moves into the header.
    """

    body: int  # px of the plot; without any the panel is its header alone
    traces: Sequence[Any] = ()
    y_axis: Axis = field(default_factory=dict)
    head: str = ""  # bold; all texts are safe ones
    note: str = ""  # quiet, below it
    lines: Sequence[str] = ()  # below that
    hover: str = ""  # of the header
    header: int = HEADER  # px above the plot
    lift: int = 0  # px between header and plot, for the name of the first row
    column: int | None = 0  # of the figure; None for a header across all
    x_axis: Axis = field(default_factory=dict)  # what differs from the common one
    annotations: Sequence[Axis] = ()
    shapes: Sequence[Axis] = ()


def compose(
    panels: Sequence[Panel],
    x_axis: Axis,
    palette: Palette,
    *,
    columns: Sequence[tuple[float, float]] = ((0.0, 1.0),),
    margin: Axis | None = None,
    legend: int = 0,
    **layout: Any,
) -> go.Figure:
    """Stack panels, the first on top, in one or several columns over one horizontal axis.

    The axis is drawn below the last panel of each column; another panel that is to have its tick
    labels says `x_axis=dict(showticklabels=True)`.

    Args:
        panels: What stands below each other; axes are numbered in this order.
        x_axis: The horizontal axis of all panels.
        palette: Of the theme.
        columns: Start and end of each column as shares of the width.
        margin: Margins in pixels that differ from the usual ones, by "l", "r", "t" and "b".
        legend: Pixels for a legend above the panels; Plotly moves these down as far as it needs.
        layout: What else `update_layout` takes.
    """
    margin = dict(l=LEFT, r=RIGHT, t=0, b=TICKS) | (margin or {})
    places = range(len(columns))
    total = max(sum(p.header + p.body for p in panels if p.column in (i, None)) for i in places)
    height = legend + margin["t"] + total + margin["b"]
    figure = go.Figure(layout=dict(template=template(palette.theme), height=height, margin=margin))
    if legend:
        figure.update_layout(showlegend=True)
    last = {panel.column: panel for panel in panels}
    used, number = [0] * len(columns), 0
    for panel in panels:
        column = panel.column or 0
        top = used[column] + panel.header
        for place in places if panel.column is None else [column]:
            used[place] = top + panel.body
        domain = max(0.0, 1 - (top + panel.body) / total), 1 - top / total
        shift = 0 if column else 3 - margin["l"]
        _add_header(figure, panel, palette, x=columns[column][0], xshift=shift, y=domain[1])
        if not panel.body:
            continue
        number += 1
        axis = str(number) if number > 1 else ""
        x: Axis = dict(domain=columns[column], anchor=f"y{axis}", matches="x" if axis else None)
        if panel is not last[column]:
            x |= dict[str, Any](showticklabels=False, title_text=None)
        y = dict(domain=domain, anchor=f"x{axis}")
        figure.update_layout({f"xaxis{axis}": x_axis | x | panel.x_axis})
        figure.update_layout({f"yaxis{axis}": y | panel.y_axis})
        _add_content(figure, panel, axis, domain[1], palette)
    return figure.update_layout(layout)


def _add_header(figure: go.Figure, panel: Panel, palette: Palette, **place: Any) -> None:
    """Add a bold line and a quiet one above a panel, flush with the figure's left edge."""
    lines = [f"<b>{panel.head}</b>"] if panel.head else []
    if panel.note:
        lines.append(colored(panel.note, palette.muted))
    text = "<br>".join([*lines, *panel.lines])
    if text:
        place |= dict(xref="paper", yref="paper", yshift=5 + panel.lift)
        figure.add_annotation(text=text, hovertext=panel.hover or None, **place)


def _add_content(figure: go.Figure, panel: Panel, axis: str, top: float, palette: Palette) -> None:
    """Add traces, annotations and shapes of a panel on the axes of its number."""

    def numbered(item: Axis) -> Axis:
        refs = ((f"{letter}ref", letter) for letter in "xy")
        return item | {ref: f"{letter}{axis}{item.get(ref, letter)[1:]}" for ref, letter in refs}

    for trace in panel.traces:
        trace.update(xaxis=f"x{axis}", yaxis=f"y{axis}")
        bar = (trace if trace.type == "heatmap" else trace.marker).colorbar
        if bar.tickvals is not None:
            bar.update(y=top, ypad=4 + panel.lift, tickfont_color=palette.muted)
        figure.add_trace(trace)
    for annotation in panel.annotations:
        figure.add_annotation(numbered(annotation))
    for shape in panel.shapes:
        figure.add_shape(numbered(shape))


def color_bar(ticks: Sequence[float], form: str = ".2f") -> Axis:
    """Thin horizontal colour bar for the right third of a panel's header."""
    return dict(
        orientation="h",
        x=1,
        xanchor="right",
        y=1,
        yanchor="bottom",
        len=0.36,
        thickness=8,
        xpad=14,
        ypad=4,
        outlinewidth=0,
        tickvals=list(ticks),
        ticktext=[format_number(value, form) for value in ticks],
        ticks="",
        ticklabeloverflow="allow",
        tickfont_size=SMALL,
    )
