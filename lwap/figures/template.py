"""The style that all figures share as a Plotly template, and the sizes they are laid out with.

A composition says only what differs from the template.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import plotly.graph_objects as go

from lwap.figures.style import CLEAR, STATE_COLORSCALE, Palette, palette_of

FONT = '"Source Sans", "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif'
SIZE = 12  # px, text of a figure
SMALL = 11  # px, numbers on axes and names in tight places
LEAST = 9  # px, smaller numbers are left to the hover
DIGIT = 0.63  # width of a digit as a share of the font size, in the widest of the fonts above
PHONE = 340  # px, the narrowest figure that must be readable
WIDE = 600  # px, at which the lines of a legend with many entries are reckoned
LEFT, RIGHT = 42, 10  # px, margins beside the plot
TICKS = 44  # px, tick labels and axis title below a figure


def halo(palette: Palette) -> str:
    """Shadow in the colour of the page that keeps a text readable on lines."""
    return ", ".join(f"0 0 {blur}px {palette.background}" for blur in (1, 2, 2, 4))


@cache
def template(theme: str) -> go.layout.Template:
    """Fonts, colours, axes, legend, hover, and marks that do not fade when others are selected."""
    palette = palette_of(theme)
    text = dict(family=FONT, size=SIZE, color=palette.text)
    axis = dict(
        fixedrange=True,
        nticks=6,
        ticks="",
        labelalias={"+0": "0"},
        exponentformat="e",  # not 60µ
        gridcolor=palette.grid,
        zeroline=False,
        zerolinecolor=palette.zero,
        zerolinewidth=1,
        tickfont=dict(size=SMALL, color=palette.muted),
        title=dict(font=dict(size=SIZE, color=palette.muted), standoff=4),
    )
    layout = dict(
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font=text,
        hovermode="closest",
        hoverlabel=dict(bgcolor=palette.surface, bordercolor=palette.zero, font=text, align="left"),
        modebar=dict(bgcolor=CLEAR, color=palette.muted, activecolor=palette.text),
        dragmode=False,  # so that a finger on the figure scrolls the page
        uniformtext=dict(minsize=LEAST, mode="hide"),  # numbers on bars that do not fit
        xaxis=axis,
        yaxis=axis,
        showlegend=False,
        legend=dict(
            orientation="h",
            x=0,
            xanchor="left",
            y=1,
            yanchor="bottom",
            bgcolor=CLEAR,
            itemwidth=30,
            tracegroupgap=0,
        ),
        annotationdefaults=dict(
            xanchor="left",
            yanchor="bottom",
            align="left",
            showarrow=False,
            arrowhead=0,
            arrowwidth=1,
            borderpad=0,
        ),
        shapedefaults=dict(type="line", layer="below", line_width=1),
    )
    return go.layout.Template(layout=layout, data=_marks(palette))


def _marks(palette: Palette) -> dict[str, list[Any]]:
    """Defaults of traces by their type."""
    steady = dict(
        selected=dict(marker=dict(opacity=1)),
        unselected=dict(marker=dict(opacity=1), textfont=dict(color=palette.text)),
    )
    bar = go.Bar(textfont=dict(size=SIZE, color=palette.text, shadow=halo(palette)), **steady)
    heatmap = go.Heatmap(xgap=1, ygap=1, hoverongaps=False, colorscale=STATE_COLORSCALE)
    scatters = {kind.__name__.lower(): [kind(**steady)] for kind in (go.Scatter, go.Scattergl)}
    return dict(bar=[bar], heatmap=[heatmap]) | scatters
