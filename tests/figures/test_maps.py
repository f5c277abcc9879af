"""Maps show every sentence where it stands, in its colour, with what was chosen on top."""

from __future__ import annotations

import itertools
from dataclasses import fields
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from lwap import figures
from lwap.figures.style import ACCENT, BACKGROUND, CATEGORIES, CATEGORY_SYMBOLS, palette_of
from tests.figures.reading import (
    EVERY_FIGURE,
    HOSTILE,
    drawn,
    frozen,
    named,
    nothing_is_drawn_by_a_finger_that_scrolls,
    parse,
    texts,
)
from tests.figures.test_figures import EYES, contrast, linear_rgb, oklab

# A map is made for choosing points, by a finger too.
MAP_RULES = [rule for rule in EVERY_FIGURE if rule is not nothing_is_drawn_by_a_finger_that_scrolls]
NAN = float("nan")
N, F = 40, 3
TOPICS = ["cooking", "travel", HOSTILE, "money"]
SENTENCES = [HOSTILE, *(f"sentence {row}" for row in range(1, N))]
LABELS: list[str | None] = [TOPICS[row % 4] for row in range(N)]
LABELS[5], LABELS[6] = None, ""  # travel and HOSTILE otherwise


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 3, size=N)
    values[[3, 7]] = NAN
    return frozen(
        {
            "coordinates": rng.normal(size=(N, 2)) * [3.0, 1.0],
            "walk": rng.normal(size=(F, N, 2)),
            "values": values,
            "added": [[0.5, 0.5], [4.0, -1.0]],
            "drawn": [9, 2, 5, 6, 30],
            "selected": [1, 2, 39],
            "neighbours": [20, 11, 12],
        }
    )


def draw(name: str, a: dict[str, np.ndarray], theme: str = "light", **changes: Any) -> go.Figure:
    """Call a figure by name with arrays of the right shapes."""
    calls = {
        "space_map": (
            (a["coordinates"], SENTENCES),
            dict(
                categories=LABELS,
                order=TOPICS[:3],
                drawn=a["drawn"],
                selected=a["selected"],
                focus=4,
                neighbours=a["neighbours"],
                added=a["added"],
                added_texts=[HOSTILE, "new"],
                title=HOSTILE,
                note=HOSTILE,
            ),
        ),
        "map_animation": (
            (a["walk"], [HOSTILE, "layer 1", "lwap"], SENTENCES),
            dict(values=a["values"], name=HOSTILE),
        ),
    }
    positional, keywords = calls[name]
    arguments = composed(**keywords | {"theme": theme} | changes)
    return getattr(figures, name)(*positional, **arguments)


def plain(a: dict[str, np.ndarray], **changes: Any) -> go.Figure:
    return figures.space_map(a["coordinates"], SENTENCES, **composed(**changes))


def composed(**arguments: Any) -> dict[str, Any]:
    """What is said of colours and marks, as `PointColors` and `PointMarks`."""
    for name, kind in (("colors", figures.PointColors), ("marks", figures.PointMarks)):
        own = {field.name for field in fields(kind)} & arguments.keys()
        if own:
            arguments[name] = kind(**{field: arguments.pop(field) for field in own})
    return arguments


def rows_of(trace: Any) -> list[int]:
    assert trace.customdata.shape == (len(trace.x), 1)
    assert np.issubdtype(trace.customdata.dtype, np.integer)
    return trace.customdata[:, 0].tolist()


def plot_size(figure: go.Figure) -> tuple[float, float]:
    """Height of the plot, and of all that stands around it."""
    layout = figure.layout
    low, high = layout.yaxis.domain
    plot = (high - low) * (layout.height - layout.margin.t - layout.margin.b)
    return pytest.approx(plot), pytest.approx(layout.height - plot)


# --- every figure --------------------------------------------------------------------------------


@pytest.mark.parametrize("holds", EVERY_FIGURE)
def test_every_figure_holds_for_the_walk(arrays, holds):
    holds(lambda theme: draw("map_animation", arrays, theme))  # and writing into an input raises


