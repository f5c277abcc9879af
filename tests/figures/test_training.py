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
from lwap.figures.series import extremes, smoothed, spike_limit
from lwap.figures.style import ACCENT, BACKGROUND, CATEGORIES
from tests.figures.reading import EVERY_FIGURE, HOSTILE, drawn, named, parse, shapes, texts, traces
from tests.figures.test_figures import EYES, contrast, linear_rgb, oklab

NAN = float("nan")
TOTAL, EVERY, S = 300, 50, 7


def a_run(
    name: str = "head", done: int = TOTAL, total: int = TOTAL, every: int = EVERY, **changes: Any
) -> figures.RunCurves:
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
        dev_steps=looks,
        dev=85.9 + way + np.where(looks == 4 * every, 0.3, 0.0),
        alignment=0.35 - 0.02 * way,
        uniformity=-3.6 - 0.2 * way,
        layer_weights=[(1 - share) / S + share * trained for share in way],
        best=4 * every if done >= 4 * every else 0,
        untouched=85.92,
    )
    return figures.RunCurves(name, total, **arguments | changes)


def begun(**changes: Any) -> figures.RunCurves:
    """A run with no step done and one look, at the untrained model."""
    return a_run(done=0, **changes)


def nothing_yet() -> figures.RunCurves:
    return figures.RunCurves("new", TOTAL)


def draw(name: str, theme: str = "light", runs: Any = None) -> go.Figure:
    """Call a figure by name."""
    runs = [a_run(HOSTILE)] if runs is None else runs
    calls = {
        "training_curves": lambda: figures.training_curves(runs, dev_title=HOSTILE, theme=theme),
        "optimisation_curves": lambda: figures.optimisation_curves(runs, theme=theme),
        "alignment_uniformity_path": lambda: figures.alignment_uniformity_path(runs, theme=theme),
        "weights_over_time": lambda: figures.weights_over_time(runs[0], theme=theme),
    }
    return calls[name]()


OF_RUNS = ("training_curves", "optimisation_curves", "alignment_uniformity_path")
FIGURES = (*OF_RUNS, "weights_over_time")


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
    figure = figures.training_curves(runs, theme=theme)
    lines = [named(figure, run.name) for run in runs]
    colors = [line.line.color for line in lines]
    assert colors == list(CATEGORIES[theme][: len(runs)])
    assert len({line.marker.symbol for line in lines}) == len(runs)
    assert all(contrast(color, BACKGROUND[theme]) >= 3 for color in colors)
    seen = [oklab(np.clip(EYES[eye] @ linear_rgb(color), 0, 1)) for color in colors]
    for a, b in itertools.combinations(seen, 2):
        assert np.linalg.norm(a - b) > 0.065


# --- what is handed over -------------------------------------------------------------------------


def test_a_course_copies_and_fills_up():
    loss = np.array([0.5, np.inf, 0.4])
    run = figures.RunCurves("x", 10, steps=[1, 2, 3], loss=loss, dev_steps=[0], dev=[80.0])
    loss[:] = 0
    np.testing.assert_array_equal(run.loss, [0.5, NAN, 0.4])  # not finite is missing
    np.testing.assert_array_equal(run.gradient_norm, [NAN] * 3)
    np.testing.assert_array_equal(run.alignment, [NAN])
    assert run.layer_weights is None and run.best is None
    assert figures.RunCurves("x", 10, untouched=NAN).untouched is None


def test_looks_without_weights_are_missing():
    run = figures.RunCurves("x", 10, dev_steps=[0, 5], layer_weights=[None, [0.2, 0.8]])
    np.testing.assert_array_equal(run.layer_weights, [[NAN, NAN], [0.2, 0.8]])
    assert (
        figures.RunCurves("x", 10, dev_steps=[0, 5], layer_weights=[None, None]).layer_weights
        is None
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(total=0), "total is 0; a run has 1 planned step or more"),
        (dict(steps=[1, 1], loss=[1, 1]), "steps of 'x' do not ascend from 0 on"),
        (dict(dev_steps=[-1, 0]), "dev_steps of 'x' do not ascend from 0 on"),
        (dict(steps=[1, 2], loss=[0.1]), r"loss of 'x' has shape \(1,\); .*N = 2 as in steps"),
        (dict(dev_steps=[0], dev=[1, 2]), r"dev of 'x' has shape \(2,\); .*N = 1 as in dev_steps"),
        (dict(dev_steps=[0], dev=[120.0]), "dev are scores from -100 to 100, got 120"),
        (
            dict(dev_steps=[0, 50], best=20),
            "best of 'x' is step 20, after which it was not evaluated",
        ),
        (
            dict(dev_steps=[0, 50], layer_weights=[[0.5, 0.5]]),
            r"layer_weights of 'x' has 1 rows of \[2\] states; expected 2 rows as dev_steps",
        ),
        (
            dict(dev_steps=[0, 50], layer_weights=[[0.5, 0.5], [1.0]]),
            r"layer_weights of 'x' has 2 rows of \[1, 2\] states",
        ),
    ],
)
def test_a_course_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        figures.RunCurves(**{"name": "x", "total": 100} | changes)


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
    kept = extremes(values, 1000)
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
    before, after = extremes(values[:5000], 1000), extremes(values, 1000)
    whole = 5000 // 16 * 16  # the last bin was not full
    np.testing.assert_array_equal(before[before < whole], after[after < whole])


