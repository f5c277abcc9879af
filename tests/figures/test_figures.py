"""The figures show the numbers they were given, safely, in both themes."""

from __future__ import annotations

import ast
import itertools
import sys
import tomllib
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from lwap import figures
from tests.figures.reading import HOSTILE, drawn, holds_for_every_figure, named, parse, traces

S, N, P, K = 7, 3, 4, 3
NAMED_STRATEGIES = (
    "cls",
    "mean",
    "max",
    "last_token",
    "first_last_mean",
    "embed_last_mean",
    "last_two_mean",
    "all_mean",
    "scalar_mix",
    "lwap",
)
SENTENCES = ["The cat sat.", "The cat sat.", HOSTILE]


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    attention = softmax(rng.normal(size=(S, S)))
    other = softmax(rng.normal(size=(S, S)))
    states = rng.normal(size=(S, 16))
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    scores = rng.uniform(-0.2, 1.0, size=(P, K))
    correlations = np.array([0.71234, 0.80456, 0.6])
    return {
        "attention": attention,
        "other": other,
        "weights": attention.mean(axis=0),
        "other_weights": other.mean(axis=0),
        "knockout": rng.gamma(1.0, 0.01, size=S),
        "attentions": softmax(rng.normal(size=(N, S, S))),
        "sentence_weights": softmax(rng.normal(size=(N, S))),
        "similarity": states @ states.T,
        "scores": scores,
        "gold": rng.uniform(size=P),
        "line": rng.uniform(size=S),
        "delta": rng.normal(0.0, 0.02, size=S),
        "correlations": correlations,
        "low": correlations - 0.02,
        "high": correlations + 0.03,
    }


STRATEGIES = ["cls", "mean", "lwap"]
PAIRS = ["one ↔ two", "one ↔ two", HOSTILE, "three ↔ four"]


def draw(name: str, a: dict[str, np.ndarray], theme: str) -> go.Figure:
    """Call a figure by name with arrays of the right shapes."""
    calls = {
        "layer_attention": lambda: figures.layer_attention(
            a["attention"], a["weights"], a["knockout"], query_names=[HOSTILE] * S, theme=theme
        ),
        "layer_attention_grid": lambda: figures.layer_attention_grid(
            a["attentions"], SENTENCES, theme=theme
        ),
        "layer_attention_difference": lambda: figures.layer_attention_difference(
            a["attention"],
            a["other"],
            a["weights"],
            a["other_weights"],
            label_a=SENTENCES[0],
            label_b=HOSTILE,
            theme=theme,
        ),
        "sentence_weights": lambda: figures.sentence_weights(
            a["sentence_weights"], SENTENCES, theme=theme
        ),
        "state_similarity": lambda: figures.state_similarity(a["similarity"], theme=theme),
        "pair_scores": lambda: figures.pair_scores(
            a["scores"],
            STRATEGIES,
            PAIRS,
            gold=a["gold"],
            x_title="cosine",
            selected=1,
            theme=theme,
        ),
        "pair_heatmap": lambda: figures.pair_heatmap(
            a["scores"], STRATEGIES, PAIRS, color_title="cosine", theme=theme
        ),
        "layer_similarity": lambda: figures.layer_similarity(
            a["line"],
            a["line"][::-1],
            references={"mean": 0.8, "lwap": 0.801, "mean+whiten": 0.3},
            theme=theme,
        ),
        "pair_weights": lambda: figures.pair_weights(
            a["weights"], a["other_weights"], label_a=SENTENCES[0], label_b=HOSTILE, theme=theme
        ),
        "knockout_bars": lambda: figures.knockout_bars(a["delta"], title=HOSTILE, theme=theme),
        "spearman_strip": lambda: figures.spearman_strip(
            STRATEGIES, a["correlations"], a["low"], a["high"], theme=theme
        ),
    }
    return calls[name]()


FIGURES = (
    "layer_attention",
    "layer_attention_grid",
    "layer_attention_difference",
    "sentence_weights",
    "state_similarity",
    "pair_scores",
    "pair_heatmap",
    "layer_similarity",
    "pair_weights",
    "knockout_bars",
    "spearman_strip",
)


# --- every figure --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure(arrays, name):
    holds_for_every_figure(lambda theme: draw(name, arrays, theme))