@pytest.mark.parametrize("holds", MAP_RULES)
def test_every_figure_holds_for_the_map(arrays, holds):
    holds(lambda theme: draw("space_map", arrays, theme))


def test_a_map_is_for_choosing_and_keeps_its_zoom(arrays):
    figure = draw("space_map", arrays)
    assert figure.layout.dragmode == "lasso"
    assert not figure.layout.xaxis.fixedrange and not figure.layout.yaxis.fixedrange
    revisions = {figure.layout.uirevision, plain(arrays, selected=[1]).layout.uirevision}
    assert len(revisions) == 1 and None not in revisions


@pytest.mark.parametrize("name", ["space_map", "map_animation"])
def test_axes_have_one_scale_and_nothing_to_read(arrays, name):
    layout = drawn(draw(name, arrays)).layout
    assert (layout.yaxis.scaleanchor, layout.yaxis.scaleratio) == ("x", 1)
    for axis in (layout.xaxis, layout.yaxis):
        assert axis.showticklabels is axis.showgrid is axis.zeroline is False
        assert axis.showline and axis.mirror


def test_a_choice_fades_no_point(arrays):
    for figure in (draw("space_map", arrays), plain(arrays, values=arrays["values"])):
        marked = [t for t in drawn(figure).data if t.type != "heatmap" and t.mode == "markers"]
        assert len(marked) >= 2
        for trace in marked:
            opacity = trace.marker.opacity or 1
            assert trace.selected.marker.opacity == trace.unselected.marker.opacity == opacity > 0.8


def test_everything_that_is_chosen_by_a_lasso_says_which_row_it_is(arrays):
    for trace in draw("space_map", arrays).data:
        if trace.type == "heatmap" or trace.mode == "lines":
            continue
        known = rows_of(trace)
        assert all(row < 0 for row in known) == (trace.name == "added")
        assert all(row < N for row in known)


# --- colours -------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_categories_are_distinct_to_all_eyes_and_on_the_page(theme):
    colors = CATEGORIES[theme]
    assert len(colors) == len(set(colors)) == 12
    greys = [palette_of(theme).zero, ACCENT[theme]]
    for eye in EYES.values():
        seen = [oklab(np.clip(eye @ linear_rgb(color), 0, 1)) for color in (*colors, *greys)]
        for a, b in itertools.combinations(range(len(seen)), 2):
            if a < 12:
                least = 0.08 if b < 12 else 0.045
                assert np.linalg.norm(seen[a] - seen[b]) > least, (a, b)
    for color in colors:
        assert contrast(color, BACKGROUND[theme]) >= 3
    for text in (palette_of(theme).text, palette_of(theme).muted):
        assert contrast(text, BACKGROUND[theme]) >= 4.5


def test_every_category_of_the_order_has_its_colour(arrays):
    figure = plain(arrays, categories=LABELS, order=["money", "travel"])
    for place, name in enumerate(["money", "travel"]):
        trace = named(figure, name)
        assert rows_of(trace) == [row for row in range(N) if LABELS[row] == name]
        assert trace.marker.color == CATEGORIES["light"][place]
        assert trace.marker.symbol == CATEGORY_SYMBOLS[place]
        np.testing.assert_allclose(trace.x, arrays["coordinates"][rows_of(trace), 0], rtol=1e-6)
        np.testing.assert_allclose(trace.y, arrays["coordinates"][rows_of(trace), 1], rtol=1e-6)
        assert trace.x.dtype == np.float32
    other, empty = named(figure, "other (2)"), named(figure, "no label")
    assert rows_of(empty) == [5, 6]
    assert rows_of(other) == [r for r in range(N) if LABELS[r] in ("cooking", HOSTILE)]
    grey = palette_of("light").zero
    assert other.marker.color == empty.marker.color == grey not in CATEGORIES["light"]
    legend = sorted(figure.data, key=lambda trace: trace.legendrank)
    assert [t.name for t in legend] == ["money", "travel", "other (2)", "no label"]
    assert [t.name for t in figure.data][-1] == "travel"  # the grey ones lie below