def test_a_stretch_without_numbers_stays_a_gap():
    values = np.ones(10_000)
    values[4000:4500] = NAN
    kept = extremes(values, 1000)
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
    np.testing.assert_allclose(smoothed(values, span), expected)
    assert smoothed(np.zeros(0), span).shape == (0,)


def test_a_spike_is_not_in_the_average():
    values = np.full(50, 0.4)
    values[20] = 9.0
    np.testing.assert_allclose(smoothed(values, 10, limit=1.0), 0.4)


def test_limit_is_for_spikes_alone():
    values = 0.4 + np.random.default_rng(0).normal(0, 0.03, 300)
    assert spike_limit(values) == np.inf
    assert spike_limit(np.append(values, 9.0)) < 2
    assert spike_limit(3 * np.exp(-np.arange(300) / 60)) == np.inf  # a loss that falls is no spike
    assert spike_limit(np.append(values[:10], 9.0)) == np.inf  # too few to know
    assert spike_limit(np.full(50, NAN)) == spike_limit(np.zeros(0)) == np.inf


# --- course --------------------------------------------------------------------------------------

AXES = {"loss": "y", "dev": "y2", "alignment": "y3", "uniformity": "y4", "speed": "y5"}


def lines(figure: go.Figure, axis: str, run: int = 0) -> list:
    """The lines and marks of a run in a chart."""
    own = (axis, f"run {run}", False)  # no entry of the legend
    return [t for t in figure.data if (t.yaxis, t.legendgroup, t.showlegend) == own]


def test_charts_show_the_numbers():
    run = a_run()
    figure = figures.training_curves(run)
    raw, smooth, best = lines(figure, AXES["loss"])
    np.testing.assert_allclose(raw.x, np.arange(1, TOTAL + 1))
    np.testing.assert_allclose(raw.y, run.loss, rtol=1e-6)
    np.testing.assert_allclose(smooth.y, smoothed(run.loss, TOTAL / 50), rtol=1e-6)
    assert raw.line.color == "rgba(15, 118, 110, 0.35)" and raw.line.width < smooth.line.width
    assert smooth.line.color == ACCENT["light"]
    assert best.x == (200,) and best.y[0] == pytest.approx(smooth.y[199], rel=1e-6)
    for field in ("dev", "alignment", "uniformity"):
        line, best = lines(figure, AXES[field])
        np.testing.assert_array_equal(line.x, run.dev_steps)
        np.testing.assert_allclose(line.y, getattr(run, field), rtol=1e-6)
        assert line.mode == "lines+markers"
        assert best.y[0] == pytest.approx(getattr(run, field)[4])
        assert best.marker.symbol == "diamond"
    raw, *_ = lines(figure, AXES["speed"])
    np.testing.assert_allclose(raw.y, run.sentences_per_second, rtol=1e-6)


def test_every_axis_shows_all_its_numbers_and_throughput_is_from_zero():
    run = a_run()
    layout = figures.training_curves(run).layout
    for field, axis in AXES.items():
        values = run.sentences_per_second if field == "speed" else getattr(run, field)
        low, high = layout[f"yaxis{axis[1:]}"].range
        assert low < values.min() and values.max() < high
    assert layout.yaxis5.range[0] == 0
    low, high = layout.yaxis2.range
    assert low < 85.92  # the untouched encoder's score