@pytest.mark.parametrize("name", FIGURES)
def test_inputs_are_not_modified(arrays, name):
    before = {key: value.copy() for key, value in arrays.items()}
    for value in arrays.values():
        value.flags.writeable = False
    draw(name, arrays, "light")  # writing into one of them raises
    for key, value in arrays.items():
        np.testing.assert_array_equal(value, before[key])


# --- the package ---------------------------------------------------------------------------------

MODULES = (
    {"checks", "texts", "style", "placement", "series"},
    {"template"},
    {"axes"},
    {"panels"},
    {"labels", "marks"},
    {"charts", "curves", "points", "run"},
    {
        "layers",
        "pairs",
        "evaluate",
        "grid",
        "plane",
        "scatter",
        "search",
        "maps",
        "spread",
        "changes",
    },
    {"run_curves", "run_path", "run_weights"},
)


def test_modules_import_downwards_and_little_else():
    folder = Path(figures.__file__).parent
    assert {file.stem for file in folder.glob("*.py")} == {"__init__", *set().union(*MODULES)}
    for level, names in enumerate(MODULES):
        below = set().union(*MODULES[:level])
        for name in names:
            tree = ast.parse((folder / f"{name}.py").read_text("utf-8"))
            modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            modules += [
                alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.Import)
                for alias in node.names
            ]
            for module in modules:
                own = module.removeprefix("lwap.figures.")
                root = module.split(".")[0]
                assert (
                    own in below
                    or module in ("lwap.names", "lwap.registry")
                    or root in {"numpy", "plotly"}
                    or root in sys.stdlib_module_names
                ), f"{name} imports {module}"


def test_all_public_names_are_there():
    assert len(set(figures.__all__)) == len(figures.__all__)
    assert all(hasattr(figures, name) for name in figures.__all__)


# --- names and colours ---------------------------------------------------------------------------


def test_state_names():
    assert [figures.state_name(i) for i in (0, 1, 12)] == ["embeddings", "layer 1", "layer 12"]
    assert [figures.state_tick(i) for i in (0, 1, 12)] == ["emb", "1", "12"]
    with pytest.raises(ValueError, match="numbered from 0, got -1"):
        figures.state_name(-1)


def linear_rgb(color: str) -> np.ndarray:
    srgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    luminances = sorted(linear_rgb(color) @ [0.2126, 0.7152, 0.0722] for color in (a, b))
    return (luminances[1] + 0.05) / (luminances[0] + 0.05)


def oklab(linear: np.ndarray) -> np.ndarray:
    """Björn Ottosson's perceptual space: equal distances look about equally far."""
    to_lms = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(to_lab) @ np.cbrt(np.array(to_lms) @ linear)


# Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB.
EYES = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("eye", EYES)
def test_strategy_colors_are_distinct_to_all_eyes(theme, eye):
    seen = {
        name: oklab(np.clip(EYES[eye] @ linear_rgb(figures.strategy_color(name, theme)), 0, 1))
        for name in NAMED_STRATEGIES
    }
    for (a, lab_a), (b, lab_b) in itertools.combinations(seen.items(), 2):
        assert np.linalg.norm(lab_a - lab_b) > 0.065, (a, b)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colors_stand_out_from_the_page(theme):
    greys = [f"layer_mean:{layer}" for layer in range(12)]
    for name in (*NAMED_STRATEGIES, *greys):
        assert contrast(figures.strategy_color(name, theme), figures.BACKGROUND[theme]) >= 3, name
    assert contrast(figures.ACCENT[theme], figures.BACKGROUND[theme]) >= 4.5


def test_symbols_are_a_second_channel():
    symbols = [figures.strategy_symbol(name) for name in NAMED_STRATEGIES]
    symbols += [figures.strategy_symbol(f"{name}+whiten") for name in NAMED_STRATEGIES]
    symbols += [figures.strategy_symbol(f"layer_{kind}:1") for kind in ("mean", "cls")]
    assert len(set(symbols)) == len(symbols)
    for symbol in symbols:
        go.Scatter(marker_symbol=symbol)  # plotly refuses what it does not know