def test_without_an_order_the_most_frequent_have_the_colours(arrays):
    labels = ["rare", *["often"] * 20, *["b"] * 5, *["a"] * 5, *["mid"] * 9]
    figure = plain(arrays, categories=labels)
    colors = {trace.name: trace.marker.color for trace in figure.data}
    expected = ["often", "mid", "a", "b", "rare"]
    assert colors == dict(zip(expected, CATEGORIES["light"], strict=False))
    many = plain(arrays, categories=[f"topic {row % 20:02d}" for row in range(N)])
    assert len(many.data) == 13
    assert rows_of(named(many, "other (8)")) == [row for row in range(N) if row % 20 >= 12]


def test_a_colour_is_kept_for_a_category_that_is_not_drawn(arrays):
    figure = plain(arrays, categories=LABELS, order=TOPICS, drawn=[0, 3])
    assert [t.name for t in figure.data[1:]] == ["cooking", "money"]
    assert named(figure, "money").marker.color == CATEGORIES["light"][3]


def test_symbols_come_again_after_the_last_one(arrays):
    figure = plain(arrays, categories=[f"{row % 12:02d}" for row in range(N)])
    symbols = [t.marker.symbol for t in sorted(figure.data, key=lambda t: t.legendrank)]
    assert symbols == list(CATEGORY_SYMBOLS) * 2


def test_values_are_the_colours_and_unknown_ones_grey(arrays):
    figure = plain(arrays, values=arrays["values"], name="words", form=".1f")
    known = np.flatnonzero(np.isfinite(arrays["values"]))
    points, unknown = named(figure, "values"), named(figure, "unknown")
    assert rows_of(points) == known.tolist()
    np.testing.assert_allclose(points.marker.color, arrays["values"][known], rtol=1e-6)
    assert points.marker.cmin == np.nanmin(arrays["values"])
    assert points.marker.cmax == np.nanmax(arrays["values"])
    ends = [points.marker.cmin, points.marker.cmax]
    printed = [f"{value:.1f}".replace("-", "−") for value in ends]
    assert list(points.marker.colorbar.ticktext) == printed
    assert rows_of(unknown) == [3, 7]
    assert unknown.marker.color == palette_of("light").zero
    assert unknown.hovertext[0] == "sentence 3<br>words: unknown"
    assert f"words: <b>{printed_value(arrays['values'][0])}</b>" in points.hovertext[0]
    assert texts(figure)[0].endswith("<br>words (grey: unknown)")
    all_known = plain(arrays, values=np.arange(N), name="words")
    assert texts(all_known)[0].endswith("<br>words")
    assert not all_known.layout.showlegend


def printed_value(value: float) -> str:
    return f"{value:.1f}".replace("-", "−")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_large_values_stand_out_most_from_the_page(arrays, theme):
    figure = plain(arrays, values=arrays["values"], theme=theme)
    scale = named(figure, "values").marker.colorscale
    brightness = [sum(map(float, color[4:-1].split(","))) for _, color in scale]
    assert (np.diff(brightness) * (1 if theme == "dark" else -1) > 0).all()


@pytest.mark.parametrize("values", [[2.0] * N, [NAN] * N])
def test_values_that_are_all_alike_or_unknown(arrays, values):
    figure = plain(arrays, values=values)
    parse(figure)
    assert sum(len(trace.x) for trace in figure.data) == N
    if not np.isnan(values[0]):
        marker = named(figure, "values").marker
        assert marker.cmin < marker.cmax
        assert list(marker.colorbar.ticktext) == ["2.00"]


def test_values_of_the_whole_space_are_the_scale_of_what_is_drawn(arrays):
    part = named(plain(arrays, values=np.arange(N), drawn=[4, 5]), "values").marker
    assert (part.cmin, part.cmax) == (0, N - 1)


def test_without_values_and_categories_all_are_alike(arrays):
    figure = plain(arrays)
    (points,) = figure.data
    assert rows_of(points) == list(range(N))
    assert points.marker.color == palette_of("light").plain
    assert not figure.layout.showlegend


def test_hover_has_the_sentence_and_its_category(arrays):
    figure = plain(arrays, categories=LABELS, order=TOPICS)
    assert named(figure, "travel").hovertext[0] == "sentence 1<br><b>travel</b>"
    assert named(figure, "no label").hovertext[0] == "sentence 5<br>no label"
    long = figures.space_map([[0.0, 0.0]], ["word " * 400])
    assert long.data[0].hovertext[0].count("<br>") == 2


