"""What the tests of the figures share: reading a figure, and what holds for every figure."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

HOSTILE = 'a <b>bold</b> & <script>alert("1")</script> %{x} $1$'

Draw = Callable[[str], go.Figure]  # a figure in a theme


def parse(figure: go.Figure) -> dict:
    """What a browser reads; NaN and Infinity are no JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in the figure's JSON")

    return json.loads(figure.to_json(), parse_constant=refuse)


def drawn(figure: go.Figure) -> go.Figure:
    """The figure with its template filled in where it says nothing, as plotly.js draws it."""
    layout = figure.layout.to_plotly_json()
    template = layout.pop("template")
    style = dict(template["layout"])
    items = {kind: style.pop(f"{kind[:-1]}defaults", {}) for kind in ("annotations", "shapes")}
    for name in [name for name in layout if name[1:5] == "axis"]:
        layout[name] = _filled(style.get(name[:5], {}), layout[name])
    for kind, defaults in items.items():
        layout[kind] = [_filled(defaults, item) for item in layout.get(kind, ())]
    data = [
        _filled(*template["data"].get(trace.type, ({},)), trace.to_plotly_json())
        for trace in figure.data
    ]
    return go.Figure(data=data, layout=_filled(style, layout), _validate=False)


def _filled(defaults: dict, own: dict) -> dict:
    """Two nested dictionaries as one; the second one's entries win."""
    both = defaults | own
    for name in defaults.keys() & own.keys():
        if isinstance(defaults[name], dict) and isinstance(own[name], dict):
            both[name] = _filled(defaults[name], own[name])
    return both


def traces(figure: go.Figure, kind: str) -> list:
    return [trace for trace in figure.data if trace.type == kind]


def named(figure: go.Figure, name: str) -> Any:
    return next(trace for trace in figure.data if trace.name == name)


def shapes(figure: go.Figure, name: str) -> list:
    return [shape for shape in figure.layout.shapes if shape.name == name]


def texts(figure: go.Figure) -> list[str]:
    """The texts of all annotations."""
    return [annotation.text for annotation in figure.layout.annotations]


def frozen(arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    """The same arrays; writing into one of them raises."""
    copies = {name: np.array(value) for name, value in arrays.items()}
    for value in copies.values():
        value.flags.writeable = False
    return copies


# --- what holds for every figure -----------------------------------------------------------------


def sits_on_any_background(draw: Draw) -> None:
    for theme in ("light", "dark"):
        layout = parse(drawn(draw(theme)))["layout"]
        assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0, 0, 0, 0)"
        assert layout["height"] > 80
        assert layout["font"]["family"].endswith("sans-serif")


def themes_differ_and_equal_calls_give_equal_figures(draw: Draw) -> None:
    light = draw("light").to_json()
    assert light == draw("light").to_json()
    assert light != draw("dark").to_json()


def unknown_theme_is_refused_with_the_allowed_ones(draw: Draw) -> None:
    with pytest.raises(ValueError, match="theme is 'sepia'; accepted are 'light' and 'dark'"):
        draw("sepia")


def user_text_is_escaped_and_no_template(draw: Draw) -> None:
    figure = draw("light")
    text = json.dumps(parse(figure), ensure_ascii=False)
    assert "<script" not in text
    assert "$1" not in text  # MathJax
    for trace in figure.data:  # plotly would fill in %{x} of a sentence
        assert "%{x}" not in (trace.hovertemplate or "")


def nothing_is_drawn_by_a_finger_that_scrolls(draw: Draw) -> None:
    figure = drawn(draw("light"))
    assert figure.layout.dragmode is False
    axes = [*figure.select_xaxes(), *figure.select_yaxes()]
    assert axes and all(axis.fixedrange for axis in axes)


def a_click_fades_nothing(draw: Draw) -> None:
    """For figures of which points are clicked: plotly would dim all others, texts included."""
    for trace in drawn(draw("light")).data:
        if trace.type == "bar" or trace.mode != "lines":
            assert trace.selected.marker.opacity == trace.unselected.marker.opacity > 0.8
            assert trace.text is None or trace.unselected.textfont.color.startswith("#")


EVERY_FIGURE = (
    sits_on_any_background,
    themes_differ_and_equal_calls_give_equal_figures,
    unknown_theme_is_refused_with_the_allowed_ones,
    user_text_is_escaped_and_no_template,
    nothing_is_drawn_by_a_finger_that_scrolls,
)


def holds_for_every_figure(draw: Draw, *more: Callable[[Draw], None]) -> None:
    """Check what holds for every figure, and more, with few drawings."""
    themes_differ_and_equal_calls_give_equal_figures(draw)
    once = functools.cache(draw)
    for holds in (*EVERY_FIGURE, *more):
        if holds is not themes_differ_and_equal_calls_give_equal_figures:
            holds(once)