def test_lwap_has_the_accent_and_whitening_keeps_the_color():
    for theme in ("light", "dark"):
        assert figures.strategy_color("lwap", theme) == figures.ACCENT[theme]
        for name in ("mean", "layer_cls:3"):
            whitened = figures.strategy_color(f"{name}+whiten", theme)
            assert whitened == figures.strategy_color(name, theme)
    assert figures.strategy_symbol("mean+whiten") != figures.strategy_symbol("mean")


@pytest.mark.parametrize("name", ["median", "layer_mean:", "layer_mean:x", "lwap:3", ""])
def test_unknown_strategy_is_refused_with_the_accepted_ones(name):
    with pytest.raises(ValueError, match=r"is not a pooling strategy; accepted are cls, mean"):
        figures.strategy_color(name)
    with pytest.raises(ValueError, match=r"layer_mean:K, layer_cls:K"):
        figures.strategy_symbol(name)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_app_theme_has_the_same_accent_and_background(theme):
    config = Path(__file__).parents[2] / ".streamlit" / "config.toml"
    colors = tomllib.loads(config.read_text(encoding="utf-8"))["theme"][theme]
    assert colors["primaryColor"] == figures.ACCENT[theme]
    assert colors["backgroundColor"] == figures.BACKGROUND[theme]