def test_small_movements_are_not_made_large():
    run = a_run(dev=np.full(7, 85.9), alignment=np.full(7, 0.35), uniformity=np.full(7, -3.6))
    layout = figures.training_curves(run).layout
    for axis, least in ((layout.yaxis2, 1.0), (layout.yaxis3, 0.02), (layout.yaxis4, 0.1)):
        assert np.ptp(axis.range) == pytest.approx(least, rel=0.1)


@pytest.mark.parametrize("name", ["training_curves", "optimisation_curves", "weights_over_time"])
@pytest.mark.parametrize("done", [0, 1, 120, TOTAL])
def test_the_axis_of_steps_is_the_planned_ones_from_the_start(name, done):
    figure = draw(name, runs=[a_run(done=done)])
    for axis in figure.select_xaxes():
        assert list(axis.range) == [-0.02 * TOTAL, 1.02 * TOTAL]


def test_the_axis_of_steps_has_room_for_the_longest_run():
    figure = figures.training_curves([a_run(), a_run("long", total=1000), a_run("more", done=1200)])
    assert figure.layout.xaxis.range[1] == pytest.approx(1.02 * 1200)
    assert {axis.matches for axis in figure.select_xaxes()} == {None, "x"}
    assert (
        figures.training_curves(figures.RunCurves("x", 3)).layout.xaxis.dtick == 1
    )  # not step 0.5
    assert figures.training_curves(figures.RunCurves("x", 50_000)).layout.xaxis.tickformat == "~s"


def test_the_untouched_encoder_is_dashed():
    figure = figures.training_curves(a_run())
    (line,) = [t for t in figure.data if t.name == "untouched encoder"]
    assert line.line.dash == "dash" and line.yaxis == "y2"
    assert list(line.x) == [0, TOTAL] and list(line.y) == [85.92, 85.92]
    assert "untouched encoder 85.92" in [t.name for t in figure.data if t.showlegend]
    assert not [
        t for t in figures.training_curves(a_run(untouched=None)).data if "untouched" in t.name
    ]
    both = figures.training_curves([a_run(), a_run("b"), a_run("c", untouched=84.0)])
    levels = [t.y[0] for t in both.data if t.name == "untouched encoder"]
    assert levels == [85.92, 84.0]


def test_the_best_step_is_marked_in_every_chart():
    figure = figures.training_curves(a_run())
    marks = [t for t in figure.data if t.marker.symbol == "diamond" and t.x[0] is not None]
    assert {t.yaxis for t in marks} == set(AXES.values()) and {t.x[0] for t in marks} == {200}
    assert {line.yref for line in shapes(figure, "best")} == {f"{a} domain" for a in AXES.values()}
    assert {(line.x0, line.x1) for line in shapes(figure, "best")} == {(200, 200)}
    none = figures.training_curves(a_run(best=None))
    assert not shapes(none, "best")
    assert not [t for t in none.data if t.marker.symbol == "diamond"]
    several = figures.training_curves([a_run("aa"), a_run("b", done=120)])
    assert not shapes(several, "best")  # lines of several would hide the charts
    assert [t.x[0] for t in lines(several, "y2", 1) if t.marker.symbol == "diamond"][-1] == 0


def test_headers_say_the_latest_numbers_of_one_run():
    run = a_run()
    said = " ".join(texts(figures.training_curves(run, dev_title="accuracy in %")))
    assert "Dev: accuracy in % ↑" in said and "Loss ↓" in said
    assert f"best {run.dev[4]:.2f} at step 200" in said
    assert f"{smoothed(run.loss, 6)[-1]:.4f}, smoothed" in said
    assert f"{smoothed(run.sentences_per_second, 6)[-1]:,.0f} sentences a second" in said
    assert f"{run.alignment[-1]:.3f}" in said
    assert f"−{-run.uniformity[-1]:.3f}" in said
    several = " ".join(texts(figures.training_curves([run, a_run("b")])))
    assert "bold: smoothed" in several and "◆ best, dashed: untouched" in several
    assert "at step" not in several


def test_steps_without_a_loss_are_gaps_and_said():
    loss = np.linspace(0.5, 0.3, TOTAL)
    loss[[100, 101]] = NAN, np.inf
    figure = figures.training_curves(a_run(loss=loss))
    raw, smooth, _ = lines(figure, "y")
    assert list(np.flatnonzero(np.isnan(raw.y))) == list(np.flatnonzero(np.isnan(smooth.y)))
    assert list(np.flatnonzero(np.isnan(raw.y))) == [100, 101]
    assert "no value at 2 steps" in " ".join(texts(figure))
    parse(figure)