# --- density -------------------------------------------------------------------------------------


def test_the_density_counts_all_points_below_those_drawn(arrays):
    figure = draw("space_map", arrays)
    density = figure.data[0]
    assert density.type == "heatmap" and density.hoverinfo == "skip" and not density.showscale
    counts = 10 ** np.nan_to_num(density.z) - 1
    assert counts.sum() == pytest.approx(N, rel=1e-5)
    assert np.isnan(density.z).sum() == (counts < 0.5).sum() > 0  # empty cells are no 0
    # The cell of each point is one that has been counted.
    x, y = arrays["coordinates"].T
    columns = np.round((x - density.x0) / density.dx).astype(int)
    lines = np.round((y - density.y0) / density.dy).astype(int)
    assert (counts[lines, columns] > 0.5).all()
    assert density.dx == pytest.approx(density.dy, rel=0.02)
    assert max(density.z.shape) == 140
    parse(figure)
    assert "heatmap" not in {trace.type for trace in plain(arrays).data}


def test_the_density_adds_up_where_points_coincide():
    place = np.repeat([[0.0, 0.0], [1.0, 1.0]], [99, 9], axis=0)
    nothing = figures.PointMarks(drawn=[])
    density = figures.space_map(place, ["x"] * 108, marks=nothing).data[0]
    assert sorted(density.z[np.isfinite(density.z)]) == pytest.approx([1.0, 2.0])
    assert density.zmax == pytest.approx(2.0)


def test_only_what_is_drawn_has_marks(arrays):
    figure = plain(arrays, categories=LABELS, order=TOPICS, drawn=arrays["drawn"])
    assert sorted(row for t in figure.data[1:] for row in rows_of(t)) == [2, 5, 6, 9, 30]
    nothing = plain(arrays, drawn=[])
    assert [trace.name for trace in nothing.data] == ["density"]


@pytest.mark.parametrize(("count", "kind"), [(1500, "scatter"), (1501, "scattergl")])
def test_many_points_are_drawn_by_webgl_with_all_on_top_of_them(count, kind):
    coordinates = np.random.default_rng(0).normal(size=(2000, 2))
    figure = figures.space_map(
        coordinates,
        ["x"] * 2000,
        marks=figures.PointMarks(range(count), [1], 2, [3], [[0, 0]], ["new"]),
    )
    assert figure.data[0].type == "heatmap"
    assert {trace.type for trace in figure.data[1:]} == {kind}


def test_points_shrink_where_they_are_many():
    def size(count: int) -> float:
        return figures.space_map(np.zeros((count, 2)), ["x"] * count).data[0].marker.size

    assert size(100) > size(1000) > size(3000) >= 4


# --- on top --------------------------------------------------------------------------------------


def test_the_selected_are_ringed_drawn_or_not(arrays):
    ring = named(draw("space_map", arrays), "selected")
    assert rows_of(ring) == [1, 2, 39]
    np.testing.assert_allclose(ring.x, arrays["coordinates"][[1, 2, 39], 0], rtol=1e-6)
    assert ring.marker.line.color == ACCENT["light"]
    assert ring.marker.color == "rgba(0, 0, 0, 0)"
    assert ring.hoverinfo == "skip" and ring.showlegend is False


def test_no_more_than_4000_rings_from_all_parts():
    marks = figures.PointMarks(drawn=[0], selected=range(9000))
    figure = figures.space_map(np.zeros((9000, 2)), ["x"] * 9000, marks=marks)
    ringed = rows_of(named(figure, "selected"))
    assert len(ringed) == len(set(ringed)) == 4000
    assert ringed[0] == 0 and ringed[-1] == 8999
    assert max(np.diff(ringed)) == 3