def test_diverging_scale_has_the_background_in_the_middle():
    for theme in ("light", "dark"):
        stops = figures.DIVERGING[theme]
        assert tuple(stops[len(stops) // 2]) == (0.5, figures.BACKGROUND[theme])


# --- layer attention -----------------------------------------------------------------------------


def test_layer_attention_shows_the_numbers_it_was_given(arrays):
    figure = draw("layer_attention", arrays, "light")
    weights, knockout = traces(figure, "bar")
    (matrix,) = traces(figure, "heatmap")
    np.testing.assert_allclose(weights.y, arrays["weights"])
    np.testing.assert_allclose(knockout.y, arrays["knockout"])
    np.testing.assert_allclose(matrix.z, arrays["attention"])
    assert list(weights.text) == [f"{value:.2f}" for value in arrays["weights"]]
    assert (matrix.zmin, matrix.zmax) == (0, arrays["attention"].max())


def test_layer_attention_has_one_axis_of_key_states(arrays):
    figure = draw("layer_attention", arrays, "light")
    layout = figure.layout
    assert layout.xaxis2.matches == layout.xaxis3.matches == "x"
    assert layout.xaxis.range == layout.xaxis2.range == layout.xaxis3.range
    positions = [tuple(trace.x) for trace in traces(figure, "bar")]
    assert positions == [tuple(range(S))] * 2
    assert list(layout.xaxis3.ticktext) == ["emb", "1", "2", "3", "4", "5", "6"]
    tops = [layout[axis].domain for axis in ("yaxis", "yaxis2", "yaxis3")]
    assert tops[0][0] > tops[1][1] and tops[1][0] > tops[2][1]  # weights, matrix, knock-out


def test_layer_attention_puts_embeddings_on_top_and_names_states_in_full(arrays):
    figure = figures.layer_attention(arrays["attention"], arrays["weights"], arrays["knockout"])
    bottom, top = figure.layout.yaxis2.range
    assert (bottom, top) == (S - 0.5, -0.5)
    assert figure.layout.yaxis2.ticktext[0] == "emb"
    (matrix,) = traces(figure, "heatmap")
    assert list(matrix.customdata[3][1]) == ["layer 3", "layer 1"]
    assert list(matrix.customdata[0][0]) == ["embeddings", "embeddings"]
    assert "query %{customdata[0]} → key %{customdata[1]}" in matrix.hovertemplate


def test_layer_attention_marks_the_uniform_weight(arrays):
    figure = draw("layer_attention", arrays, "light")
    (line,) = [shape for shape in figure.layout.shapes if shape.name == "uniform"]
    assert line.y0 == line.y1 == pytest.approx(1 / S)
    assert line.line.dash == "dot"


def test_layer_attention_of_one_query(arrays):
    figure = figures.layer_attention(
        arrays["attention"][:1], arrays["attention"][0], arrays["knockout"]
    )
    (matrix,) = traces(figure, "heatmap")
    assert matrix.z.shape == (1, S)
    assert matrix.customdata[0][2][0] == "layer 6"
    renamed = figures.layer_attention(
        arrays["attention"][:1],
        arrays["attention"][0],
        arrays["knockout"],
        query_names=["last <token>"],
    )
    assert renamed.data[1].customdata[0][0][0] == "last &lt;token&gt;"
    assert renamed.layout.yaxis2.ticktext == ("last &lt;token&gt;",)


@pytest.mark.parametrize("states", [2, 7, 13, 14, 25, 37])
def test_state_ticks_are_few_enough_for_a_phone(states):
    rng = np.random.default_rng(states)
    attention = softmax(rng.normal(size=(states, states)))
    figure = figures.layer_attention(attention, attention.mean(axis=0), rng.uniform(size=states))
    ticks = figure.layout.xaxis3.ticktext
    assert ticks[0] == "emb"
    assert len(ticks) == (states if states <= 13 else pytest.approx(8, abs=3))
    (matrix,) = traces(figure, "heatmap")
    assert (matrix.text is not None) == (states <= 13)


def test_numbers_in_cells_contrast_with_their_cell():
    similarity = np.array([[1.0, 0.0], [0.0, 1.0]])
    (matrix,) = traces(figures.state_similarity(similarity), "heatmap")
    assert matrix.text[0][0] == '<span style="color:#000">1.00</span>'  # on yellow
    assert matrix.text[0][1] == '<span style="color:#fff">0.00</span>'  # on dark blue


def test_missing_knockout_is_a_gap_but_missing_attention_an_error(arrays):
    knockout = arrays["knockout"].copy()
    knockout[2] = np.nan
    figure = figures.layer_attention(arrays["attention"], arrays["weights"], knockout)
    bars = traces(figure, "bar")[1]
    assert np.isnan(bars.y[2]) and bars.text[2] == "–"
    parse(figure)
    attention = arrays["attention"].copy()
    attention[0, 0] = np.nan
    with pytest.raises(ValueError, match="attention has values that are not finite"):
        figures.layer_attention(attention, arrays["weights"], arrays["knockout"])


def test_layer_attention_grid_has_one_color_scale(arrays):
    figure = draw("layer_attention_grid", arrays, "light")
    panels = traces(figure, "heatmap")
    assert len(panels) == N
    for panel, attention in zip(panels, arrays["attentions"], strict=True):
        np.testing.assert_allclose(panel.z, attention)
        assert panel.coloraxis == "coloraxis"
        assert panel.colorbar.to_plotly_json() == {}
    assert figure.layout.coloraxis.cmin == 0
    assert figure.layout.coloraxis.cmax == arrays["attentions"].max()
    titles = [a.text for a in figure.layout.annotations]
    assert titles.count("The cat sat.") == 2


def test_layer_attention_grid_places_panels_side_by_side(arrays):
    layout = draw("layer_attention_grid", arrays, "light").layout
    assert layout.xaxis.domain[1] < layout.xaxis2.domain[0]
    assert layout.yaxis.domain == layout.yaxis2.domain
    assert layout.yaxis3.domain[1] < layout.yaxis.domain[0]
    assert layout.xaxis2.matches == layout.xaxis3.matches == "x"


def test_layer_attention_difference_is_b_minus_a_around_zero(arrays):
    figure = draw("layer_attention_difference", arrays, "light")
    (bars,), (matrix,) = traces(figure, "bar"), traces(figure, "heatmap")
    np.testing.assert_allclose(bars.y, arrays["other_weights"] - arrays["weights"])
    difference = arrays["other"] - arrays["attention"]
    np.testing.assert_allclose(matrix.z, difference)
    assert matrix.zmax == -matrix.zmin == np.abs(difference).max()
    assert [stop[1] for stop in matrix.colorscale] == [c for _, c in figures.DIVERGING["light"]]
    assert figure.layout.xaxis2.matches == "x"
    colors = [bars.marker.color[i] for i in (bars.y.argmin(), bars.y.argmax())]
    for color, label in zip(colors, (SENTENCES[0], "a &lt;b&gt;bold"), strict=True):
        line = next(a.text for a in figure.layout.annotations if color in a.text)
        assert "more in: " in line and label in line


def test_equal_sentences_differ_by_nothing(arrays):
    figure = figures.layer_attention_difference(
        arrays["attention"],
        arrays["attention"],
        arrays["weights"],
        arrays["weights"],
        label_a="x",
        label_b="x",
    )
    (matrix,) = traces(figure, "heatmap")
    assert (matrix.zmin, matrix.zmax) == (-1, 1)
    assert set(traces(figure, "bar")[0].text) == {"±0.00"}


def test_tiny_effects_are_printed_with_their_size():
    figure = figures.knockout_bars([6.2e-5, -3e-4, 0.0, np.nan], title="effect")
    assert list(traces(figure, "bar")[0].text) == ["+6e−5", "−3e−4", "0", "–"]


def test_sentence_weights_shows_mean_and_spread(arrays):
    figure = draw("sentence_weights", arrays, "light")
    (matrix,) = traces(figure, "heatmap")
    bars = named(figure, "states")
    weights = arrays["sentence_weights"]
    np.testing.assert_allclose(matrix.z, weights)
    np.testing.assert_allclose(bars.y, weights.mean(axis=0))
    np.testing.assert_allclose(bars.error_y.array, weights.std(axis=0, ddof=1))
    assert list(named(figure, "top").text) == [f"{value:.2f}" for value in weights.mean(axis=0)]


def test_one_sentence_has_no_spread(arrays):
    figure = figures.sentence_weights(arrays["sentence_weights"][:1], ["The cat sat."])
    (bars,) = traces(figure, "bar")
    assert bars.error_y.array is None
    assert np.isfinite(bars.y).all()


def test_values_in_cells_up_to_200():
    weights = np.full((29, 7), 1 / 7)
    few = figures.sentence_weights(weights[:28], ["x"] * 28)
    many = figures.sentence_weights(weights, ["x"] * 29)
    assert traces(few, "heatmap")[0].text is not None
    assert traces(many, "heatmap")[0].text is None


def test_state_similarity_runs_to_one(arrays):
    figure = draw("state_similarity", arrays, "light")
    (matrix,) = traces(figure, "heatmap")
    np.testing.assert_allclose(matrix.z, arrays["similarity"])
    assert matrix.zmax == 1
    assert matrix.zmin == min(0, arrays["similarity"].min())


# --- pairs ---------------------------------------------------------------------------------------


def test_pair_scores_dots_are_the_scores_and_carry_their_row(arrays):
    figure = drawn(draw("pair_scores", arrays, "light"))
    for column, strategy in enumerate(STRATEGIES):
        dots = named(figure, strategy)
        np.testing.assert_allclose(dots.x, arrays["scores"][:, column])
        assert list(dots.y) == list(dots.customdata) == list(range(P))
        assert dots.marker.color == figures.strategy_color(strategy)
        assert dots.marker.symbol == figures.strategy_symbol(strategy)
        assert dots.hovertext[0] == f"{arrays['scores'][0, column]:.3f}".replace("-", "−")
        assert dots.unselected.marker.opacity == 1


def test_pair_scores_line_spans_lowest_to_highest(arrays):
    scores = arrays["scores"].copy()
    scores[1] = [0.4, np.nan, 0.2]
    scores[2] = np.nan
    figure = figures.pair_scores(scores, STRATEGIES, PAIRS, x_title="cosine")
    line = named(figure, "range")
    segments = line.x[np.isfinite(line.x)].reshape(-1, 2)
    rows = line.y[np.isfinite(line.y)][::2].tolist()
    assert rows == [0, 1, 3]  # the row without a score has no line
    np.testing.assert_allclose(segments[1], [0.2, 0.4])
    np.testing.assert_allclose(segments[0], [scores[0].min(), scores[0].max()])
    assert named(figure, "mean").hovertext[1] == "–"
    parse(figure)


def test_pair_scores_first_row_is_on_top_and_equal_labels_stay_apart(arrays):
    axis = draw("pair_scores", arrays, "light").layout.yaxis
    assert tuple(axis.range) == (P - 0.5, -0.5)
    assert len(set(axis.tickvals)) == P
    assert axis.ticktext[0] == axis.ticktext[1] == "one ↔ two"
    assert axis.type is None  # never a category axis, which would merge them


def test_equal_sentences_keep_their_rows(arrays):
    figure = draw("sentence_weights", arrays, "light")
    axis = figure.layout.yaxis2
    assert axis.ticktext[0] == axis.ticktext[1]
    assert len(set(axis.tickvals)) == len(axis.ticktext) == N
    assert traces(figure, "heatmap")[0].y is None


@pytest.mark.parametrize(("theme", "color"), [("light", "#000000"), ("dark", "#ffffff")])
def test_gold_is_a_tick_in_black_or_white(arrays, theme, color):
    gold = named(draw("pair_scores", arrays, theme), "gold")
    np.testing.assert_allclose(gold.x, arrays["gold"])
    assert list(gold.customdata) == list(range(P))
    assert gold.marker.symbol == "line-ns"
    assert gold.marker.line.color == color


def test_gold_may_be_absent(arrays):
    figure = figures.pair_scores(arrays["scores"], STRATEGIES, PAIRS, x_title="cosine")
    assert [trace.name for trace in figure.data] == ["range", *STRATEGIES]


def test_selected_row_has_a_band(arrays):
    figure = drawn(draw("pair_scores", arrays, "light"))
    (band,) = [shape for shape in figure.layout.shapes if shape.name == "selected"]
    assert (band.y0, band.y1, band.layer) == (0.5, 1.5, "below")
    plain = figures.pair_scores(arrays["scores"], STRATEGIES, PAIRS, x_title="cosine")
    assert plain.layout.shapes == ()
    for row in (-1, P):
        with pytest.raises(ValueError, match=f"selected is row {row}; the rows are 0 to 3"):
            figures.pair_scores(arrays["scores"], STRATEGIES, PAIRS, x_title="cosine", selected=row)


def test_value_format_reaches_hover_and_cells(arrays):
    percentiles = 100 * np.abs(arrays["scores"])
    dots = figures.pair_scores(
        percentiles, STRATEGIES, PAIRS, x_title="percentile", value_format=".1f"
    )
    assert named(dots, "cls").hovertext[0] == f"{percentiles[0, 0]:.1f}"
    table = figures.pair_heatmap(
        percentiles, STRATEGIES, PAIRS, color_title="percentile", value_format=".1f"
    )
    assert f">{percentiles[0, 0]:.1f}<" in table.data[0].text[0][0]
    assert "%{z:.1f}" in table.data[0].hovertemplate


def test_pair_heatmap_shows_the_scores_and_leaves_gaps(arrays):
    scores = arrays["scores"].copy()
    scores[0, 0] = np.nan
    figure = figures.pair_heatmap(scores, STRATEGIES, PAIRS, color_title="cosine")
    (table,) = traces(figure, "heatmap")
    np.testing.assert_allclose(table.z, scores)
    assert (table.zmin, table.zmax) == (np.nanmin(scores), np.nanmax(scores))
    assert "></span>" in table.text[0][0]
    assert list(figure.layout.xaxis.ticktext) == STRATEGIES
    assert table.customdata[3][2][1] == "lwap"


def test_layer_similarity_lines_and_strategy_marks(arrays):
    figure = draw("layer_similarity", arrays, "light")
    np.testing.assert_allclose(named(figure, "CLS").y, arrays["line"])
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    np.testing.assert_allclose(lines[1].y, arrays["line"][::-1])
    marks = {t.name: t for t in figure.data if t.mode == "markers"}
    assert {name: mark.y[0] for name, mark in marks.items()} == {
        "mean": 0.8,
        "lwap": 0.801,
        "mean+whiten": 0.3,
    }
    assert all(mark.x[0] > S - 1 for mark in marks.values())


def test_layer_similarity_labels_do_not_collide(arrays):
    references = {name: 0.8 + 0.001 * i for i, name in enumerate(NAMED_STRATEGIES)}
    figure = figures.layer_similarity(arrays["line"], arrays["line"], references=references)
    low, high = figure.layout.yaxis.range
    margin = figure.layout.margin
    body = figure.layout.height - margin.t - margin.b
    labels = [a for a in figure.layout.annotations if a.showarrow]
    pixels = sorted((high - a.y) / (high - low) * body + a.ay for a in labels)
    assert len(pixels) == len(NAMED_STRATEGIES)
    assert min(np.diff(pixels)) > 15
    assert pixels[0] > 0 and pixels[-1] < body
    by_height = sorted(labels, key=lambda a: (high - a.y) / (high - low) * body + a.ay)
    assert [a.text for a in by_height] == sorted(references, key=references.get, reverse=True)


def test_layer_similarity_without_references_and_with_another_first_token(arrays):
    figure = figures.layer_similarity(
        arrays["line"], arrays["line"], references={}, cls_name="last token"
    )
    assert [trace.name for trace in figure.data] == ["last token", "mean"]
    assert figure.data[0].line.color == figures.strategy_color("last_token")
    named_cls = figures.layer_similarity(arrays["line"], arrays["line"], references={})
    assert named_cls.data[0].line.color == figures.strategy_color("cls")


def test_pair_weights_are_grouped_bars(arrays):
    figure = draw("pair_weights", arrays, "light")
    first, second = traces(figure, "bar")
    np.testing.assert_allclose(first.y, arrays["weights"])
    np.testing.assert_allclose(second.y, arrays["other_weights"])
    assert figure.layout.barmode == "group"
    assert first.marker.color != second.marker.color
    assert "&lt;b&gt;bold&lt;/b&gt;" in second.hovertext[0]


def test_knockout_bars_diverge_from_zero():
    figure = figures.knockout_bars([0.0124, -0.03, 0.0, np.nan], title="pair")
    (bars,) = figure.data
    assert list(bars.text) == ["+0.012", "−0.030", "±0.000", "–"]
    assert bars.marker.color[0] != bars.marker.color[1]
    low, high = figure.layout.yaxis.range
    assert low < -0.03 and high > 0.0124


def test_spearman_strip_is_sorted_and_times_100(arrays):
    figure = draw("spearman_strip", arrays, "light")
    dots = [trace for trace in figure.data if trace.mode == "markers"]
    assert [trace.name for trace in dots] == ["mean", "cls", "lwap"]
    np.testing.assert_allclose([trace.x[0] for trace in dots], [80.456, 71.234, 60.0])
    assert [trace.y[0] for trace in dots] == [0, 1, 2]
    np.testing.assert_allclose(named(figure, "mean interval").x[:2], [78.456, 83.456])
    printed = [annotation.text for annotation in figure.layout.annotations]
    assert printed[0] == "<b>80.46</b>  [78.46, 83.46]"
    assert figure.layout.yaxis.ticktext == ("mean", "cls", "lwap")
    assert "→" in figure.layout.xaxis.title.text
    assert "higher is better" in figure.layout.xaxis.title.text


def test_spearman_strip_puts_the_undefined_last():
    nan = np.nan
    figure = figures.spearman_strip(STRATEGIES, [nan, -0.2, 0.3], [nan, -0.3, 0.2], [nan, 0, 0.4])
    assert figure.layout.yaxis.ticktext == ("lwap", "mean", "cls")
    assert [a.text for a in figure.layout.annotations][1:] == [
        "<b>−20.00</b>  [−30.00, 0.00]",
        "<b>–</b>  [–, –]",
    ]
    parse(figure)


def test_spearman_strip_refuses_percentages_and_upside_down_intervals():
    with pytest.raises(ValueError, match=r"values are correlations from -1 to 1, got 82\.5"):
        figures.spearman_strip(["cls"], [82.5], [0.8], [0.9])
    with pytest.raises(ValueError, match=r"interval of 'cls' ends at 0\.7, below its start 0\.8"):
        figures.spearman_strip(["cls"], [0.75], [0.8], [0.7])


# --- texts ---------------------------------------------------------------------------------------


def rows(labels: list[str]) -> tuple[list[str], list[str]]:
    """Axis labels and hover texts of one-state sentences."""
    figure = figures.sentence_weights(np.ones((len(labels), 1)), labels)
    hovers = [row[0][0] for row in traces(figure, "heatmap")[0].customdata]
    return list(figure.layout.yaxis2.ticktext), hovers


def test_long_labels_are_short_on_the_axis_and_whole_in_the_hover():
    sentence = " ".join(f"word{i}" for i in range(40))
    (tick,), (hover,) = rows([sentence])
    assert len(tick) <= 54 and tick.endswith("…")
    assert hover.replace("<br>", " ") == sentence
    assert max(map(len, hover.split("<br>"))) <= 42


def test_words_without_spaces_are_wrapped_too():
    (tick,), (hover,) = rows(["x" * 200])
    assert len(tick) == 54
    assert hover.replace("<br>", "") == "x" * 200
    assert "<br>" in hover


def test_a_pair_is_shortened_on_both_sides():
    (tick,), (hover,) = rows(["first " * 20 + "↔ " + "second " * 20])
    left, right = tick.split(" ↔ ")
    assert left.startswith("first") and left.endswith("…")
    assert right.startswith("second") and right.endswith("…")
    assert len(tick) <= 54
    assert "<br>↔ second" in hover


def test_labels_are_escaped_after_they_are_cut():
    (tick,), (hover,) = rows(["<" * 60])
    assert tick == "&lt;" * 53 + "…"
    assert hover.replace("<br>", "") == "&lt;" * 60


@pytest.mark.parametrize(
    "cluster",
    [
        "👩\u200d👩\u200d👧",  # joined by zero-width joiners
        "👍🏽",  # skin tone
        "🇫🇷",  # flag of two letters
        "e\u0301",  # combining accent
    ],
)
def test_emoji_and_accents_are_never_cut_apart(cluster):
    (tick,), _ = rows([cluster * 60])
    kept = tick.removesuffix("…")
    assert kept and kept == cluster * (len(kept) // len(cluster))


def test_right_to_left_text_keeps_its_own_direction():
    sentence = "הילד אוכל תפוח אדום גדול בגינה של סבתא שלו בכל יום שישי"
    (tick,), (hover,) = rows([sentence])
    assert tick.startswith("\u2068") and tick.endswith("…\u2069")
    assert hover.replace("\u2068", "").replace("\u2069", "").replace("<br>", " ") == sentence
    assert rows(["plain"])[0] == ["plain"]


def test_empty_and_broken_texts_are_still_named():
    ticks, _ = rows(["", "a\x00b\nc", "lone \ud83d surrogate"])
    assert ticks[0] == "(empty)"
    assert ticks[1] == "a b c"
    assert ticks[2].startswith("lone") and ticks[2].encode("utf-8")


# --- shapes --------------------------------------------------------------------------------------


def test_weights_must_have_the_states_of_the_attention(arrays):
    with pytest.raises(ValueError, match=r"weights has shape \(6,\); .*S = 7 as in attention"):
        figures.layer_attention(arrays["attention"], arrays["weights"][:6], arrays["knockout"])


def test_attention_must_be_a_matrix(arrays):
    with pytest.raises(ValueError, match=r"attention has shape \(7,\); expected \(Q, S\)"):
        figures.layer_attention(arrays["weights"], arrays["weights"], arrays["knockout"])


def test_queries_without_names_must_be_states(arrays):
    with pytest.raises(ValueError, match="Q = 3 query states; without query_names"):
        figures.layer_attention(arrays["attention"][:3], arrays["weights"], arrays["knockout"])
    with pytest.raises(ValueError, match="query_names has 2 entries; expected 3"):
        figures.layer_attention(
            arrays["attention"][:3],
            arrays["weights"],
            arrays["knockout"],
            query_names=["a", "b"],
        )


def test_similarity_must_be_square(arrays):
    with pytest.raises(ValueError, match=r"similarity has shape \(7, 6\); .*S = 7"):
        figures.state_similarity(arrays["similarity"][:, :6])


def test_labels_must_be_as_many_as_rows(arrays):
    with pytest.raises(ValueError, match="labels has 2 entries; expected 3"):
        figures.sentence_weights(arrays["sentence_weights"], SENTENCES[:2])
    with pytest.raises(ValueError, match="strategies has 2 entries; expected 3"):
        figures.pair_scores(arrays["scores"], STRATEGIES[:2], PAIRS, x_title="cosine")
    with pytest.raises(ValueError, match="labels is one text, 'abc'; expected a list of 3"):
        figures.layer_attention_grid(arrays["attentions"], "abc")


def test_gold_must_have_one_score_a_pair(arrays):
    with pytest.raises(ValueError, match=r"gold has shape \(3,\); .*P = 4 as in values"):
        figures.pair_scores(
            arrays["scores"], STRATEGIES, PAIRS, gold=arrays["gold"][:3], x_title="cosine"
        )


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match=r"weights is empty: its shape is \(0, 7\)"):
        figures.sentence_weights(np.zeros((0, 7)), [])


def test_infinite_scores_are_refused(arrays):
    scores = arrays["scores"].copy()
    scores[0, 0] = np.inf
    with pytest.raises(ValueError, match="values has infinite values; use NaN"):
        figures.pair_scores(scores, STRATEGIES, PAIRS, x_title="cosine")
