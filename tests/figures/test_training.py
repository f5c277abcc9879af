"""The figures of training runs show the numbers, from the first moment of a run on."""

from __future__ import annotations

import base64
import itertools
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from lwap import figures
from lwap.figures.style import CATEGORIES, palette_of
from lwap.figures.training import _edges, _kept, _limit, _smoothed
from tests.figures.reading import EVERY_FIGURE, HOSTILE, named, parse, shapes, texts, traces
from tests.figures.test_figures import EYES, contrast, linear_rgb, oklab

NAN = float("nan")
TOTAL, EVERY, S = 300, 50, 7


def a_run(
    name: str = "head", done: int = TOTAL, total: int = TOTAL, every: int = EVERY, **changes: Any
) -> figures.Course:
    """A run with realistic numbers, of which `done` steps are done."""
    rng = np.random.default_rng(len(name))
    steps = np.arange(1, done + 1)
    looks = np.arange(0, done + 1, every)
    way = 1 - np.exp(-4 * looks / total)
    trained = np.full(S, 0.05)
    trained[-1] = 0.7
    arguments = dict(
        steps=steps,
        loss=0.3 + 0.25 * np.exp(-5 * steps / total) + rng.normal(0, 0.02, done),
        gradient_norm=rng.gamma(4, 0.3, done),
        learning_rate=2e-5 * (1 - steps / total),
        sentences_per_second=rng.normal(640, 30, done),
        looks=looks,
        dev=85.9 + way + np.where(looks == 4 * every, 0.3, 0.0),
        alignment=0.35 - 0.02 * way,
        uniformity=-3.6 - 0.2 * way,
        layer_weights=[(1 - share) / S + share * trained for share in way],
        best=4 * every if done >= 4 * every else 0,
        untouched=85.92,
    )
    return figures.Course(name, total, **arguments | changes)


def begun(**changes: Any) -> figures.Course:
    """A run with no step done and one look, at the untrained model."""
    return a_run(done=0, **changes)


def nothing_yet() -> figures.Course:
    return figures.Course("new", TOTAL)


def draw(name: str, theme: str = "light", runs: Any = None) -> go.Figure:
    """Call a figure by name."""
    runs = [a_run(HOSTILE)] if runs is None else runs
    rng = np.random.default_rng(0)
    weights = {HOSTILE: np.full(S, 1 / S), "trained": rng.dirichlet(np.ones(S))}
    calls = {
        "course": lambda: figures.course(runs, dev_title=HOSTILE, theme=theme),
        "optimisation": lambda: figures.optimisation(runs, theme=theme),
        "plane_path": lambda: figures.plane_path(runs, theme=theme),
        "weights_over_time": lambda: figures.weights_over_time(runs[0], theme=theme),
        "weights_before_after": lambda: figures.weights_before_after(weights, theme=theme),
        "moved_pairs": lambda: figures.moved_pairs(
            [0.3, 0.8, 0.5],
            [0.1, 0.82, NAN],
            [HOSTILE, "one ↔ two", "three ↔ four"],
            gold=[0.0, NAN, 0.5],
            x_title=HOSTILE,
            names=(HOSTILE, "after"),
            theme=theme,
        ),
    }
    return calls[name]()


OF_RUNS = ("course", "optimisation", "plane_path")
FIGURES = (*OF_RUNS, "weights_over_time", "weights_before_after", "moved_pairs")


@pytest.mark.parametrize("holds", EVERY_FIGURE)
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure(name, holds):
    holds(lambda theme: draw(name, theme))


@pytest.mark.parametrize("holds", EVERY_FIGURE)
@pytest.mark.parametrize("name", OF_RUNS)
def test_every_figure_of_several_runs(name, holds):
    holds(lambda theme: draw(name, theme, [a_run(HOSTILE), a_run("full", done=120), begun()]))


@pytest.mark.parametrize("name", FIGURES)
def test_what_a_click_has_hidden_stays_so_when_the_figure_is_drawn_anew(name):
    assert draw(name).layout.uirevision == draw(name, "dark").layout.uirevision == "training"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("eye", EYES)