def test_a_spike_is_a_triangle_at_the_edge_with_its_number():
    loss = a_run().loss
    loss[150] = 30.0
    figure = figures.training_curves(a_run(loss=loss))
    raw, smooth, spike, _ = lines(figure, "y")
    assert raw.y.max() == 30  # not hidden
    assert list(spike.x) == [151] and list(spike.customdata) == [30.0]
    assert spike.marker.symbol == "triangle-up" and not spike.cliponaxis
    low, high = figure.layout.yaxis.range
    assert low < spike.y[0] < high < 1
    assert smooth.y.max() < 0.7


def test_runs_are_in_their_colour_and_in_the_legend_once():
    figure = figures.training_curves(
        [a_run("head"), a_run("a very long name of a run, indeed so long")]
    )
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
    for run in (nothing_yet(), begun(), figures.RunCurves("x", 1, dev_steps=[0], dev=[NAN])):
        figure = draw(name, theme, [run])
        said = " ".join(texts(figure))
        assert (
            "no step yet" in said
            or "no evaluation yet" in said
            or name == "alignment_uniformity_path"
        )
        for axis in [*figure.select_xaxes(), *figure.select_yaxes()]:
            assert np.isfinite(axis.range).all() and np.ptp(axis.range) > 0
        parse(figure)
    empty = figures.training_curves(nothing_yet())
    assert sum("no step yet" in text for text in texts(empty)) == 2
    assert sum("no evaluation yet" in text for text in texts(empty)) == 3
    assert not any(axis.showticklabels for axis in empty.select_yaxes())
    assert "no value" in " ".join(texts(figures.training_curves(a_run(alignment=[NAN] * 7))))


def test_one_step_and_one_look_are_seen():
    figure = figures.training_curves(a_run(done=1))
    _, loss = lines(figure, "y")
    assert loss.mode == "lines+markers" and len(loss.x) == 1
    dev, best = lines(figure, "y2")
    assert list(dev.x) == [0] and best.x == (0,)


def test_a_run_of_100000_steps_is_light():
    run = a_run(done=100_000, total=100_000, every=100)
    figure = figures.training_curves(run)
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
    figure = figures.optimisation_curves(run)
    raw, smooth, _ = lines(figure, "y")
    np.testing.assert_allclose(raw.y, run.gradient_norm, rtol=1e-6)
    np.testing.assert_allclose(smooth.y, smoothed(run.gradient_norm, 6), rtol=1e-6)
    rate, best = lines(figure, "y2")  # neither faint nor smoothed
    np.testing.assert_allclose(rate.y, run.learning_rate, rtol=1e-6)
    assert best.x == (200,)
    assert figure.layout.yaxis2.range[0] == 0 and figure.layout.yaxis2.side == "right"
    assert not [t for t in figure.data if "untouched" in t.name]


def test_charts_do_not_overlap():
    figure = figures.training_curves(a_run())
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
    np.testing.assert_array_equal(heatmap.customdata[3], run.dev_steps)
    axis = figure.layout.yaxis
    assert axis.ticktext == ("embeddings", *(f"layer {layer}" for layer in range(1, S)))
    assert tuple(axis.range) == (S - 0.5, -0.5)
    assert drawn(figure).data[0].colorscale[0][1] == "#00224e"  # cividis
    assert heatmap.zmin == 0 and heatmap.zmax == pytest.approx(0.7)


def test_columns_are_true_to_scale_when_looks_are_uneven():
    looks = np.array([0.0, 10, 20, 100, 300])
    run = figures.RunCurves("x", 300, dev_steps=looks, layer_weights=np.full((5, 2), 0.5))
    (heatmap,) = traces(figures.weights_over_time(run), "heatmap")
    np.testing.assert_array_equal(heatmap.x, [-5, 5, 15, 60, 200, 306])
    lone = figures.weights_over_time(begun()).data[0].x
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
    run = figures.RunCurves("x", 10_000, dev_steps=looks, layer_weights=weights, best=3330)
    (heatmap,) = traces(figures.weights_over_time(run), "heatmap")
    shown = list(heatmap.customdata[0])
    assert heatmap.z.shape == (25, len(shown)) and len(shown) <= 400
    assert shown[0] == 0 and shown[-1] == 10_000 and 3330 in shown
    assert len(heatmap.x) == len(shown) + 1


