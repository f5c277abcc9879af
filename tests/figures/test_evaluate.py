"""The figures of an evaluation show the numbers, what is best, and what is not worse."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata

from lwap import figures
from lwap.figures.placement import place_labels, spread_apart
from tests.figures.reading import (
    HOSTILE,
    a_click_fades_nothing,
    drawn,
    frozen,
    holds_for_every_figure,
    named,
    parse,
    shapes,
    texts,
)

NAN = float("nan")
STRATEGIES = ["cls", "mean", "lwap", "layer_mean:0", "layer_mean:6"]
TASKS = ["STS12", HOSTILE, "average"]
SLICES = ["short", HOSTILE]
S, P = 7, 40


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    grid = np.array(
        [
            [60.0, 10.0, 35.0],
            [71.234, 14.0, 42.6],
            [75.0, 13.5, 44.25],
            [50.0, 5.0, 27.5],
            [74.5, 12.0, 43.25],
        ]
    )
    curve = np.linspace(40, 80, S)
    slices = rng.uniform(50, 80, size=(len(STRATEGIES), len(SLICES)))
    differences = np.array([-3.0, 0.4, 2.5, -8.0, 0.1])
    gold = rng.integers(0, 6, size=P).astype(float)
    return frozen(
        {
            "grid": grid,
            "grid_low": grid - 1,
            "grid_high": grid + 1.5,
            "tied": np.array([[0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0], [1, 0, 1]], dtype=bool),
            "curve": curve,
            "curve_low": curve - 2,
            "curve_high": curve + 3,
            "alignment": [0.4, 0.3, 0.2, 0.5, 0.35],
            "uniformity": [-2.0, -2.5, -3.0, -1.0, -2.2],
            "gold": gold,
            "predicted": 0.15 * gold + rng.normal(0, 0.1, size=P),
            "slices": slices,
            "slices_low": slices - 2,
            "slices_high": slices + 2,
            "counts": [120, 1],
            "differences": differences,
            "differences_low": differences - 1,
            "differences_high": differences + 1,
            "p_values": [0.001, 0.3, 0.049, 0.0001, 0.05],
        }
    )


PAIRS = [HOSTILE, *(f"first {i} ↔ second {i}" for i in range(1, P))]


def draw(name: str, a: dict[str, np.ndarray], theme: str = "light", **changes: Any):
    """Call a figure by name with arrays of the right shapes."""
    calls = {
        "strategy_grid": (
            (a["grid"], STRATEGIES, TASKS),
            dict(low=a["grid_low"], high=a["grid_high"], tied=a["tied"]),
        ),
        "layer_curve": (
            (a["curve"], a["curve"][::-1]),
            dict(
                cls_interval=(a["curve_low"], a["curve_high"]),
                references={"mean": 70.0, "lwap": 81.5},
                cls_name=HOSTILE,
                y_title=HOSTILE,
            ),
        ),
        "alignment_uniformity": ((a["alignment"], a["uniformity"], STRATEGIES), {}),
        "gold_scatter": (
            (a["gold"], a["predicted"]),
            dict(
                labels=PAIRS,
                selected=[3, 0],
                y_title=HOSTILE,
            ),
        ),
        "slice_strip": (
            (STRATEGIES, SLICES, a["slices"], a["slices_low"], a["slices_high"], a["counts"]),
            {},
        ),
        "difference_strip": (
            (
                STRATEGIES,
                a["differences"],
                a["differences_low"],
                a["differences_high"],
                a["p_values"],
            ),
            dict(baseline=HOSTILE),
        ),
    }
    positional, keywords = calls[name]
    return getattr(figures, name)(*positional, **keywords | {"theme": theme} | changes)


FIGURES = (
    "strategy_grid",
    "layer_curve",
    "alignment_uniformity",
    "gold_scatter",
    "slice_strip",
    "difference_strip",
)
CLICKED = tuple(name for name in FIGURES if name != "layer_curve")


# --- every figure --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure(arrays, name):
    holds_for_every_figure(
        lambda theme: draw(name, arrays, theme)
    )  # and writing into an input raises


@pytest.mark.parametrize("name", CLICKED)
def test_a_click_fades_nothing(arrays, name):
    a_click_fades_nothing(lambda theme: draw(name, arrays, theme))


@pytest.mark.parametrize("name", ["strategy_grid", "alignment_uniformity", "difference_strip"])
def test_a_name_that_is_no_strategy_is_refused(name):
    one = [0.5]
    calls = {
        "strategy_grid": lambda: figures.strategy_grid([one], ["median"], ["STS"]),
        "alignment_uniformity": lambda: figures.alignment_uniformity(one, one, ["median"]),
        "difference_strip": lambda: figures.difference_strip(
            ["median"], one, one, one, one, baseline="mean"
        ),
    }
    with pytest.raises(ValueError, match="'median' is not a pooling strategy; accepted are cls"):
        calls[name]()


# --- strategies × tasks --------------------------------------------------------------------------


def cells(figure) -> dict[tuple[int, int], dict[str, Any]]:
    """Every cell by row and column: what it is coloured by, and says on hover."""
    found = {}
    for name in ("cells", "empty"):
        for trace in [t for t in figure.data if t.name == name]:
            for index, (row, column) in enumerate(trace.customdata):
                found[row, column] = {
                    "share": trace.marker.color[index] if name == "cells" else None,
                    "hover": trace.hovertext[index],
                    "x": trace.x[index],
                    "y": trace.base[index] + 0.5,
                }
    return found


def numbers(figure, shape: tuple[int, int]) -> np.ndarray:
    """The printed texts, without their colours."""
    printed = named(figure, "numbers").text
    plain = [text.split(">", 1)[1].removesuffix("</span>") for text in printed]
    return np.array(plain, dtype=object).reshape(shape)


def test_grid_prints_the_values_and_the_best_in_bold(arrays):
    found = numbers(draw("strategy_grid", arrays), (5, 3))
    assert list(found[1]) == ["71.23", "<b>14.00</b>", "42.60"]
    assert list(found[2]) == ["<b>75.00</b>", "13.50", "<b>44.25</b>"]
    assert sum("<b>" in text for text in found.flat) == 3


def test_grid_colours_run_within_each_column(arrays):
    found = cells(draw("strategy_grid", arrays))
    assert len(found) == 15
    shares = np.array([[found[row, column]["share"] for column in range(3)] for row in range(5)])
    grid = arrays["grid"]
    expected = (grid - grid.min(axis=0)) / (grid.max(axis=0) - grid.min(axis=0))
    np.testing.assert_allclose(shares, expected)
    bar = named(draw("strategy_grid", arrays), "cells").marker.colorbar
    assert list(bar.ticktext) == ["worst", "best"]
    assert any("within each column" in text for text in texts(draw("strategy_grid", arrays)))


def test_grid_frames_the_best_cell_of_a_column(arrays):
    figure = draw("strategy_grid", arrays)
    found = cells(figure)
    framed = {
        place
        for place, cell in found.items()
        for frame in shapes(figure, "best")
        if frame.x0 < cell["x"] < frame.x1 and frame.y0 < cell["y"] < frame.y1
    }
    assert framed == {(2, 0), (1, 1), (2, 2)}


def test_values_that_print_alike_are_best_together():
    figure = figures.strategy_grid([[70.001], [70.004], [69.0]], ["cls", "mean", "max"], ["STS"])
    assert list(numbers(figure, (3,))) == ["<b>70.00</b>", "<b>70.00</b>", "69.00"]
    assert "best of its column" in cells(figure)[0, 0]["hover"]
    assert "best of its column" in cells(figure)[1, 0]["hover"]


def test_grid_underlines_what_is_not_significantly_worse(arrays):
    figure = draw("strategy_grid", arrays)
    marks = named(figure, "not significantly worse")
    found = cells(figure)
    marked = {
        place
        for place, cell in found.items()
        for x, y in zip(marks.x, marks.y, strict=True)
        if x == cell["x"] and cell["y"] < y < cell["y"] + 0.5
    }
    assert marked == {(2, 1), (4, 0), (4, 2)}  # the best themselves are framed instead
    assert any("underlined: not significantly worse" in text for text in texts(figure))


def test_grid_hover_says_value_interval_and_significance(arrays):
    found = cells(draw("strategy_grid", arrays))
    best = "lwap<br>STS12: <b>75.00</b> [74.00, 76.50]<br>best of its column"
    assert found[2, 0]["hover"] == best
    assert found[4, 0]["hover"].endswith("<br>not significantly worse than the best, lwap")
    assert found[0, 0]["hover"].endswith("<br>significantly worse than the best, lwap")
    assert "&lt;b&gt;bold&lt;/b&gt;" in found[0, 1]["hover"]


def test_grid_without_intervals_and_ties_claims_neither(arrays):
    figure = figures.strategy_grid(arrays["grid"], STRATEGIES, TASKS)
    assert cells(figure)[0, 0]["hover"] == "cls<br>STS12: <b>60.00</b>"
    assert "not significantly worse" not in [trace.name for trace in figure.data]
    assert not any("underlined" in text for text in texts(figure))
    assert any("framed: best" in text for text in texts(figure))


def test_grid_leaves_missing_cells_empty(arrays):
    values = arrays["grid"].copy()
    values[2, 0] = NAN
    values[:, 1] = NAN
    figure = figures.strategy_grid(
        values, STRATEGIES, TASKS, low=values - 1, high=values + 1, tied=arrays["tied"]
    )
    assert numbers(figure, (5, 3))[2, 0] == "–"
    found = cells(figure)
    assert len(found) == 15
    assert found[2, 0]["share"] is None
    assert found[2, 0]["hover"] == "lwap<br>STS12: no value"
    assert "<b>74.50</b>" in numbers(figure, (5, 3))[4, 0]  # the best of those that are known
    assert len(shapes(figure, "best")) == 2  # none in the empty column
    marks = named(figure, "not significantly worse")
    assert len(marks.x) == 1  # not in empty cells
    parse(figure)


def test_grid_sets_single_layers_and_the_average_apart(arrays):
    figure = draw("strategy_grid", arrays)
    rows = np.array(figure.layout.yaxis.tickvals)
    assert np.allclose(np.diff(rows), [1, 1, 1.4, 1])
    (rule,) = shapes(figure, "rule")
    assert rows[2] + 0.5 < rule.y0 < rows[3] - 0.5
    columns = figure.layout.xaxis.tickvals
    assert columns[2] - columns[1] > columns[1] - columns[0] == 1
    plain = figures.strategy_grid(arrays["grid"], STRATEGIES, ["a", "b", "c"])
    assert list(plain.layout.xaxis.tickvals) == [0, 1, 2]


def test_grid_names_a_model_once_above_its_rows():
    names = ["small · mean", "small · lwap", f"{HOSTILE} · lwap", "mean"]
    figure = figures.strategy_grid([[1.0], [2.0], [3.0], [4.0]], names, ["STS"])
    heads = [text for text in texts(figure) if text.startswith("<b>small")]
    assert heads == ["<b>small</b>"]
    ticks = figure.layout.yaxis.ticktext
    assert ticks[0] == ticks[3] == "mean"
    assert "lwap" in ticks[1] and figures.ACCENT["light"] in ticks[1]
    rows = figure.layout.yaxis.tickvals
    assert rows[1] - rows[0] == 1 and rows[2] - rows[1] > 1.5
    assert cells(figure)[1, 0]["hover"].startswith("small · lwap<br>")


def test_grid_breaks_long_names_and_gives_them_room():
    short = figures.strategy_grid([[1.0], [2.0]], ["mean", "lwap"], ["STS"])
    long = figures.strategy_grid([[1.0], [2.0]], ["mean", "first_last_mean+whiten"], ["STS"])
    assert long.layout.yaxis.ticktext[1] == "first_last_mean<br>+whiten"
    assert long.layout.height > short.layout.height


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (40, 1), (40, 9), (2, 12)])
def test_grid_of_any_size(rows, columns):
    rng = np.random.default_rng(rows)
    values = rng.uniform(-90, 90, size=(rows, columns))
    names = [f"layer_mean:{row}" for row in range(rows)]
    figure = figures.strategy_grid(values, names, [f"task {i}" for i in range(columns)])
    assert len(cells(figure)) == rows * columns
    parse(figure)
    assert len(shapes(figure, "best")) == (columns if rows > 1 else 0)  # alone is not best
    decimals = len(numbers(figure, (rows, columns))[0, 0].split(".")[1].removesuffix("</b>"))
    assert decimals == (2 if columns <= 9 else 1)
    margin = figure.layout.margin
    body = figure.layout.height - margin.t - margin.b
    domain = figure.layout.yaxis.domain
    assert (domain[1] - domain[0]) * body / rows > 20  # px, room for a number


@pytest.mark.parametrize("columns", [4, 8, 9])
def test_grid_numbers_have_room_on_a_phone(columns):
    values = np.full((2, columns), 71.23)
    names = ["first_last_mean", "lwap"]
    figure = figures.strategy_grid(values, names, [f"task {i}" for i in range(columns)])
    low, high = figure.layout.xaxis.range
    cell = (340 - figure.layout.margin.l - figure.layout.margin.r) / (high - low)
    bar = named(figure, "numbers").width * cell
    inside = bar - 6  # plotly keeps 3 px at both sides
    assert 5 * 0.5 * 9 * 0.97 < inside <= cell - 2 + 1e-6  # px: five characters, and a gap


def test_grid_refuses_what_does_not_fit(arrays):
    grid = arrays["grid"]
    with pytest.raises(ValueError, match="rows has 2 entries; expected 5"):
        figures.strategy_grid(grid, STRATEGIES[:2], TASKS)
    with pytest.raises(ValueError, match="columns has 2 entries; expected 3"):
        figures.strategy_grid(grid, STRATEGIES, TASKS[:2])
    with pytest.raises(ValueError, match="only one of them is given"):
        figures.strategy_grid(grid, STRATEGIES, TASKS, low=grid)
    with pytest.raises(ValueError, match=r"tied has shape \(5, 2\); .*T = 3 as in values"):
        figures.strategy_grid(grid, STRATEGIES, TASKS, tied=arrays["tied"][:, :2])
    with pytest.raises(ValueError, match="values are correlations × 100, from -100 to 100, got 7"):
        figures.strategy_grid(grid * 100, STRATEGIES, TASKS)
    with pytest.raises(ValueError, match="interval of 'cls on STS12' ends at 59, below its start"):
        figures.strategy_grid(grid, STRATEGIES, TASKS, low=grid + 1, high=grid - 1)
    with pytest.raises(ValueError, match="values is empty"):
        figures.strategy_grid(np.zeros((0, 3)), [], TASKS)


# --- states --------------------------------------------------------------------------------------


def test_layer_curve_draws_both_lines_and_their_bands(arrays):
    figure = draw("layer_curve", arrays, cls_name="CLS")
    np.testing.assert_allclose(named(figure, "CLS").y, arrays["curve"])
    np.testing.assert_allclose(named(figure, "mean").y, arrays["curve"][::-1])
    band = named(figure, "CLS interval")
    assert band.fill == "toself" and band.fillcolor.startswith("rgba")
    around = [y for y in band.y if y is not None]
    np.testing.assert_allclose(around[:S], arrays["curve_low"])
    np.testing.assert_allclose(around[S:], arrays["curve_high"][::-1])
    assert len(named(figure, "mean interval").x) == 0
    assert named(figure, "CLS").text[0] == "[38.00, 43.00]"
    assert named(figure, "mean").text[0] == ""


def test_layer_curve_has_the_states_and_the_strategies_colours(arrays):
    figure = draw("layer_curve", arrays, cls_name="last token")
    assert figure.layout.xaxis.ticktext[0] == "emb"
    assert named(figure, "last token").line.color == figures.strategy_color("last_token")
    marks = {t.name: t for t in figure.data if t.mode == "markers"}
    assert {name: mark.y[0] for name, mark in marks.items()} == {"mean": 70.0, "lwap": 81.5}
    assert all(mark.x[0] > S - 1 for mark in marks.values())
    assert any(text == "lwap" for text in texts(figure))


def test_layer_curve_leaves_gaps_where_values_are_missing(arrays):
    curve, low, high = (arrays[name].copy() for name in ("curve", "curve_low", "curve_high"))
    curve[3] = low[3] = high[3] = NAN
    low[6] = NAN
    figure = figures.layer_curve(
        curve,
        np.full(S, NAN),
        cls_interval=(low, high),
        references={"mean": NAN, "lwap": 70.0},
    )
    band = named(figure, "CLS interval")
    breaks = [x for x in band.x if x is None]
    assert len(breaks) == 2  # after states 0–2 and 4–5; state 6 has but one end
    assert 3 not in band.x and 6 not in band.x
    assert [t.name for t in figure.data if t.mode == "markers"] == ["lwap"]
    parse(figure)


def test_one_state_with_an_interval_has_a_band_that_is_seen():
    figure = figures.layer_curve([50.0], [60.0], cls_interval=([48.0], [53.0]))
    x = [value for value in named(figure, "CLS interval").x if value is not None]
    assert max(x) > min(x)
    assert figure.layout.xaxis.ticktext == ("emb",)


def test_layer_curve_labels_do_not_collide(arrays):
    references = {
        name: 80 + 0.01 * index
        for index, name in enumerate(
            ["lwap", "mean", "first_last_mean+whiten", "cls", "a long model · embed_last_mean"]
        )
    }
    figure = draw("layer_curve", arrays, references=references)
    low, high = figure.layout.yaxis.range
    margin = figure.layout.margin
    body = figure.layout.height - margin.t - margin.b
    labels = [a for a in figure.layout.annotations if a.showarrow]
    boxes = sorted(
        ((high - a.y) / (high - low) * body + a.ay, 13 * (1 + a.text.count("<br>"))) for a in labels
    )
    assert len(boxes) == len(references)
    assert max(height for _, height in boxes) == 26  # a name on two lines
    for (upper, upper_height), (lower, lower_height) in itertools.pairwise(boxes):
        assert lower - upper >= (upper_height + lower_height) / 2
    assert boxes[0][0] > 0 and boxes[-1][0] < body


def test_layer_curve_refuses_other_shapes_and_intervals_upside_down(arrays):
    curve = arrays["curve"]
    with pytest.raises(ValueError, match=r"high of mean has shape \(6,\); .*S = 7 as in mean"):
        figures.layer_curve(curve, curve, mean_interval=(curve, curve[:6]))
    with pytest.raises(ValueError, match="the interval of 'mean, embeddings' ends at 39"):
        figures.layer_curve(curve, curve, mean_interval=(curve, curve - 1))
    with pytest.raises(ValueError, match=r"mean has shape \(6,\); .*S = 7 as in cls"):
        figures.layer_curve(curve, curve[:6])


# --- alignment × uniformity ----------------------------------------------------------------------


def test_plane_has_uniformity_across_and_alignment_up(arrays):
    figure = draw("alignment_uniformity", arrays)
    mark = named(figure, "lwap")
    assert (mark.x[0], mark.y[0]) == (-3.0, 0.2)
    assert mark.customdata == ([2],)
    assert mark.marker.symbol == figures.strategy_symbol("lwap")
    assert mark.marker.color == figures.strategy_color("lwap")
    assert "uniformity <b>−3.000</b>" in mark.hovertext[0]
    for axis in (figure.layout.xaxis, figure.layout.yaxis):
        assert "←" in axis.title.text and "lower is better" in axis.title.text


def test_plane_joins_single_layers_into_numbered_paths():
    names = ["layer_cls:1", "layer_mean:2", "layer_mean:0", "layer_mean:1", "layer_cls:0", "mean"]
    figure = figures.alignment_uniformity(
        [0.1, 0.2, 0.9, 0.5, 0.8, 0.6], [-3.0, -2.0, -0.1, -1.0, -2.5, -2.4], names
    )
    path = named(figure, "layer_mean")
    assert path.customdata == ([2], [3], [1])
    np.testing.assert_allclose(path.x, [-0.1, -1.0, -2.0])
    assert path.mode == "lines+markers+text"
    assert [text.split(">")[1].split("<")[0] for text in path.text[1:]] == ["1", "2"]
    assert path.text[0] == ""  # the embeddings are named beside it
    assert path.marker.colorscale == named(figure, "layer_cls").marker.colorscale
    assert path.marker.cmax == named(figure, "layer_cls").marker.cmax == 2
    assert path.line.color != named(figure, "layer_cls").line.color
    assert {"layer_mean, emb", "layer_cls, emb", "mean"} <= set(texts(figure))


def test_plane_numbers_no_point_that_lies_on_another():
    layers = [f"layer_mean:{layer}" for layer in range(13)]
    x = np.linspace(-2.0, -1.99, 13)
    x[0] = 0.0
    figure = figures.alignment_uniformity(np.full(13, 0.5), x, layers)
    shown = [text for text in named(figure, "layer_mean").text if text]
    assert len(shown) == 1 and ">12<" in shown[0]  # the last one comes first
    sizes = named(figure, "layer_mean").marker.size
    assert sizes[12] > sizes[11]


def test_plane_tells_models_and_whitening_apart():
    names = ["a · layer_mean:1", "b · layer_mean:1", "a · layer_mean:1+whiten", "b · lwap"]
    figure = figures.alignment_uniformity([0.1, 0.2, 0.3, 0.4], [-1.0, -2.0, -3.0, -4.0], names)
    assert [trace.name for trace in figure.data] == [
        "a · layer_mean",
        "b · layer_mean",
        "a · layer_mean+whiten",
        "b · lwap",
    ]


def test_plane_leaves_out_what_is_not_known(arrays):
    alignment = arrays["alignment"].copy()
    alignment[1] = NAN
    figure = figures.alignment_uniformity(alignment, arrays["uniformity"], STRATEGIES)
    assert "mean" not in [trace.name for trace in figure.data]
    assert "mean" not in texts(figure)
    parse(figure)
    parse(figures.alignment_uniformity([NAN], [NAN], ["mean"]))  # an empty plane is no error


def test_plane_labels_keep_clear_of_each_other():
    rng = np.random.default_rng(1)
    names = ["cls", "mean", "max", "first_last_mean", "last_two_mean", "all_mean", "lwap"]
    figure = figures.alignment_uniformity(rng.uniform(0, 0.5, 7), rng.uniform(-3, -1, 7), names)
    margin, (low_x, high_x), (low_y, high_y) = (
        figure.layout.margin,
        figure.layout.xaxis.range,
        figure.layout.yaxis.range,
    )
    domain = figure.layout.yaxis.domain
    height = (figure.layout.height - margin.t - margin.b) * (domain[1] - domain[0])
    for width in (340, 700, 1100):
        boxes = []
        for a in figure.layout.annotations:
            if not a.showarrow:
                continue
            half = 5.0 * len(a.text) / 2
            shift = {"left": half, "right": -half, "center": 0}[a.xanchor]
            x = (a.x - low_x) / (high_x - low_x) * (width - margin.l - margin.r) + a.ax + shift
            y = (a.y - low_y) / (high_y - low_y) * height - a.ay
            boxes.append((x, y, half))
        assert len(boxes) == 7
        for (x, y, half), (other_x, other_y, other_half) in itertools.combinations(boxes, 2):
            assert abs(x - other_x) >= half + other_half or abs(y - other_y) >= 10, width


def test_plane_refuses_other_shapes(arrays):
    with pytest.raises(ValueError, match=r"uniformity has shape \(4,\); .*K = 5 as in alignment"):
        figures.alignment_uniformity(arrays["alignment"], arrays["uniformity"][:4], STRATEGIES)
    with pytest.raises(ValueError, match="names has 2 entries; expected 5"):
        figures.alignment_uniformity(arrays["alignment"], arrays["uniformity"], STRATEGIES[:2])


# --- pairs ---------------------------------------------------------------------------------------


def test_scatter_shows_every_pair_with_its_rank_error(arrays):
    points = named(draw("gold_scatter", arrays), "pairs")
    order = [index for (index,) in points.customdata]
    assert sorted(order) == list(range(P))
    np.testing.assert_allclose(points.y, arrays["predicted"][order])
    gold, predicted = rankdata(arrays["gold"]), rankdata(arrays["predicted"])
    expected = 100 * np.abs(gold - predicted)[order] / P
    np.testing.assert_allclose(points.marker.color, expected)
    assert (np.diff(points.marker.color) >= 0).all()  # the worst lie on top
    assert points.marker.cmax == expected.max()


def test_scatter_parts_equal_gold_scores_a_little(arrays):
    points = named(draw("gold_scatter", arrays), "pairs")
    order = [index for (index,) in points.customdata]
    moved = np.abs(points.x - arrays["gold"][order])
    assert 0 < moved.max() <= 0.25  # of the distance of 1 between two scores
    many = np.linspace(0, 5, P)
    points = named(figures.gold_scatter(many, many, labels=PAIRS), "pairs")
    np.testing.assert_allclose(points.x, many)


def test_scatter_hover_has_the_texts_and_the_numbers(arrays):
    points = named(draw("gold_scatter", arrays, y_title="Cosine"), "pairs")
    hover = dict(zip((i for (i,) in points.customdata), points.hovertext, strict=True))
    assert "first 1<br>↔ second 1" in hover[1]
    assert f"gold score: <b>{arrays['gold'][1]:.2f}</b>" in hover[1]
    assert f"Cosine: <b>{arrays['predicted'][1]:.3f}</b>".replace("-", "−") in hover[1]
    assert "% of pairs" in hover[1]
    assert "&lt;b&gt;bold" in hover[0]


def test_scatter_shortens_long_texts_in_the_hover():
    figure = figures.gold_scatter([1.0], [0.5], labels=["word " * 400 + "↔ " + "long " * 400])
    assert len(named(figure, "pairs").hovertext[0]) < 500


def test_scatter_draws_the_selected_on_top(arrays):
    figure = draw("gold_scatter", arrays)
    ring = figure.data[-1]
    assert ring.name == "selected"
    assert ring.customdata == ([0], [3])
    assert ring.marker.color == figures.ACCENT["light"]
    np.testing.assert_allclose(ring.y, arrays["predicted"][[0, 3]])
    plain = draw("gold_scatter", arrays, selected=None)
    assert [trace.name for trace in plain.data] == ["pairs"]
    with pytest.raises(ValueError, match="selected names pair 40; the pairs are 0 to 39"):
        draw("gold_scatter", arrays, selected=[40])


def test_scatter_of_many_pairs_is_drawn_by_webgl():
    rng = np.random.default_rng(0)
    for count, kind in ((1500, "scatter"), (1501, "scattergl")):
        figure = figures.gold_scatter(
            rng.uniform(size=count), rng.uniform(size=count), labels=["x"] * count, selected=[1]
        )
        assert {trace.type for trace in figure.data} == {kind}


def test_scatter_leaves_out_pairs_without_a_score(arrays):
    gold, predicted = arrays["gold"].copy(), arrays["predicted"].copy()
    gold[0], predicted[5] = NAN, NAN
    figure = figures.gold_scatter(gold, predicted, labels=PAIRS, selected=[0, 1])
    points = named(figure, "pairs")
    left = np.delete(np.arange(P), [0, 5])
    assert sorted(index for (index,) in points.customdata) == left.tolist()
    errors = 100 * np.abs(rankdata(gold[left]) - rankdata(predicted[left])) / (P - 2)
    np.testing.assert_allclose(points.marker.color, np.sort(errors))
    assert named(figure, "selected").customdata == ([1],)
    parse(figure)
    nothing = figures.gold_scatter([NAN], [0.5], labels=["x"])
    assert "no pair has both scores" in "".join(texts(nothing))
    parse(nothing)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_large_errors_stand_out_most_from_the_page(arrays, theme):
    scale = named(draw("gold_scatter", arrays, theme), "pairs").marker.colorscale
    brightness = [sum(map(float, color[4:-1].split(","))) for _, color in scale]
    away = np.array(brightness) if theme == "dark" else -np.array(brightness)
    assert (np.diff(away) > 0).all()


def test_scatter_refuses_other_shapes(arrays):
    with pytest.raises(ValueError, match=r"predicted has shape \(3,\); .*P = 40 as in gold"):
        figures.gold_scatter(arrays["gold"], arrays["predicted"][:3], labels=PAIRS)
    with pytest.raises(ValueError, match="labels has 2 entries; expected 40"):
        figures.gold_scatter(arrays["gold"], arrays["predicted"], labels=PAIRS[:2])


# --- slices --------------------------------------------------------------------------------------


def test_slices_have_one_mark_a_strategy_in_one_row_a_slice(arrays):
    figure = draw("slice_strip", arrays)
    heights = []
    for index, name in enumerate(STRATEGIES):
        marks = named(figure, name)
        np.testing.assert_allclose(marks.x, arrays["slices"][index])
        assert [tuple(place) for place in marks.customdata] == [(index, 0), (index, 1)]
        assert marks.marker.color == figures.strategy_color(name)
        heights.append(marks.y)
        ends = named(figure, f"{name} interval").x.reshape(2, 3)[:, :2]
        np.testing.assert_allclose(ends[:, 0], arrays["slices_low"][index])
        np.testing.assert_allclose(ends[:, 1], arrays["slices_high"][index])
    heights = np.array(heights)
    assert (np.diff(heights, axis=0) > 0).all()  # no two in one lane
    assert (np.round(heights) == [0, 1]).all()


def test_slices_are_named_with_their_count(arrays):
    ticks = draw("slice_strip", arrays).layout.yaxis.ticktext
    assert ticks[0] == "short · 120 pairs"
    assert ticks[1].endswith("· 1 pair") and "&lt;b&gt;" in ticks[1]


def test_slices_with_too_few_pairs_say_so(arrays):
    values, low, high = (arrays[name].copy() for name in ("slices", "slices_low", "slices_high"))
    for array in (values, low, high):
        array[:, 0] = NAN
        array[2, 1] = NAN
    figure = figures.slice_strip(STRATEGIES, SLICES, values, low, high, [2, 3])
    written = [text for text in texts(figure) if "too few pairs" in text]
    assert len(written) == 2  # once for the whole slice, once for lwap
    assert "lwap: too few pairs" in written[1]
    parse(figure)


def test_slices_of_two_models_differ_in_their_marks():
    figure = figures.slice_strip(
        ["a · lwap", "b · lwap"], ["all"], [[70.0], [71.0]], [[69.0], [70.0]], [[71.0], [72.0]], [9]
    )
    symbols = [named(figure, name).marker.symbol for name in ("a · lwap", "b · lwap")]
    assert symbols == ["star", "star-dot"]


def test_slices_refuse_other_shapes(arrays):
    a = arrays
    with pytest.raises(ValueError, match=r"counts has shape \(3,\); .*M = 2 as in values"):
        figures.slice_strip(
            STRATEGIES, SLICES, a["slices"], a["slices_low"], a["slices_high"], [1, 2, 3]
        )
    with pytest.raises(ValueError, match="slices has 1 entries; expected 2"):
        figures.slice_strip(
            STRATEGIES, ["x"], a["slices"], a["slices_low"], a["slices_high"], [1, 2]
        )
    with pytest.raises(ValueError, match="interval of 'cls on short' ends at"):
        figures.slice_strip(
            STRATEGIES, SLICES, a["slices"], a["slices_high"], a["slices_low"], [1, 2]
        )
    with pytest.raises(ValueError, match="values are correlations × 100, from -100 to 100"):
        figures.slice_strip(
            STRATEGIES, SLICES, a["slices"] * 9, a["slices_low"], a["slices_high"], [1, 2]
        )


# --- differences ---------------------------------------------------------------------------------


def test_differences_keep_their_order_and_say_what_is_significant(arrays):
    figure = draw("difference_strip", arrays)
    for row, name in enumerate(STRATEGIES):
        mark = named(figure, name)
        assert (mark.x[0], mark.y[0]) == (arrays["differences"][row], row)
        assert mark.customdata == ([row],)
        color = figures.strategy_color(name)
        is_solid = mark.marker.color == color
        assert is_solid == (arrays["p_values"][row] < 0.05)
        assert mark.marker.line.color == color
    assert tuple(figure.layout.yaxis.ticktext) == tuple(STRATEGIES)
    assert any("p &lt; 0.05" in text and "○" in text for text in texts(figure))


def test_differences_print_interval_and_chance(arrays):
    printed = texts(draw("difference_strip", arrays))
    assert printed[1:5] == [
        "<b>−3.00</b> [−4.00, −2.00]  p = 0.001",
        "<b>+0.40</b> [−0.60, +1.40]  p = 0.300",
        "<b>+2.50</b> [+1.50, +3.50]  p = 0.049",
        "<b>−8.00</b> [−9.00, −7.00]  p &lt; 0.001",
    ]


def test_differences_name_the_baseline_and_have_a_zero_line():
    figure = drawn(figures.difference_strip(["lwap"], [3.0], [2.0], [4.0], [0.01], baseline="mean"))
    title = figure.layout.xaxis.title.text
    assert title == "Δ Spearman × 100 to mean (higher is better →)"
    low, high = figure.layout.xaxis.range
    assert low < 0 < high
    (zero,) = [shape for shape in figure.layout.shapes if shape.x0 == shape.x1 == 0]
    assert zero.layer == "below"


def test_a_difference_that_is_not_defined_is_a_dash():
    figure = figures.difference_strip(
        ["mean", "lwap"], [NAN, 1.0], [NAN, NAN], [NAN, NAN], [NAN, NAN], baseline="cls"
    )
    assert texts(figure)[1:] == ["<b>–</b>", "<b>+1.00</b>"]
    assert named(figure, "lwap").marker.color == figures.BACKGROUND["light"]  # not significant
    parse(figure)


def test_numbers_stand_below_long_names():
    short = figures.difference_strip(["lwap"], [1.0], [0.0], [2.0], [0.2], baseline="cls")
    long = figures.difference_strip(
        ["all-MiniLM-L6-v2 · lwap"], [1.0], [0.0], [2.0], [0.2], baseline="cls"
    )
    assert short.layout.annotations[1].xanchor == "right"
    assert long.layout.annotations[1].xanchor == "left"
    assert long.layout.annotations[1].yshift < short.layout.annotations[1].yshift
    assert long.layout.height > short.layout.height
    assert long.layout.yaxis.ticktext == ("all-MiniLM-L6-v2 · lwap",)


def test_differences_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="p_values are probabilities from 0 to 1, got 5"):
        figures.difference_strip(["lwap"], [1.0], [0.0], [2.0], [5.0], baseline="cls")
    with pytest.raises(ValueError, match="the interval of 'lwap' ends at 0, below its start 2"):
        figures.difference_strip(["lwap"], [1.0], [2.0], [0.0], [0.5], baseline="cls")
    with pytest.raises(ValueError, match=r"low has shape \(2,\); .*K = 1 as in values"):
        figures.difference_strip(["lwap"], [1.0], [2.0, 3.0], [0.0], [0.5], baseline="cls")


# --- placement -----------------------------------------------------------------------------------


def test_spread_apart_moves_only_what_collides():
    values = np.array([5.0, 0.0, 5.2, 9.0])
    heights = np.array([1.0, 1.0, 2.0, 1.0])
    spread = spread_apart(values, heights, (-1, 12))
    assert spread[1] == 0.0 and spread[3] == 9.0
    assert spread[2] - spread[0] == pytest.approx(1.5)  # half of both heights
    assert (spread[0] + spread[2]) / 2 == pytest.approx(5.1)  # least squares
    assert spread_apart(np.zeros(0), np.zeros(0), (0, 1)).shape == (0,)


def test_labels_are_placed_beside_their_mark_and_inside_the_plot():
    marks = np.array([[0.99, 0.5], [0.5, 0.5], [0.5, 0.53]])
    sizes = np.array([[60.0, 14.0]] * 3)
    offsets = place_labels(marks, np.full(3, 6.0), [0, 1, 2], sizes, widths=(280, 900), height=300)
    assert offsets[0][0] < 0  # to the left, for the right is outside
    for width in (280, 900):
        middles = marks * [width, 300] + offsets
        assert (middles - sizes / 2 >= 0).all() and (middles + sizes / 2 <= [width, 300]).all()
        apart = np.abs(middles[1] - middles[2]) - sizes[0]
        assert apart.max() >= 0
    nothing = place_labels(marks, np.full(3, 6.0), [], np.zeros((0, 2)), widths=(9,), height=9)
    assert nothing.shape == (0, 2)