def test_runs_are_told_apart_by_all_eyes(theme, eye):
    runs = [a_run(f"run {index}") for index in range(figures.MOST_RUNS)]
    lines = [named(figures.course(runs, theme=theme), run.name) for run in runs]
    colors = [line.line.color for line in lines]
    assert colors == list(CATEGORIES[theme][: len(runs)])
    assert len({line.marker.symbol for line in lines}) == len(runs)
    assert all(contrast(color, figures.BACKGROUND[theme]) >= 3 for color in colors)
    seen = [oklab(np.clip(EYES[eye] @ linear_rgb(color), 0, 1)) for color in colors]
    for a, b in itertools.combinations(seen, 2):
        assert np.linalg.norm(a - b) > 0.065


# --- what is handed over -------------------------------------------------------------------------


def test_a_course_copies_and_fills_up():
    loss = np.array([0.5, np.inf, 0.4])
    run = figures.Course("x", 10, steps=[1, 2, 3], loss=loss, looks=[0], dev=[80.0])
    loss[:] = 0
    np.testing.assert_array_equal(run.loss, [0.5, NAN, 0.4])  # not finite is missing
    np.testing.assert_array_equal(run.gradient_norm, [NAN] * 3)
    np.testing.assert_array_equal(run.alignment, [NAN])
    assert run.layer_weights is None and run.best is None
    assert figures.Course("x", 10, untouched=NAN).untouched is None


def test_looks_without_weights_are_missing():
    run = figures.Course("x", 10, looks=[0, 5], layer_weights=[None, [0.2, 0.8]])
    np.testing.assert_array_equal(run.layer_weights, [[NAN, NAN], [0.2, 0.8]])
    assert figures.Course("x", 10, looks=[0, 5], layer_weights=[None, None]).layer_weights is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(total=0), "total is 0; a run has 1 planned step or more"),
        (dict(steps=[1, 1], loss=[1, 1]), "steps of 'x' do not ascend from 0 on"),
        (dict(looks=[-1, 0]), "looks of 'x' do not ascend from 0 on"),
        (dict(steps=[1, 2], loss=[0.1]), r"loss of 'x' has shape \(1,\); expected \(2,\) as steps"),
        (dict(looks=[0], dev=[1, 2]), r"dev of 'x' has shape \(2,\); expected \(1,\) as looks"),
        (dict(looks=[0], dev=[120.0]), "dev are scores from -100 to 100, got 120"),
        (dict(looks=[0, 50], best=20), "best of 'x' is step 20, at which there was no look"),
        (
            dict(looks=[0, 50], layer_weights=[[0.5, 0.5]]),
            r"layer_weights of 'x' has 1 rows of shape \(2,\); expected 2 rows as looks",
        ),
        (
            dict(looks=[0, 50], layer_weights=[[0.5, 0.5], [1.0]]),
            r"layer_weights of 'x' has 2 rows of shape \(1,\), \(2,\)",
        ),
    ],
)
def test_a_course_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        figures.Course(**{"name": "x", "total": 100} | changes)


@pytest.mark.parametrize("name", OF_RUNS)
def test_one_to_six_runs(name):
    with pytest.raises(ValueError, match="runs is empty; expected 1 to 6 runs"):
        draw(name, runs=[])
    with pytest.raises(ValueError, match="runs has 7 runs; at most 6 can be told apart"):
        draw(name, runs=[begun()] * 7)
    one = a_run()
    assert getattr(figures, name)(one) == getattr(figures, name)([one])