def test_weights_before_the_first_look():
    run = figures.RunCurves("x", 100, layer_weights=np.zeros((0, 13)))
    figure = figures.weights_over_time(run)
    assert "no evaluation yet" in " ".join(texts(figure)) and not figure.data
    assert len(figure.layout.yaxis.ticktext) == 13
    unknown = figures.weights_over_time(figures.RunCurves("x", 100, layer_weights=[]))
    assert "no evaluation yet" in " ".join(texts(unknown))
    parse(unknown)
    first = figures.weights_over_time(begun())
    np.testing.assert_allclose(first.data[0].z, np.full((S, 1), 1 / S), rtol=1e-6)


def test_weights_that_are_none_are_refused():
    with pytest.raises(ValueError, match="'head' has no layer weights; its pooling"):
        figures.weights_over_time(a_run(layer_weights=None))
    with pytest.raises(ValueError, match="layer_weights are weights from -1e-06 to 1"):
        figures.weights_over_time(a_run(layer_weights=np.full((7, S), 2.0)))


# --- the path in the plane -----------------------------------------------------------------------


def test_the_path_has_a_hollow_start_a_head_and_the_best_look():
    run = a_run()
    figure = figures.alignment_uniformity_path(run)
    path, head, best = figure.data
    np.testing.assert_allclose(path.x, run.uniformity, rtol=1e-6)
    np.testing.assert_allclose(path.y, run.alignment, rtol=1e-6)
    np.testing.assert_array_equal(path.customdata, [[0, step] for step in run.dev_steps])
    assert path.marker.color[0] == BACKGROUND["light"]  # hollow
    assert path.marker.line.width[0] == 2 and set(path.marker.line.width[1:]) == {0}
    assert set(path.marker.color[1:]) == {ACCENT["light"]}
    assert head.marker.symbol == "arrow" and head.marker.angleref == "previous"
    assert head.x[-1] == path.x[-1] and head.marker.size == (0, 15)
    assert best.marker.symbol == "diamond" and best.x[0] == path.x[4]
    labels = {a.text: (a.x, a.y) for a in figure.layout.annotations if a.showarrow}
    assert set(labels) == {"step 0", "step 300", "best, step 200"}
    assert labels["best, step 200"] == (run.uniformity[4], run.alignment[4])
    assert "Better towards the lower left ↙" in texts(figure)[0]


def test_the_plane_is_that_of_the_other_figure():
    other = figures.alignment_uniformity([0.3, 0.35], [-3.6, -3.8], ["lwap", "mean"])
    figure = figures.alignment_uniformity_path(a_run())
    for axis in ("xaxis", "yaxis"):
        assert figure.layout[axis].title == other.layout[axis].title
        assert "lower is better" in figure.layout[axis].title.text
    run = a_run()
    (left, right), (low, high) = figure.layout.xaxis.range, figure.layout.yaxis.range
    assert left < run.uniformity.min() and run.uniformity.max() < right
    assert low < run.alignment.min() and run.alignment.max() < high


def test_paths_of_several_runs_are_named_at_their_ends():
    runs = [a_run("head"), a_run(HOSTILE, uniformity=a_run().uniformity - 0.1)]
    figure = figures.alignment_uniformity_path(runs)
    labels = [a for a in figure.layout.annotations if a.showarrow]
    for label, run, color in zip(labels, runs, CATEGORIES["light"], strict=False):
        assert (label.x, label.y) == (run.uniformity[-1], run.alignment[-1])
        assert color in label.text
    assert "head" in labels[0].text and "&lt;b&gt;" in labels[1].text
    assert {t.customdata[0][0] for t in figure.data} == {0, 1}


def test_a_look_without_both_numbers_is_left_out():
    alignment = a_run().alignment
    alignment[[0, 4]] = NAN
    figure = figures.alignment_uniformity_path(a_run(alignment=alignment))
    assert [step for _, step in figure.data[0].customdata] == [50, 100, 150, 250, 300]
    assert len(figure.data) == 2  # the best look has no place
    assert "◆" not in texts(figure)[0]


def test_a_path_of_one_look_is_a_hollow_mark():
    figure = figures.alignment_uniformity_path(begun(best=None))
    (path,) = figure.data
    assert len(path.x) == 1 and path.marker.color == (BACKGROUND["light"],)
    assert "no evaluation yet" in " ".join(texts(figures.alignment_uniformity_path(nothing_yet())))