def test_neighbours_are_joined_with_the_focus(arrays):
    figure = draw("space_map", arrays)
    places = arrays["coordinates"].astype(np.float32)
    focus = named(figure, "focus")
    assert rows_of(focus) == [4]
    assert (focus.x[0], focus.y[0]) == tuple(places[4])
    assert focus.hovertext[0] == "sentence 4<br><b>cooking</b>"
    lines = named(figure, "neighbours")
    assert lines.mode == "lines"
    ends = np.stack([lines.x, lines.y], axis=1).reshape(3, 3, 2)
    assert (ends[:, 0] == places[4]).all()
    assert (ends[:, 1] == places[[11, 12, 20]]).all()
    assert np.isnan(ends[:, 2]).all()  # so that lines do not run on to the next
    rings = named(figure, "neighbour rings")
    assert rows_of(rings) == [11, 12, 20]
    assert focus.marker.size > rings.marker.size
    assert focus.marker.line.width > rings.marker.line.width
    names = [trace.name for trace in figure.data]
    assert names[-5:] == ["selected", "neighbours", "neighbour rings", "focus", "added"]


def test_added_sentences_are_stars_with_labels(arrays):
    figure = draw("space_map", arrays, added_texts=["a long sentence " * 9, HOSTILE])
    stars = named(figure, "added")
    np.testing.assert_allclose(np.stack([stars.x, stars.y], axis=1), arrays["added"])
    assert stars.marker.symbol == "star"
    assert stars.marker.color == ACCENT["light"]
    assert rows_of(stars) == [-1, -2]
    assert "a long sentence" in stars.hovertext[0]
    labels = [a for a in figure.layout.annotations if a.x == 0.5 and a.y == 0.5]
    assert [label.text for label in labels] == ["a long sentence a long…"]
    assert (labels[0].ax, labels[0].ay) != (0, 0)
    assert "added" not in [trace.name for trace in plain(arrays, added=np.zeros((0, 2))).data]


# --- two maps ------------------------------------------------------------------------------------


def test_maps_of_one_pair_are_equally_large(arrays):
    for colors in (
        dict(categories=LABELS, order=TOPICS),
        dict(values=arrays["values"]),
        dict(),
    ):
        first = plain(arrays, title="one", note="a note", **colors)
        second = figures.space_map(
            arrays["coordinates"] * [1, 90],
            SENTENCES,
            title="another model with quite a long name · first_last_mean+whiten",
            **composed(
                drawn=[0], selected=[1], focus=2, added=[[50, 50]], added_texts=["new"], **colors
            ),
        )
        assert plot_size(first) == plot_size(second)
        assert plot_size(first)[0] == 430


def test_the_height_has_room_for_the_legend(arrays):
    few = plain(arrays, categories=["a"] * N)
    many = plain(arrays, categories=[f"a topic {row % 14:02d}" for row in range(N)])
    assert many.layout.legend.y < 0 and many.layout.legend.yanchor == "top"
    assert many.layout.margin.b >= few.layout.margin.b + 2 * 19  # 13 entries, 5 on a line
    assert plot_size(few)[0] == plot_size(many)[0]


def test_the_span_is_shared_or_around_all_points(arrays):
    span = ((-9.0, 8.0), (-7.0, 6.0))
    layout = plain(arrays, span=span, drawn=[1]).layout
    assert (layout.xaxis.range, layout.yaxis.range) == span
    layout = plain(arrays, added=[[50.0, 0.0]], added_texts=["new"]).layout
    low, high = arrays["coordinates"].min(axis=0), arrays["coordinates"].max(axis=0)
    assert layout.xaxis.range[0] < low[0] and layout.xaxis.range[1] > 50
    assert layout.yaxis.range[0] < low[1] and layout.yaxis.range[1] > high[1]


def test_points_outside_the_span_are_not_counted():
    points = [[0.0, 0.0], [5.0, 5.0]]
    nothing = figures.PointMarks(drawn=[])
    figure = figures.space_map(points, ["a", "b"], marks=nothing, span=((-1, 1), (-1, 1)))
    assert (10 ** np.nan_to_num(figure.data[0].z) - 1).sum() == pytest.approx(1)