# --- thinning and smoothing ----------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 4096, 100_000])
def test_thinned_lines_keep_every_extreme(count):
    values = np.random.default_rng(count).normal(size=count)
    kept = _kept(values, 1000)
    assert len(kept) <= 1000 and (np.diff(kept) > 0).all()
    if count <= 1000:
        assert len(kept) == count
        return
    assert len(kept) > 450
    assert kept[-1] == count - 1
    size = 2
    while -(-count // size) > 499:
        size *= 2
    for start in range(0, count, size):
        part = values[start : start + size]
        inside = values[kept[(kept >= start) & (kept < start + size)]]
        assert inside.min() == part.min() and inside.max() == part.max()


def test_a_line_that_grows_keeps_its_points():
    values = np.random.default_rng(0).normal(size=6000)
    before, after = _kept(values[:5000], 1000), _kept(values, 1000)
    whole = 5000 // 16 * 16  # the last bin was not full
    np.testing.assert_array_equal(before[before < whole], after[after < whole])


def test_a_stretch_without_numbers_stays_a_gap():
    values = np.ones(10_000)
    values[4000:4500] = NAN
    kept = _kept(values, 1000)
    assert np.isnan(values[kept]).any()
    assert np.isfinite(values[kept[kept < 4000]]).all()


@pytest.mark.parametrize("span", [1, 6.0, 40])
def test_smoothed_is_the_moving_average_of_pandas(span):
    values = np.random.default_rng(1).normal(size=300)
    values[[0, 50, 51, 299]] = NAN
    expected = (
        pd.Series(values).ewm(span=span, adjust=True, ignore_na=False).mean().to_numpy(copy=True)
    )
    expected[np.isnan(values)] = NAN
    np.testing.assert_allclose(_smoothed(values, span), expected)
    assert _smoothed(np.zeros(0), span).shape == (0,)


def test_a_spike_is_not_in_the_average():
    values = np.full(50, 0.4)
    values[20] = 9.0
    np.testing.assert_allclose(_smoothed(values, 10, limit=1.0), 0.4)


def test_limit_is_for_spikes_alone():
    values = 0.4 + np.random.default_rng(0).normal(0, 0.03, 300)
    assert _limit(values) == np.inf
    assert _limit(np.append(values, 9.0)) < 2
    assert _limit(3 * np.exp(-np.arange(300) / 60)) == np.inf  # a loss that falls is no spike
    assert _limit(np.append(values[:10], 9.0)) == np.inf  # too few to know
    assert _limit(np.full(50, NAN)) == _limit(np.zeros(0)) == np.inf


# --- course --------------------------------------------------------------------------------------

AXES = {"loss": "y", "dev": "y2", "alignment": "y3", "uniformity": "y4", "speed": "y5"}


def lines(figure: go.Figure, axis: str, run: int = 0) -> list:
    """The lines and marks of a run in a chart."""
    return [t for t in figure.data if (t.yaxis, t.legendgroup) == (axis, f"run {run}")]


def test_charts_show_the_numbers():
    run = a_run()
    figure = figures.course(run)
    raw, smooth, best = lines(figure, AXES["loss"])
    np.testing.assert_allclose(raw.x, np.arange(1, TOTAL + 1))
    np.testing.assert_allclose(raw.y, run.loss, rtol=1e-6)
    np.testing.assert_allclose(smooth.y, _smoothed(run.loss, TOTAL / 50), rtol=1e-6)
    assert raw.line.color == "rgba(15, 118, 110, 0.35)" and raw.line.width < smooth.line.width
    assert smooth.line.color == figures.ACCENT["light"]
    assert best.x == (200,) and best.y[0] == pytest.approx(smooth.y[199], rel=1e-6)
    for field in ("dev", "alignment", "uniformity"):
        line, best = lines(figure, AXES[field])
        np.testing.assert_array_equal(line.x, run.looks)
        np.testing.assert_allclose(line.y, getattr(run, field), rtol=1e-6)
        assert line.mode == "lines+markers"
        assert best.y[0] == pytest.approx(getattr(run, field)[4])
        assert best.marker.symbol == "diamond"
    raw, *_ = lines(figure, AXES["speed"])
    np.testing.assert_allclose(raw.y, run.sentences_per_second, rtol=1e-6)


def test_every_axis_shows_all_its_numbers_and_throughput_is_from_zero():
    run = a_run()
    layout = figures.course(run).layout
    for field, axis in AXES.items():
        values = run.sentences_per_second if field == "speed" else getattr(run, field)
        low, high = layout[f"yaxis{axis[1:]}"].range
        assert low < values.min() and values.max() < high
    assert layout.yaxis5.range[0] == 0
    low, high = layout.yaxis2.range
    assert low < 85.92  # the untouched encoder's score


def test_small_movements_are_not_made_large():
    run = a_run(dev=np.full(7, 85.9), alignment=np.full(7, 0.35), uniformity=np.full(7, -3.6))
    layout = figures.course(run).layout
    for axis, least in ((layout.yaxis2, 1.0), (layout.yaxis3, 0.02), (layout.yaxis4, 0.1)):
        assert np.ptp(axis.range) == pytest.approx(least, rel=0.1)


@pytest.mark.parametrize("name", ["course", "optimisation", "weights_over_time"])
@pytest.mark.parametrize("done", [0, 1, 120, TOTAL])
def test_the_axis_of_steps_is_the_planned_ones_from_the_start(name, done):
    figure = draw(name, runs=[a_run(done=done)])
    for axis in figure.select_xaxes():
        assert list(axis.range) == [-0.02 * TOTAL, 1.02 * TOTAL]


def test_the_axis_of_steps_has_room_for_the_longest_run():
    figure = figures.course([a_run(), a_run("long", total=1000), a_run("more", done=1200)])
    assert figure.layout.xaxis.range[1] == pytest.approx(1.02 * 1200)
    assert figure.layout.xaxis2.matches == "x"
    assert figures.course(figures.Course("x", 3)).layout.xaxis.dtick == 1  # not step 0.5
    assert figures.course(figures.Course("x", 50_000)).layout.xaxis.tickformat == "~s"


def test_the_untouched_encoder_is_dashed():
    figure = figures.course(a_run())
    (line,) = [t for t in figure.data if t.name == "untouched encoder"]
    assert line.line.dash == "dash" and line.yaxis == "y2"
    assert list(line.x) == [0, TOTAL] and list(line.y) == [85.92, 85.92]
    assert "untouched encoder 85.92" in [t.name for t in figure.data if t.showlegend]
    assert not [t for t in figures.course(a_run(untouched=None)).data if "untouched" in t.name]
    both = figures.course([a_run(), a_run("b"), a_run("c", untouched=84.0)])
    levels = [t.y[0] for t in both.data if t.name == "untouched encoder"]
    assert levels == [85.92, 84.0]


def test_the_best_step_is_marked_in_every_chart():
    figure = figures.course(a_run())
    marks = [t for t in figure.data if t.marker.symbol == "diamond" and t.x[0] is not None]
    assert {t.yaxis for t in marks} == set(AXES.values()) and {t.x[0] for t in marks} == {200}
    assert {line.yref for line in shapes(figure, "best")} == {f"{a} domain" for a in AXES.values()}
    assert {(line.x0, line.x1) for line in shapes(figure, "best")} == {(200, 200)}
    none = figures.course(a_run(best=None))
    assert not shapes(none, "best")
    assert not [t for t in none.data if t.marker.symbol == "diamond"]
    several = figures.course([a_run("aa"), a_run("b", done=120)])
    assert not shapes(several, "best")  # lines of several would hide the charts
    assert [t.x[0] for t in lines(several, "y2", 1) if t.marker.symbol == "diamond"][-1] == 0


def test_headers_say_the_latest_numbers_of_one_run():
    run = a_run()
    said = " ".join(texts(figures.course(run, dev_title="accuracy in %")))
    assert "Dev: accuracy in % ↑" in said and "Loss ↓" in said
    assert f"best {run.dev[4]:.2f} at step 200" in said
    assert f"{_smoothed(run.loss, 6)[-1]:.4f}, smoothed" in said
    assert f"{_smoothed(run.sentences_per_second, 6)[-1]:,.0f} sentences a second" in said
    assert f"{run.alignment[-1]:.3f}" in said
    assert f"−{-run.uniformity[-1]:.3f}" in said
    several = " ".join(texts(figures.course([run, a_run("b")])))
    assert "bold: smoothed" in several and "◆ best, dashed: untouched" in several
    assert "at step" not in several


def test_steps_without_a_loss_are_gaps_and_said():
    loss = np.linspace(0.5, 0.3, TOTAL)
    loss[[100, 101]] = NAN, np.inf
    figure = figures.course(a_run(loss=loss))
    raw, smooth, _ = lines(figure, "y")
    assert list(np.flatnonzero(np.isnan(raw.y))) == list(np.flatnonzero(np.isnan(smooth.y)))
    assert list(np.flatnonzero(np.isnan(raw.y))) == [100, 101]
    assert "no number at 2 steps" in " ".join(texts(figure))
    parse(figure)


def test_a_spike_is_a_triangle_at_the_edge_with_its_number():
    loss = a_run().loss
    loss[150] = 30.0
    figure = figures.course(a_run(loss=loss))
    raw, smooth, spike, _ = lines(figure, "y")
    assert raw.y.max() == 30  # not hidden
    assert list(spike.x) == [151] and list(spike.customdata) == [30.0]
    assert spike.marker.symbol == "triangle-up" and not spike.cliponaxis
    low, high = figure.layout.yaxis.range
    assert low < spike.y[0] < high < 1
    assert smooth.y.max() < 0.7


def test_runs_are_in_their_colour_and_in_the_legend_once():
    figure = figures.course([a_run("head"), a_run("a very long name of a run, indeed so long")])
    entries = [t for t in figure.data if t.showlegend]
    assert [t.name for t in entries] == ["head", "a very long name of a run, in…"]
    assert [t.legendgroup for t in entries] == ["run 0", "run 1"]
    for index, color in enumerate(CATEGORIES["light"][:2]):
        dev, best = lines(figure, "y2", index)
        assert dev.line.color == best.marker.color == color
    order = [t.line.width for t in figure.data if t.yaxis == "y" and t.mode == "lines"]
    assert order == [1, 1, 2, 2]  # no faint line covers a bold one


@pytest.mark.parametrize("name", OF_RUNS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_run_that_has_not_begun_is_drawn_calmly(name, theme):
    for run in (nothing_yet(), begun(), figures.Course("x", 1, looks=[0], dev=[NAN])):
        figure = draw(name, theme, [run])
        said = " ".join(texts(figure))
        assert "no step yet" in said or "no look yet" in said or name == "plane_path"
        for axis in [*figure.select_xaxes(), *figure.select_yaxes()]:
            assert np.isfinite(axis.range).all() and np.ptp(axis.range) > 0
        parse(figure)
    empty = figures.course(nothing_yet())
    assert sum("no step yet" in text for text in texts(empty)) == 2
    assert sum("no look yet" in text for text in texts(empty)) == 3
    assert not any(axis.showticklabels for axis in empty.select_yaxes())
    assert "no number" in " ".join(texts(figures.course(a_run(alignment=[NAN] * 7))))


def test_one_step_and_one_look_are_seen():
    figure = figures.course(a_run(done=1))
    _, loss = lines(figure, "y")
    assert loss.mode == "lines+markers" and len(loss.x) == 1
    dev, best = lines(figure, "y2")
    assert list(dev.x) == [0] and best.x == (0,)


def test_a_run_of_100000_steps_is_light():
    run = a_run(done=100_000, total=100_000, every=100)
    figure = figures.course(run)
    assert max(len(t.x) for t in figure.data) <= 1000
    assert len(figure.to_json()) < 70_000
    raw = lines(figure, "y")[0]
    assert raw.y.max() == np.float32(run.loss.max()) and raw.y.min() == np.float32(run.loss.min())
    assert all(t.hovertext is None for t in figure.data)
    encoded = parse(figure)["data"][-1]["y"]
    assert isinstance(encoded, list) or base64.b64decode(encoded["bdata"])
    assert {t.y.dtype for t in figure.data if isinstance(t.y, np.ndarray)} == {np.dtype("float32")}


def test_optimisation_shows_gradient_norm_and_learning_rate():
    run = a_run()
    figure = figures.optimisation(run)
    raw, smooth, _ = lines(figure, "y")
    np.testing.assert_allclose(raw.y, run.gradient_norm, rtol=1e-6)
    np.testing.assert_allclose(smooth.y, _smoothed(run.gradient_norm, 6), rtol=1e-6)
    rate, best = lines(figure, "y2")  # neither faint nor smoothed
    np.testing.assert_allclose(rate.y, run.learning_rate, rtol=1e-6)
    assert best.x == (200,)
    assert figure.layout.yaxis2.range[0] == 0 and figure.layout.yaxis2.side == "right"
    assert not [t for t in figure.data if "untouched" in t.name]


def test_charts_do_not_overlap():
    figure = figures.course(a_run())
    left, right = figure.layout.xaxis.domain, figure.layout.xaxis2.domain
    assert left[1] < right[0]
    for axes in (["yaxis", "yaxis3", "yaxis4"], ["yaxis2", "yaxis5"]):
        domains = [figure.layout[axis].domain for axis in axes]
        for (above, _), (_, below) in itertools.pairwise(domains):
            assert below < above
    assert figure.layout.yaxis4.domain[0] == figure.layout.yaxis5.domain[0] == 0


# --- layer weights over time ---------------------------------------------------------------------


def test_weights_over_time_are_rows_of_states_with_embeddings_on_top():
    run = a_run()
    figure = figures.weights_over_time(run)
    (heatmap,) = traces(figure, "heatmap")
    np.testing.assert_allclose(heatmap.z, run.layer_weights.T, rtol=1e-6)
    np.testing.assert_array_equal(heatmap.customdata[3], run.looks)
    axis = figure.layout.yaxis
    assert axis.ticktext == ("embeddings", *(f"layer {layer}" for layer in range(1, S)))
    assert tuple(axis.range) == (S - 0.5, -0.5)
    assert heatmap.colorscale[0][1] == "#00224e"  # cividis
    assert heatmap.zmin == 0 and heatmap.zmax == pytest.approx(0.7)
    assert figures.weights_over_time(run, zmax=0.9).data[0].zmax == 0.9


def test_columns_are_true_to_scale_when_looks_are_uneven():
    looks = np.array([0.0, 10, 20, 100, 300])
    np.testing.assert_array_equal(_edges(looks, -6, 306), [-5, 5, 15, 60, 200, 306])
    run = figures.Course("x", 300, looks=looks, layer_weights=np.full((5, 2), 0.5))
    (heatmap,) = traces(figures.weights_over_time(run), "heatmap")
    np.testing.assert_array_equal(heatmap.x, [-5, 5, 15, 60, 200, 306])
    lone = _edges(np.array([0.0]), -6, 306)
    assert lone[0] == -6 and 0 < lone[1] < 15


def test_the_best_look_is_marked_above_its_column():
    figure = figures.weights_over_time(a_run())
    assert {(line.x0, line.x1) for line in shapes(figure, "best")} == {(200, 200)}
    (mark,) = [a for a in figure.layout.annotations if a.text == "▼"]
    assert (mark.x, mark.y, mark.yref) == (200, 1, "y domain")
    assert "▼ best step, 200" in " ".join(texts(figure))
    assert not shapes(figures.weights_over_time(a_run(best=None)), "best")


def test_many_looks_are_thinned_but_not_the_best_one():
    looks = np.arange(0, 10_001, 10)
    weights = np.full((len(looks), 25), 0.04)
    run = figures.Course("x", 10_000, looks=looks, layer_weights=weights, best=3330)
    (heatmap,) = traces(figures.weights_over_time(run), "heatmap")
    shown = list(heatmap.customdata[0])
    assert heatmap.z.shape == (25, len(shown)) and len(shown) <= 400
    assert shown[0] == 0 and shown[-1] == 10_000 and 3330 in shown
    assert len(heatmap.x) == len(shown) + 1


def test_weights_before_the_first_look():
    run = figures.Course("x", 100, layer_weights=np.zeros((0, 13)))
    figure = figures.weights_over_time(run)
    assert "no look yet" in " ".join(texts(figure)) and not figure.data
    assert len(figure.layout.yaxis.ticktext) == 13
    unknown = figures.weights_over_time(figures.Course("x", 100, layer_weights=[]))
    assert "no look yet" in " ".join(texts(unknown))
    parse(unknown)
    first = figures.weights_over_time(begun())
    np.testing.assert_allclose(first.data[0].z, np.full((S, 1), 1 / S), rtol=1e-6)


def test_weights_that_are_none_are_refused():
    with pytest.raises(ValueError, match="'head' has no layer weights; its pooling"):
        figures.weights_over_time(a_run(layer_weights=None))
    with pytest.raises(ValueError, match="layer_weights are weights from -1e-06 to 1"):
        figures.weights_over_time(a_run(layer_weights=np.full((7, S), 2.0)))
    with pytest.raises(ValueError, match="zmax must be a number above 0, got 0"):
        figures.weights_over_time(a_run(), zmax=0)


# --- the path in the plane -----------------------------------------------------------------------


def test_the_path_has_a_hollow_start_a_head_and_the_best_look():
    run = a_run()
    figure = figures.plane_path(run)
    path, head, best = figure.data
    np.testing.assert_allclose(path.x, run.uniformity, rtol=1e-6)
    np.testing.assert_allclose(path.y, run.alignment, rtol=1e-6)
    np.testing.assert_array_equal(path.customdata, [[0, step] for step in run.looks])
    assert path.marker.color[0] == figures.BACKGROUND["light"]  # hollow
    assert path.marker.line.width[0] == 2 and set(path.marker.line.width[1:]) == {0}
    assert set(path.marker.color[1:]) == {figures.ACCENT["light"]}
    assert head.marker.symbol == "arrow" and head.marker.angleref == "previous"
    assert head.x[-1] == path.x[-1] and head.marker.size == (0, 15)
    assert best.marker.symbol == "diamond" and best.x[0] == path.x[4]
    labels = {a.text: (a.x, a.y) for a in figure.layout.annotations if a.showarrow}
    assert set(labels) == {"step 0", "step 300", "best, step 200"}
    assert labels["best, step 200"] == (run.uniformity[4], run.alignment[4])
    assert "Better towards the lower left ↙" in texts(figure)[-1]


def test_the_plane_is_that_of_the_other_figure():
    other = figures.alignment_uniformity([0.3, 0.35], [-3.6, -3.8], ["lwap", "mean"])
    figure = figures.plane_path(a_run())
    for axis in ("xaxis", "yaxis"):
        assert figure.layout[axis].title == other.layout[axis].title
        assert "lower is better" in figure.layout[axis].title.text
    run = a_run()
    (left, right), (low, high) = figure.layout.xaxis.range, figure.layout.yaxis.range
    assert left < run.uniformity.min() and run.uniformity.max() < right
    assert low < run.alignment.min() and run.alignment.max() < high


def test_paths_of_several_runs_are_named_at_their_ends():
    runs = [a_run("head"), a_run(HOSTILE, uniformity=a_run().uniformity - 0.1)]
    figure = figures.plane_path(runs)
    labels = [a for a in figure.layout.annotations if a.showarrow]
    for label, run, color in zip(labels, runs, CATEGORIES["light"], strict=False):
        assert (label.x, label.y) == (run.uniformity[-1], run.alignment[-1])
        assert color in label.text
    assert "head" in labels[0].text and "&lt;b&gt;" in labels[1].text
    assert {t.customdata[0][0] for t in figure.data} == {0, 1}


def test_a_look_without_both_numbers_is_left_out():
    alignment = a_run().alignment
    alignment[[0, 4]] = NAN
    figure = figures.plane_path(a_run(alignment=alignment))
    assert [step for _, step in figure.data[0].customdata] == [50, 100, 150, 250, 300]
    assert len(figure.data) == 2  # the best look has no place
    assert "◆" not in texts(figure)[-1]


def test_a_path_of_one_look_is_a_hollow_mark():
    figure = figures.plane_path(begun(best=None))
    (path,) = figure.data
    assert len(path.x) == 1 and path.marker.color == (figures.BACKGROUND["light"],)
    assert "no look yet" in " ".join(texts(figures.plane_path(nothing_yet())))


# --- before and after ----------------------------------------------------------------------------


def test_weights_before_and_after_and_their_difference():
    before, after = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])
    figure = figures.weights_before_after({"untrained": before, "trained": after})
    first, second, difference = traces(figure, "bar")
    np.testing.assert_allclose(first.y, before)
    np.testing.assert_allclose(second.y, after)
    np.testing.assert_allclose(difference.y, after - before)
    assert list(difference.text) == ["−0.40", "±0.00", "+0.40"]
    palette = palette_of("light")
    assert difference.marker.color[0] == palette.negative
    assert difference.marker.color[2] == palette.positive
    assert (first.name, second.name) == ("untrained", "trained")
    assert second.marker.color == figures.ACCENT["light"] != first.marker.color
    assert figure.layout.barmode == "group"
    assert figure.layout.xaxis2.ticktext == ("emb", "1", "2")
    assert figure.layout.xaxis.matches == "x2"
    assert "trained − untrained" in " ".join(texts(figure))
    (line,) = shapes(figure, "uniform")
    assert line.y0 == pytest.approx(1 / 3)