def test_title_and_note_stand_in_the_header(arrays):
    figure = plain(arrays, title="all-MiniLM · lwap", note="612 sentences")
    head = texts(figure)[0]
    assert head.startswith("<b>all-MiniLM · lwap</b><br>") and ">612 sentences<" in head


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(focus=40), "focus names row 40; the rows are 0 to 39"),
        (dict(focus=-1), "focus names row -1; the rows are 0 to 39"),
        (dict(drawn=[1, 99]), "drawn names row 99; the rows are 0 to 39"),
        (dict(selected=[-2]), "selected names row -2; the rows are 0 to 39"),
        (dict(focus=1, neighbours=[40]), "neighbours names row 40; the rows are 0 to 39"),
        (dict(neighbours=[1]), "neighbours are joined with the focus, but focus is None"),
        (dict(drawn=[0.5]), "drawn are rows, so whole numbers, got 0.5"),
        (dict(drawn=np.ones(N, dtype=bool)), "drawn are rows, so whole numbers, got True"),
        (dict(values=[1.0] * N, categories=LABELS), "values and categories are both given"),
        (dict(values=[1.0]), "values has 1 entries; expected 40"),
        (dict(values=[np.inf] * N), "values has infinite values"),
        (dict(categories=["a"]), "categories has 1 entries; expected 40"),
        (dict(order=["a"]), "order is given without the categories"),
        (dict(categories=LABELS, order=list("abcdefghijklm")), "order has 13 .* are 12 colours"),
        (dict(categories=LABELS, order=["a", "a"]), "order names a category twice"),
        (dict(categories=LABELS, order=[""]), "order has an empty label"),
        (dict(added=[[1.0, 2.0, 3.0]]), r"added has shape \(1, 3\); expected \(M, 2\)"),
        (dict(added=[[1.0, NAN]]), "added has values that are not finite"),
        (dict(added=[[1.0, 2.0]], added_texts=[]), "added_texts has 0 entries; expected 1"),
        (dict(added_texts=["x"]), "added_texts has 1 entries; expected 0"),
        (dict(span=((0, 1), (1, 1))), "span of y ends at 1, not above its start 1"),
        (dict(span=(0, 1)), r"span has shape \(2,\)"),
    ],
)
def test_a_map_refuses_what_does_not_fit(arrays, changes, message):
    with pytest.raises(ValueError, match=message):
        plain(arrays, **changes)


def test_a_map_refuses_other_points():
    with pytest.raises(ValueError, match=r"coordinates has shape \(2, 3\); expected \(N, 2\)"):
        figures.space_map(np.zeros((2, 3)), ["a", "b"])
    with pytest.raises(ValueError, match="coordinates has values that are not finite"):
        figures.space_map([[0.0, NAN]], ["a"])
    with pytest.raises(ValueError, match="coordinates is empty"):
        figures.space_map(np.zeros((0, 2)), [])
    with pytest.raises(ValueError, match="texts has 1 entries; expected 2"):
        figures.space_map(np.zeros((2, 2)), ["a"])


# --- walk ----------------------------------------------------------------------------------------


def test_frames_hold_the_places_and_nothing_else(arrays):
    figure = draw("map_animation", arrays, values=None, categories=LABELS, order=TOPICS[:2])
    assert len(figure.frames) == F
    for step, frame in enumerate(figure.frames):
        assert list(frame.traces) == list(range(len(figure.data)))
        for trace, moved in zip(figure.data, frame.data, strict=True):
            assert set(moved.to_plotly_json()) == {"type", "x", "y"}
            assert moved.type == trace.type
            assert moved.x.dtype == moved.y.dtype == np.float32
            expected = arrays["walk"][step, rows_of(trace)]
            np.testing.assert_allclose(np.stack([moved.x, moved.y], axis=1), expected, rtol=1e-6)
        assert set(frame.layout.to_plotly_json()) == {"annotations"}
    first = figure.frames[0].data
    assert all((a.x == b.x).all() for a, b in zip(figure.data, first, strict=True))
    assert sum(len(trace.x) for trace in figure.data) == N


def test_every_frame_has_its_name_in_the_header(arrays):
    figure = draw("map_animation", arrays)
    (header,) = texts(figure)
    for frame, name in zip(figure.frames, ["", "layer 1", "lwap"], strict=True):
        (own,) = frame.layout.annotations
        assert own.text.startswith(f"<b>{name}")
        assert own.text.partition("</b>")[2] == header.partition("</b>")[2] != ""  # the values
        assert (own.x, own.y, own.yshift) == (
            0,
            *[getattr(figure.layout.annotations[0], a) for a in ("y", "yshift")],
        )
    assert figure.frames[0].layout.annotations[0].text == header


def test_slider_and_buttons_find_the_frames(arrays):
    names = ["emb", "twin", "twin"]
    figure = figures.map_animation(arrays["walk"], names, SENTENCES)
    frames = [frame.name for frame in figure.frames]
    assert len(set(frames)) == F
    (slider,) = figure.layout.sliders
    assert [list(step.args[0]) for step in slider.steps] == [[name] for name in frames]
    assert [step.label for step in slider.steps] == names
    (menu,) = figure.layout.updatemenus
    play, pause = menu.buttons
    assert (play.label, pause.label) == ("Play", "Pause")
    assert play.args[0] is None and list(pause.args[0]) == [None]
    assert play.args[1]["frame"] == {"duration": 900, "redraw": True}
    assert 0 < play.args[1]["transition"]["duration"] < 900


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_buttons_are_readable_also_under_the_pointer(arrays, theme):
    (menu,) = draw("map_animation", arrays, theme).layout.updatemenus
    for behind in (menu.bgcolor, "#F4FAFF"):  # plotly's own colour of a button under the pointer
        assert contrast(menu.font.color, behind) >= 4.5
    (slider,) = draw("map_animation", arrays, theme).layout.sliders
    assert contrast(slider.font.color, BACKGROUND[theme]) >= 4.5


def test_all_frames_have_one_span(arrays):
    walk = arrays["walk"].copy()
    walk[2, 7] = [30.0, -40.0]
    figure = figures.map_animation(walk, ["a", "b", "c"], SENTENCES)
    assert figure.layout.xaxis.range[1] > 30 and figure.layout.yaxis.range[0] < -40
    assert not any(frame.layout.xaxis.range for frame in figure.frames)


def test_the_walk_and_the_map_have_the_same_colours(arrays):
    colors = composed(categories=LABELS, order=TOPICS[1:3])
    walk = figures.map_animation(arrays["walk"], ["a", "b", "c"], SENTENCES, **colors)
    still = figures.space_map(arrays["walk"][0], SENTENCES, **colors)
    assert [t.to_plotly_json().keys() for t in walk.data] == [
        t.to_plotly_json().keys() for t in still.data
    ]
    for a, b in zip(walk.data, still.data, strict=True):
        assert (a.name, a.marker, list(a.hovertext)) == (b.name, b.marker, list(b.hovertext))
        assert rows_of(a) == rows_of(b)


@pytest.mark.parametrize(("count", "kind"), [(1500, "scatter"), (1501, "scattergl")])
def test_a_walk_of_many_points_is_drawn_anew_by_webgl(count, kind):
    figure = figures.map_animation(np.zeros((2, count, 2)), ["a", "b"], ["x"] * count)
    assert {t.type for frame in figure.frames for t in frame.data} == {kind}
    duration = figure.layout.updatemenus[0].buttons[0].args[1]["transition"]["duration"]
    assert (duration > 0) == (kind == "scatter")


def test_a_walk_refuses_what_does_not_fit(arrays):
    walk = arrays["walk"]
    with pytest.raises(ValueError, match=r"coordinates has shape \(3, 40\); expected \(F, N, 2\)"):
        figures.map_animation(walk[:, :, 0], ["a", "b", "c"], SENTENCES)
    with pytest.raises(ValueError, match=r"coordinates has shape \(3, 40, 1\); .*\(F, N, 2\)"):
        figures.map_animation(walk[:, :, :1], ["a", "b", "c"], SENTENCES)
    with pytest.raises(ValueError, match="names has 2 entries; expected 3"):
        figures.map_animation(walk, ["a", "b"], SENTENCES)
    with pytest.raises(ValueError, match="values and categories are both given"):
        draw("map_animation", arrays, categories=LABELS)