def test_before_may_be_absent_and_there_may_be_more():
    after = [0.2, 0.8]
    for weights in ({"before": None, "after": after}, {"after": after}):
        (bars,) = traces(figures.weights_before_after(weights), "bar")
        np.testing.assert_allclose(bars.y, after)
        assert bars.marker.color == figures.ACCENT["light"]
    rows = {"a": [0.5, 0.5], "b": [0.4, 0.6], "c": [0.3, 0.7], "d": after}
    figure = figures.weights_before_after(rows)
    *bars, difference = traces(figure, "bar")
    assert [bar.name for bar in bars] == list("abcd")
    assert len({bar.marker.color for bar in bars}) == 4
    np.testing.assert_allclose(difference.y, [-0.3, 0.3])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "weights has 0 states of a model; expected 1 to 4"),
        ({"a": None}, "weights has 0 states of a model; expected 1 to 4"),
        ({key: [1.0] for key in "abcde"}, "weights has 5 states of a model"),
        ({"a": [1.0], "b": [0.5, 0.5]}, r"weights\['b'\] has shape \(2,\); .*S = 1"),
        ({"a": [NAN]}, r"weights\['a'\] has values that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        figures.weights_before_after(weights)


# --- pairs ---------------------------------------------------------------------------------------

BEFORE, AFTER = [0.3, 0.80, 0.5, 0.6, 0.2], [0.1, 0.82, NAN, 0.3, 0.35]
PAIRS = [f"first {index} ↔ second {index}" for index in range(5)]


def test_pairs_are_sorted_by_how_far_they_moved():
    figure = figures.moved_pairs(BEFORE, AFTER, PAIRS, gold=[0.0, NAN, 0.5, 0.2, 0.4])
    before, after, gold = (named(figure, name) for name in ("before", "after", "gold"))
    assert [index for (index,) in after.customdata] == [3, 0, 4, 1]
    np.testing.assert_allclose(before.x, [0.6, 0.3, 0.2, 0.80])
    np.testing.assert_allclose(after.x, [0.3, 0.1, 0.35, 0.82])
    np.testing.assert_allclose(gold.x, [0.2, 0.0, 0.4, NAN])
    assert figure.layout.yaxis.ticktext[0] == PAIRS[3]
    assert tuple(figure.layout.yaxis.range) == (3.5, -0.5)  # the first on top
    movement = named(figure, "movement")
    assert list(movement.text) == ["−0.300", "−0.200", "+0.150", "+0.020"]
    low, high = figure.layout.xaxis.range
    assert low < 0 and high > 0.82


def test_a_pair_is_a_dumbbell_in_the_colour_of_its_direction():
    figure = figures.moved_pairs(BEFORE, AFTER, PAIRS)
    fell, rose = named(figure, "fell"), named(figure, "rose")
    np.testing.assert_allclose(fell.x[:2], [0.6, 0.3])
    assert list(fell.y[:2]) == [0, 0] and np.isnan(fell.x[2])
    np.testing.assert_allclose(rose.x[:2], [0.2, 0.35])
    palette = palette_of("light")
    assert (fell.line.color, rose.line.color) == (palette.negative, palette.positive)
    after = named(figure, "after")
    assert after.marker.color == (palette.negative,) * 2 + (palette.positive,) * 2
    assert named(figure, "before").marker.color == figures.BACKGROUND["light"]  # hollow
    assert "gold" not in {trace.name for trace in figure.data}
    parse(figure)


def test_the_hover_has_both_whole_sentences_and_all_scores():
    long = " ".join(f"word{index}" for index in range(30))
    figure = figures.moved_pairs([0.3], [0.1], [f"{long} ↔ {HOSTILE}"], gold=[0.05])
    (hover,) = named(figure, "after").hovertext
    assert long in hover.replace("<br>", " ")
    assert "&lt;b&gt;bold&lt;/b&gt;" in hover
    for said in ("before: <b>0.300</b>", "after: <b>0.100</b>", "gold: <b>0.050</b>", "−0.200"):
        assert said in hover
    assert len(figure.layout.yaxis.ticktext[0]) < 120 < len(hover)


def test_pairs_have_other_names_formats_and_a_limit():
    figure = figures.moved_pairs(
        [10.0, 20.0],
        [15.0, 90.0],
        PAIRS[:2],
        most=1,
        x_title="percentile",
        value_format=".1f",
        names=("untouched", "trained"),
    )
    assert named(figure, "trained").x == (90.0,)
    assert list(named(figure, "movement").text) == ["+70.0"]
    assert figure.layout.xaxis.title.text == "percentile"
    assert "○ untouched → ● trained" in " ".join(texts(figure))


@pytest.mark.parametrize("scores", [[], [NAN, NAN]])
def test_no_pair_that_moved_is_said(scores):
    figure = figures.moved_pairs(scores, scores, PAIRS[: len(scores)])
    assert "no pair has both scores" in " ".join(texts(figure))
    parse(figure)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(after=[0.1]), r"after has shape \(1,\); .*P = 5 as in before"),
        (dict(labels=PAIRS[:2]), "labels has 2 entries; expected 5"),
        (dict(gold=[0.1]), r"gold has shape \(1,\)"),
        (dict(after=[np.inf] * 5), "after has infinite values; use NaN"),
        (dict(most=0), "most must be 1 or more, got 0"),
        (dict(names=("before",)), "names has 1 entries; expected 2"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(changes, message):
    arguments = dict(before=BEFORE, after=AFTER, labels=PAIRS) | changes
    with pytest.raises(ValueError, match=message):
        figures.moved_pairs(**arguments)
