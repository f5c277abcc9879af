"""The Space page: sentences in; two linked maps, what was chosen in them, and five views out."""

import io
import json
import threading
import time

import numpy as np
import pandas as pd
import pytest
from streamlit.elements.lib import policies
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

import lwap
from lwap.errors import ConfigError
from lwap.evaluation.geometry import random_cosine_density
from lwap.projection import clusters
from lwap.projection import space as projection
from lwap.projection.process import UmapProcess
from lwap.projection.space import draw_maps, measure_spaces
from lwap.ui import cache, mapping, sentences
from lwap.ui import space as ui_space
from tests.pages.driving import (
    PAGES,
    ROOT,
    SECONDS,
    click,
    figures,
    is_inside,
    lasso,
    settle,
    shown,
    texts_in,
    trace,
)

EXAMPLE = pd.read_csv(ROOT / "assets/sentences.csv")
TEXTS = EXAMPLE["sentence"].tolist()
TOPICS = list(dict.fromkeys(EXAMPLE["topic"]))
A, B = "space-map-a", "space-map-b"
VIEWS = {
    "Spread": {"space-cosines", "space-spectrum"},
    "What changed": set(),
    "Layer by layer": {"space-course"},
    "Walk through the layers": {"space-walk"},
    "Chance": set(),
}
OWN = [
    "A heron waits in the reeds.",
    "The heron has flown away.",
    "The river is high today.",
    "Nobody swims in the river.",
    "It rains on the bridge.",
    "The bridge is closed.",
    "A crane lifts the bridge.",
    "The last boat has left.",
]
REGISTRIES = (mapping._spaces, mapping._maps, mapping._lookups)


@pytest.fixture(autouse=True)
def own_server(monkeypatch, tmp_path):
    """Give each test a server that has mapped nothing yet, and no data folder."""
    monkeypatch.setenv("LWAP_DATA", str(tmp_path / "no data"))
    for registry in REGISTRIES:
        registry.clear()
    yield
    for registry in REGISTRIES:
        for found in list(registry().found.values()):
            found.stop()
            assert found.wait(SECONDS)
        registry.clear()


@pytest.fixture
def open_space(open_page):
    """Return a function that opens the page with PCA maps; by keyword, the link."""

    def open_space(**options) -> AppTest:
        return open_page("space", **{"projection": "PCA"} | options)

    return open_space


@pytest.fixture
def open_own(open_space):
    """Return a function that opens the page with the sentences above."""

    def open_own(**options) -> AppTest:
        return open_space(**{"s": OWN} | options)

    return open_own


@pytest.fixture
def open_file(open_space):
    """Return a function that opens the page on a file of the person's own."""

    def open_file(content, name: str = "mine.csv", **options) -> AppTest:
        app = open_space(space_data="File", **options)
        return upload(app, content, name)

    return open_file


@pytest.fixture
def fits(monkeypatch, tmp_path) -> list[dict]:
    """The settings of each UMAP map; each is its start, turned a little by the seed."""
    monkeypatch.setenv("LWAP_CACHE", str(tmp_path / "cache"))  # no such map outlives the test
    calls = []

    def fit(process, indices, cosines, start, config, *, progress=None):
        calls.append(config)
        random = np.random.default_rng(config["seed"])
        return start + 0.05 * config["min_dist"] * random.normal(size=start.shape)

    monkeypatch.setattr(UmapProcess, "fit", fit)
    monkeypatch.setattr(UmapProcess, "warm_up", lambda process: None)
    return calls


@pytest.fixture
def held(monkeypatch):
    """Return an event that holds every UMAP map until it is set."""
    opened = threading.Event()

    def fit(process, indices, cosines, start, config, *, progress):
        deadline = time.monotonic() + SECONDS
        while not opened.wait(0.02):
            progress(100, 500)
            assert time.monotonic() < deadline
        return start

    monkeypatch.setattr(UmapProcess, "fit", fit)
    monkeypatch.setattr(ui_space, "WAITED", 0.05)
    yield opened
    opened.set()


def upload(app, content, name: str = "mine.csv") -> AppTest:
    if isinstance(content, pd.DataFrame):
        content = content.to_csv(index=False).encode()
    app.file_uploader(key="space_upload").set_value((name, content, "text/csv"))
    return app.run()


def type_sentences(app, texts) -> AppTest:
    return app.text_area(key="space_text").set_value("\n".join(texts)).run()


def choose(app, key: str, value) -> AppTest:
    return app.selectbox(key=key).set_value(value).run()


def look_at(app, view: str) -> AppTest:
    return app.button_group(key="space_view").set_value(view).run()


def press(app, key: str) -> AppTest:
    return app.button(key=key).click().run()


def buttons(app) -> dict[str, str]:
    return {button.key: button.label for button in app.button}


def table(app, name: str, place: int = 0) -> pd.DataFrame:
    """Return a table by its name here; of those with the same columns one by its place."""
    return tables(app, name)[place]


def tables(app, name: str) -> list[pd.DataFrame]:
    columns = {
        "numbers": "uniformity",
        "selected": "neighbours kept",
        "changed": "lost",
        "neighbours": "in both",
    }
    return [found.value for found in app.dataframe if columns[name] in found.value]


def assert_is_whole(app) -> None:
    """Nothing was raised, nothing said as an error, and both maps are there."""
    assert not app.exception
    assert not app.error
    assert not app.warning
    assert figures(app).keys() >= {A, B}


def rows_of(entry: dict) -> list[int]:
    return [int(row) for (row,) in np.asarray(entry["customdata"]).tolist()]


def places(app, key: str = A) -> np.ndarray:
    """Return where the sentences stand on a map, in their order, (N, 2)."""
    found = {
        row: (x, y)
        for entry in points_of(app, key)
        for x, y, row in zip(entry["x"], entry["y"], rows_of(entry), strict=True)
    }
    assert sorted(found) == list(range(len(found)))
    return np.array([found[row] for row in range(len(found))], dtype=float)


def points_of(app, key: str = A) -> list[dict]:
    """Return the traces of a map that hold sentences, without rings and stars."""
    others = {"selected", "focus", "neighbour rings", "added", "neighbours", "density"}
    return [entry for entry in figures(app)[key]["data"] if entry.get("name") not in others]


def labels_of(app, key: str = A) -> dict[int, str]:
    """Return the trace that each sentence lies in."""
    return {row: entry["name"] for entry in points_of(app, key) for row in rows_of(entry)}


def values_of(app, key: str = A) -> np.ndarray:
    """Return the number that colours each sentence."""
    entry = trace(app, key, "values")
    assert rows_of(entry) == list(range(len(entry["x"])))
    return np.asarray(entry["marker"]["color"], dtype=float)


def names_of(app, key: str = A) -> set[str]:
    return {entry.get("name") for entry in figures(app)[key]["data"]}


def vectors(tiny_checkpoints, strategy: str, texts=TEXTS, name: str = "alpha") -> np.ndarray:
    """Return embeddings at length 1, found without the page, (N, D)."""
    found = cache.vectors(str(tiny_checkpoints / name), list(texts), strategy).astype(float)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def nearest(unit: np.ndarray, k: int) -> np.ndarray:
    """Return the rows of the k nearest others, by brute force, (N, k)."""
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1)[:, :k]


def shared(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the share of each row that two lists of rows have in common."""
    both = [len(set(a) & set(b)) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    return np.array(both) / first.shape[1]


def around(points: np.ndarray, rows, room: float = 1e-4) -> list[tuple[float, float]]:
    """Return corners of an area around points."""
    (left, low), (right, high) = points[rows].min(axis=0), points[rows].max(axis=0)
    left, low, right, high = left - room, low - room, right + room, high + room
    return [(left, low), (right, low), (right, high), (left, high)]


# --- opening ------------------------------------------------------------------------------------


def test_it_opens_on_the_example_with_pca(open_space):
    app = open_space()
    assert_is_whole(app)
    assert app.title[0].value == "Space"
    assert app.main.markdown[0].value == "Is my space uniform, and what changed?"
    assert app.expander[0].label == "Sentences: the example, 612"
    assert [app.selectbox(key=key).value for key in ("space_a", "space_model", "space_b")] == [
        "mean",
        "the same model",
        "lwap",
    ]
    for key in (A, B):
        drawn = figures(app)[key]
        assert places(app, key).shape == (612, 2)
        assert [entry["name"] for entry in drawn["data"]] == TOPICS
        assert labels_of(app, key) == dict(enumerate(EXAMPLE["topic"]))
        assert drawn["layout"]["showlegend"] is True
        assert "PCA, " in texts_in(drawn) and "of the variance" in texts_in(drawn)
    assert not np.allclose(places(app, A), places(app, B))
    assert names_of(app) == set(TOPICS)  # nothing is chosen yet
    assert figures(app).keys() == {A, B} | VIEWS["Spread"]
    assert not {"s", "colour", "space_a", "space_data", "mouse"} & set(app.query_params)


@pytest.mark.slow
def test_umap_comes_by_itself_and_pca_is_shown_until_then(open_space, monkeypatch, tmp_path):
    monkeypatch.setenv("LWAP_CACHE", str(tmp_path))  # a map that is known comes at once
    app = open_space(projection="UMAP")
    assert_is_whole(app)
    for key in (A, B):
        assert "PCA, " in texts_in(figures(app)[key])
    before = places(app)
    settle(app)
    assert_is_whole(app)
    for key in (A, B):
        said = texts_in(figures(app)[key])
        assert "UMAP, keeps" in said and "of the nearest neighbours" in said
        assert len(places(app, key)) == 612
    assert not np.allclose(places(app), before)
    row = table(app, "numbers").iloc[0]
    near = nearest(places_as_unit(places(app)), 15)
    found = mapping._spaces().found.popitem()[1]
    kept = shared(near, found.spaces[0].near.indices[:, :15]).mean()
    assert row["k-NN recall"] == pytest.approx(kept, abs=2e-3)
    assert f"keeps {kept:.0%}" in texts_in(figures(app)[A])


def places_as_unit(points: np.ndarray) -> np.ndarray:
    """Return vectors whose cosines order as the distances of points do: far up on a sphere."""
    radius = 1000 * np.abs(points - points.mean(axis=0)).max()
    centred = (points - points.mean(axis=0)) / radius
    up = np.sqrt(1 - np.square(centred).sum(axis=1, keepdims=True))
    return np.hstack([centred, up])


def test_a_dark_browser_gets_dark_figures(open_space):
    for view, keys in VIEWS.items():
        light = look_at(open_space(), view)
        dark = look_at(open_space(theme="dark"), view)
        assert_is_whole(dark)
        for key in {A, B} | keys:
            colors = [figures(app)[key]["layout"]["font"]["color"] for app in (light, dark)]
            assert colors[0] != colors[1]


def test_a_plain_encoder_is_compared_with_cls(open_space, tiny_encoder_folder):
    app = open_space(model=str(tiny_encoder_folder))
    assert_is_whole(app)
    assert app.selectbox(key="space_b").value == "cls"
    assert "Dominant layer" not in app.selectbox(key="colour").options
    look_at(app, "Layer by layer")
    assert_is_whole(app)


def test_no_choice_is_set_against_a_default(open_own, caplog, monkeypatch, tiny_encoder_folder):
    """Streamlit logs a warning where a widget has a default and its state is set as well."""
    monkeypatch.setattr(policies, "_shown_default_value_warning", False)  # it does so only once
    app = open_own()
    for name in ("mix", str(tiny_encoder_folder), "alpha"):
        choose(app, "model", name)
    for kind in ("Example", "Typed"):
        app.button_group(key="space_data").set_value(kind).run()
    choose(app, "colour", "Movement")
    app.button_group(key="space_data").set_value("Example").run()
    assert_is_whole(app)
    assert "Session State API" not in caplog.text


# --- what is compared ---------------------------------------------------------------------------


def test_the_chosen_strategies_are_measured(open_space, monkeypatch, tiny_checkpoints):
    calls = []

    def spy(sources, strategies, texts, **options):
        calls.append(([s.facts.name for s in sources], list(strategies), len(texts), options))
        return measure_spaces(sources, strategies, texts, **options)

    monkeypatch.setattr(projection, "measure_spaces", spy)
    app = open_space()
    choose(app, "space_a", "max")
    choose(app, "space_b", "layer_mean:1")
    choose(app, "space_model", "beta")
    assert_is_whole(app)
    assert [(models, names) for models, names, _, _ in calls] == [
        (["alpha", "alpha"], ["mean", "lwap"]),
        (["alpha", "alpha"], ["max", "lwap"]),
        (["alpha", "alpha"], ["max", "layer_mean:1"]),
        (["alpha", "beta"], ["max", "layer_mean:1"]),
    ]
    assert {count for _, _, count, _ in calls} == {612}
    groups = EXAMPLE["group"].to_numpy()
    for *_, options in calls:
        positives = options["positives"]
        assert len(positives) == 612  # three pairs of each of 204 messages
        assert (groups[positives[:, 0]] == groups[positives[:, 1]]).all()
    found = mapping._spaces().found.popitem()[1]
    np.testing.assert_allclose(
        found.spaces[1].unit, vectors(tiny_checkpoints, "layer_mean:1", name="beta"), atol=1e-5
    )
    titles = [texts_in(figures(app)[key]) for key in (A, B)]
    assert "alpha · max" in titles[0] and "beta · layer_mean:1" in titles[1]
    assert table(app, "numbers")["space"].tolist() == ["alpha · max", "beta · layer_mean:1"]


def test_another_model_may_be_typed(open_own, tiny_encoder_folder):
    app = choose(open_own(), "space_model", str(tiny_encoder_folder))
    assert_is_whole(app)
    assert app.selectbox(key="space_b").value == "cls"
    assert mapping._spaces().found.popitem()[0].models == ("alpha", str(tiny_encoder_folder))


def test_an_unknown_model_is_a_message(open_own):
    app = choose(open_own(), "space_model", "nobody/no-such-model")
    assert not app.exception
    assert "'nobody/no-such-model' is not on this machine" in shown(app.error)
    choose(app, "space_model", "the same model")
    assert_is_whole(app)


def test_the_sidebar_may_choose_what_is_the_second_model(open_own):
    app = choose(open_own(), "space_model", "beta")
    choose(app, "model", "beta")
    assert_is_whole(app)
    assert mapping._spaces().found.popitem()[0].models == ("beta", "beta")
    assert "beta ·" not in texts_in(figures(app)[A])


def test_a_strategy_that_the_second_model_lacks_gives_way(open_own, tiny_encoder_folder):
    app = open_own(space_b="lwap", space_model=str(tiny_encoder_folder))
    assert_is_whole(app)
    assert app.selectbox(key="space_b").value == "cls"


def test_a_space_of_one_vector_says_so(open_own):
    app = open_own(space_a="layer_cls:0")
    assert not app.exception
    message = shown(app.error)
    assert "'alpha', strategy 'layer_cls:0': All vectors of this space are the same" in message
    assert not figures(app)
    assert buttons(app) == {"space_again": "Try again"}
    choose(app, "space_a", "mean")
    assert_is_whole(app)


def test_the_settings_arrive_at_umap(open_own, fits, monkeypatch):
    calls = []

    def spy(first, second, method, **options):
        calls.append((method, options))
        return draw_maps(first, second, method, **options)

    monkeypatch.setattr(projection, "draw_maps", spy)
    app = settle(open_own(projection="UMAP"))
    assert_is_whole(app)
    assert fits == [{"n_neighbors": 7, "min_dist": 0.1, "seed": 0}] * 2  # of 8 sentences
    app.slider(key="neighbours").set_value(4).run()
    app.slider(key="min_dist").set_value(0.35).run()
    app.number_input(key="map_seed").set_value(11).run()
    settle(app)
    assert_is_whole(app)
    names = ("n_neighbors", "min_dist", "seed")
    asked = [tuple(given[name] for name in names) for method, given in calls if method == "umap"]
    assert asked == [(15, 0.1, 0), (4, 0.1, 0), (4, 0.35, 0), (4, 0.35, 11)]
    assert fits[-1] == {"n_neighbors": 4, "min_dist": 0.35, "seed": 11}
    drawn = mapping._maps().found.popitem()[1].result
    np.testing.assert_allclose(places(app, B), drawn.maps.second, atol=1e-6)


def test_the_settings_come_from_the_link(open_own, fits):
    settle(open_own(projection="UMAP", neighbours="3", min_dist="0.5", map_seed="7"))
    assert fits == [{"n_neighbors": 3, "min_dist": 0.5, "seed": 7}] * 2


def test_both_maps_have_one_scale_and_share_their_axes(open_space):
    app = open_space()
    for axis in ("xaxis", "yaxis"):
        ranges = [figures(app)[key]["layout"][axis]["range"] for key in (A, B)]
        assert ranges[0] == ranges[1]
        every = np.concatenate([places(app, key) for key in (A, B)])[:, int(axis == "yaxis")]
        assert ranges[0][0] < every.min() and every.max() < ranges[0][1]


# --- colours ------------------------------------------------------------------------------------


def test_a_text_column_colours_by_its_values(open_space):
    app = choose(open_space(), "colour", "register")
    assert_is_whole(app)
    assert labels_of(app) == labels_of(app, B) == dict(enumerate(EXAMPLE["register"]))


@pytest.mark.parametrize("kind", ["k-means", "HDBSCAN"])
def test_clusters_are_of_the_first_full_space(open_space, kind):
    app = choose(open_space(), "colour", f"Cluster ({kind})")
    assert_is_whole(app)
    unit = mapping._spaces().found.popitem()[1].spaces[0].unit
    found = clusters.kmeans(unit, 12) if kind == "k-means" else clusters.hdbscan(unit)
    wanted = {row: label or "no label" for row, label in enumerate(found)}
    assert labels_of(app) == labels_of(app, B) == wanted
    names = [entry["name"] for entry in points_of(app) if entry["name"] != "no label"]
    assert names == [str(number) for number in range(1, len(names) + 1)]
    if without := found.count(""):
        assert f"{without:,} sentences are in no cluster and grey" in shown(app.caption)


def test_the_layer_attention_colours(open_space, tiny_checkpoints):
    app = choose(open_space(), "colour", "Dominant layer")
    assert_is_whole(app)
    model = lwap.load(str(tiny_checkpoints / "alpha"), device="cpu")
    weights = np.asarray(lwap.explain(model, TEXTS).weights, dtype=float)
    names = ["emb", "1", "2", "3"]
    found = labels_of(app)
    order = [entry["name"] for entry in points_of(app)]
    assert found == labels_of(app, B)
    by_state = {}
    for row, state in enumerate(weights.argmax(axis=1)):
        by_state.setdefault(int(state), set()).add(found[row])
    assert len(by_state) > 1
    assert all(len(labels) == 1 for labels in by_state.values())
    assert order == [by_state[state].pop() for state in sorted(by_state)], names
    choose(app, "colour", "Attention entropy")
    assert_is_whole(app)
    entropy = -(weights * np.log(weights)).sum(axis=1) / np.log(4)
    for key in (A, B):
        np.testing.assert_allclose(values_of(app, key), entropy, atol=1e-5)


def test_numbers_of_the_sentences_colour(open_space, tiny_checkpoints):
    units = [vectors(tiny_checkpoints, strategy) for strategy in ("mean", "lwap")]
    near = [nearest(unit, 15) for unit in units]
    app = open_space()

    choose(app, "colour", "Length")
    lengths = [len(text.split()) for text in TEXTS]
    for key in (A, B):
        assert values_of(app, key).tolist() == lengths

    choose(app, "colour", "Distance to the mean")
    for key, unit in zip((A, B), units, strict=True):
        mean = unit.mean(axis=0)
        wanted = 1 - unit @ mean / np.linalg.norm(mean)
        np.testing.assert_allclose(values_of(app, key), wanted, atol=1e-5)

    choose(app, "colour", "Projection error")
    for key, rows in zip((A, B), near, strict=True):
        lost = 1 - shared(nearest(places_as_unit(places(app, key)), 15), rows)
        assert np.isclose(values_of(app, key), lost, atol=1e-6).mean() > 0.98  # ties
        assert values_of(app, key).mean() == pytest.approx(lost.mean(), abs=1e-3)

    choose(app, "colour", "Neighbours changed")
    changed = 1 - shared(near[0][:, :10], near[1][:, :10])
    for key in (A, B):
        np.testing.assert_allclose(values_of(app, key), changed, atol=1e-6)

    choose(app, "colour", "Movement")
    first, second = places(app, A), places(app, B)
    radius = np.sqrt(np.square(first - first.mean(axis=0)).sum(axis=1).mean())
    moved = np.linalg.norm(second - first, axis=1) / radius
    for key in (A, B):
        np.testing.assert_allclose(values_of(app, key), moved, atol=1e-4)
    assert_is_whole(app)


def test_values_have_one_scale_in_both_maps(open_space):
    app = choose(open_space(), "colour", "Distance to the mean")
    every = np.concatenate([values_of(app, key) for key in (A, B)])
    for key in (A, B):
        marker = trace(app, key, "values")["marker"]
        assert (marker["cmin"], marker["cmax"]) == pytest.approx((every.min(), every.max()))


@pytest.mark.parametrize("colour", ["nonsense", "Dominant layer"])
def test_a_colour_that_is_not_there_gives_way(open_space, tiny_encoder_folder, colour):
    app = open_space(colour=colour, model=str(tiny_encoder_folder))
    assert_is_whole(app)
    assert app.selectbox(key="colour").value == "topic"


def test_a_column_of_a_file_gives_way_with_the_file(open_space):
    app = choose(open_space(), "colour", "register")
    app.button_group(key="space_data").set_value("Typed").run()
    assert_is_whole(app)
    assert app.selectbox(key="colour").value == "Neighbours changed"
    assert "register" not in app.selectbox(key="colour").options


# --- sentences ----------------------------------------------------------------------------------


def test_typed_sentences_are_mapped_and_stand_in_the_link(open_own):
    app = open_own()
    assert_is_whole(app)
    assert app.button_group(key="space_data").value == "Typed"
    assert app.text_area(key="space_text").value == "\n".join(OWN)
    assert app.expander[0].label == "Sentences: typed, 8"
    assert len(places(app)) == len(places(app, B)) == 8
    assert "alignment" not in table(app, "numbers")
    type_sentences(app, ["", *OWN, "  ", "  One more.  "])
    assert_is_whole(app)
    assert app.query_params["s"] == [*OWN, "One more."]
    assert len(places(app)) == 9
    app.button_group(key="space_data").set_value("Example").run()
    assert_is_whole(app)
    assert "s" not in app.query_params
    assert len(places(app)) == 612
    app.button_group(key="space_data").set_value("Typed").run()
    assert len(places(app)) == 9


def test_the_box_starts_with_some_of_the_example(open_space):
    app = open_space(space_data="Typed")
    assert_is_whole(app)
    assert app.text_area(key="space_text").value.split("\n") == TEXTS[:60]
    assert "too long for a link" in shown(app.caption)


def test_sentences_are_kept_on_other_pages(open_own):
    app = open_own()
    app.switch_page(PAGES["pairs"]).run()
    app.switch_page(PAGES["space"]).run()
    assert_is_whole(app)
    assert app.text_area(key="space_text").value == "\n".join(OWN)
    assert len(places(app)) == 8


def test_any_text_is_mapped(open_space):
    texts = [
        "🦩 waits 👩‍👩‍👧‍👦",
        "מימין לשמאל",
        "<b>bold</b> $x$ :red[no] *star*",
        "नमस्ते दुनिया",
        " ".join(["heron"] * 10_000),
        "a\u2028b\x0cc",
        "| a | b |",
    ]
    app = type_sentences(open_space(space_data="Typed"), texts)
    assert_is_whole(app)
    assert len(places(app)) == 7
    drawn = texts_in(figures(app)[A])
    assert all(text in drawn for text in ("🦩 waits", "מימין לשמאל", "नमस्ते दुनिया"))
    assert "<b>bold</b> $x$" not in texts_in(figures(app)[A])
    click(app, A, [2])
    assert_is_whole(app)
    assert "**<b>bold</b> $x$ :red[no] *star***: nearest" in shown(app.main.markdown)
    choose(app, "colour", "Length")
    assert values_of(app).max() == 10_000
    for view in VIEWS:
        look_at(app, view)
        assert_is_whole(app)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (OWN[:4], "A map needs 5 different sentences or more; there are 4. Open *Sentences*"),
        ([OWN[0]] * 20, "A map needs 5 different sentences or more; there is 1."),
        ([], "A map needs 5 different sentences or more; there are 0."),
    ],
    ids=["four", "one many times", "none"],
)
def test_too_few_sentences_say_so(open_own, texts, message):
    app = type_sentences(open_own(), texts)
    assert not app.exception
    assert message in shown(app.error)
    assert not figures(app)
    type_sentences(app, OWN)
    assert_is_whole(app)


def test_five_sentences_are_enough(open_own, fits):
    app = settle(open_own(s=OWN[:5], projection="UMAP"))
    assert_is_whole(app)
    for view in VIEWS:
        settle(look_at(app, view))
        assert_is_whole(app)
        assert figures(app).keys() >= VIEWS[view]
    for colour in app.selectbox(key="colour").options:
        choose(app, "colour", colour)
        assert_is_whole(app)


def test_repeated_sentences_are_counted_once(open_own):
    app = type_sentences(open_own(), [*OWN, OWN[2], OWN[0]])
    assert_is_whole(app)
    assert "2 repeated sentences are counted once." in shown(app.caption)
    assert len(places(app)) == 8


def test_more_sentences_than_the_limit_say_so(open_own, monkeypatch):
    monkeypatch.setattr(sentences, "MAX_SENTENCES", 7)
    app = open_own()
    assert not app.exception
    message = "'typed' has 8 different sentences; this page maps up to 7. Take a sample of them."
    assert message in shown(app.error)
    assert not figures(app)
    type_sentences(app, OWN[:7])
    assert_is_whole(app)


# --- files --------------------------------------------------------------------------------------


def test_without_a_file_it_says_what_to_do(open_space):
    app = open_space(space_data="File")
    assert not app.exception
    assert "There is no file yet. Upload one, or choose the example." in shown(app.error)


def test_an_uploaded_file_is_mapped_with_its_columns(open_file, tiny_checkpoints):
    content = pd.DataFrame(
        {
            "number": [1.5, "", 3, 4, 5, 6, 7, 8],
            "sentence": OWN,
            "my_label": ["bird", "bird", "", "river", "river", "bridge", "bridge", ""],
            "group": ["a", "a", "b", "b", "", "", "c", ""],
        }
    )
    app = open_file(content)
    assert_is_whole(app)
    assert app.expander[0].label == "Sentences: mine.csv, 8"
    assert app.selectbox(key="colour").value == "my_label"
    assert "2 sentences are without a label and grey." in shown(app.caption)
    assert labels_of(app) == {
        row: label or "no label" for row, label in enumerate(content["my_label"])
    }
    choose(app, "colour", "number")
    assert_is_whole(app)
    (said,) = [entry.value for entry in app.caption if "is missing in" in entry.value]
    assert said == "'number' is missing in 1 rows, which are grey."
    assert rows_of(trace(app, A, "unknown")) == [1]
    entry = trace(app, A, "values")
    assert np.asarray(entry["marker"]["color"]).tolist() == [1.5, 3, 4, 5, 6, 7, 8]
    unit = vectors(tiny_checkpoints, "mean", OWN)
    near = [np.square(unit[a] - unit[b]).sum() for a, b in ((0, 1), (2, 3))]
    assert table(app, "numbers")["alignment"][0] == pytest.approx(np.mean(near), abs=1e-5)
    look_at(app, "Layer by layer")
    assert_is_whole(app)
    assert "alignment" in texts_in(figures(app)["space-course"]).lower()


def test_a_file_is_kept_on_other_pages_and_another_takes_its_place(open_file):
    app = open_file(pd.DataFrame({"text": OWN}))
    app.switch_page(PAGES["layers"]).run()
    app.switch_page(PAGES["space"]).run()
    assert_is_whole(app)
    assert app.expander[0].label == "Sentences: mine.csv, 8"
    upload(app, "\n".join(OWN[:6]).encode(), "other.txt")
    assert_is_whole(app)
    assert app.expander[0].label == "Sentences: other.txt, 6"
    assert len(places(app)) == 6


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "mine.csv", "'mine.csv' is empty"),
        (b"\n \n", "mine.txt", "'mine.txt' is empty"),
        (b"a,b\n1,2\n", "mine.csv", "'mine.csv' has no column 'sentence'"),
        (b"sentence,b\n,2\n", "mine.csv", "'mine.csv' holds no sentences"),
        (b"PK", "mine.xlsx", "ends in '.xlsx'"),
        (b"\xff\xfe\x00", "mine.txt", "'mine.txt' is not UTF-8"),
        (b"x\n1\n", "a *b* $c$ :red[d].csv", "'a *b* $c$ :red[d].csv' has no column"),
    ],
    ids=["empty", "blank", "columns", "no sentence", "kind", "encoding", "marks"],
)
def test_a_wrong_file_says_what_is_wrong(open_file, content, name, message):
    app = open_file(content, name)
    assert not app.exception
    assert message in shown(app.error)
    assert not figures(app)
    upload(app, pd.DataFrame({"sentence": OWN}))
    assert_is_whole(app)


def test_a_column_may_be_called_as_one_of_ours(open_file, taken):
    columns = {"Length": ["x", "y"] * 4, "movement": range(8), "a *b* <i>": ["p", "q"] * 4}
    app = open_file(pd.DataFrame({"sentence": OWN} | columns))
    assert_is_whole(app)
    assert app.selectbox(key="colour").options.count("Length") == 1
    for name in columns:
        choose(app, "colour", name)
        assert_is_whole(app)
    lasso(app, A, around(places(app), list(range(8))))
    assert_is_whole(app)
    assert len(table(app, "selected")) == 8
    assert len(pd.read_csv(io.StringIO(taken("lwap-maps.csv")))) == 8


def test_many_sentences_are_drawn_as_density_and_chosen_by_the_area(open_file, monkeypatch):
    """Ten thousand of them, each with a label of its own."""
    monkeypatch.setattr(ui_space, "WAITED", SECONDS)
    count = 10_000
    content = pd.DataFrame(
        {
            "sentence": [f"{TEXTS[row % 600][:20]} {row}" for row in range(count)],
            "label": [f"label {row}" for row in range(count)],
        }
    )
    app = open_file(content)
    assert_is_whole(app)
    said = shown(app.caption)
    assert "'label' has 10,000 different values; the 12 most frequent are coloured" in said
    assert "other (9988)" in names_of(app)
    drawn = [row for entry in points_of(app) for row in rows_of(entry)]
    assert len(drawn) == ui_space.DRAWN
    assert "density" in names_of(app)
    # The area decides, not the marks that are sent: most sentences have none.
    maps = mapping._spaces().found.popitem()[1].pca.maps
    middle, radius = np.median(maps.second, axis=0), maps.second.std(axis=0) / 2
    corners = around(np.array([middle - radius, middle + radius]), [0, 1])
    lasso(app, B, corners)
    assert_is_whole(app)
    inside = [row for row, place in enumerate(maps.second) if is_inside(*place, corners)]
    assert len(inside) > ui_space.LISTED > len(set(inside) & set(drawn)) > 100
    assert app.session_state["space_selected"] == inside
    said = shown(app.main.markdown)
    assert f"**{len(inside):,} sentences selected**; the first 1,000 are listed" in said
    assert len(table(app, "selected")) == 1000
    assert buttons(app)["to_layers"] == "Open in Layers (first 200)"
    assert "in 10,000 rows" not in said
    choose(app, "colour", "Length")
    look_at(app, "Walk through the layers")
    assert_is_whole(app)
    assert "1,500 of the sentences." in shown(app.caption)


# --- benchmarks ---------------------------------------------------------------------------------


def test_without_a_data_folder_the_ways_out_are_named(open_space, tmp_path):
    app = open_space(space_data="Benchmark")
    assert not app.exception
    message = shown(app.error)
    assert f"There are no STS tasks in '{tmp_path / 'no data'}'" in message
    assert "python -m lwap data download sts" in message and "LWAP_DATA" in message
    app.button_group(key="space_data").set_value("Example").run()
    assert_is_whole(app)


def test_a_benchmark_is_mapped_with_its_subsets_and_best_pairs(open_space, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    (folder / "sts").mkdir(parents=True)
    pairs = pd.DataFrame(
        {
            "sentence1": [f"A heron waits, number {row}." for row in range(12)],
            "sentence2": [f"The bird waits, number {row}." for row in range(11)]
            + ["A heron waits, number 11."],
            "score": [row % 6 for row in range(12)],
            "subset": ["first", "second"] * 6,
        }
    )
    pairs.to_csv(folder / "sts" / "sts13.csv", index=False)
    pairs.assign(subset="").to_csv(folder / "sts" / "stsb-test.csv", index=False)
    monkeypatch.setenv("LWAP_DATA", str(folder))
    app = open_space(space_data="Benchmark")
    assert_is_whole(app)
    assert app.selectbox(key="space_task").options == ["STS13", "STS-B"]
    assert app.expander[0].label == "Sentences: STS13, 23"
    assert app.selectbox(key="colour").value == "subset"
    assert set(labels_of(app).values()) == {"first", "second"}
    found = mapping._spaces().found.popitem()[1].table
    # Scores 4 and 5 are positive; the pair of one sentence with itself is none.
    texts = [(found.sentences[a], found.sentences[b]) for a, b in found.positives]
    assert texts == [tuple(pairs.iloc[row, :2]) for row in (4, 5, 10)]


# --- clicks -------------------------------------------------------------------------------------


def test_a_click_lists_the_neighbours_of_both_full_spaces(open_space, tiny_checkpoints):
    app = open_space()
    units = [vectors(tiny_checkpoints, strategy) for strategy in ("mean", "lwap")]
    near = [nearest(unit, 10) for unit in units]
    for key, row in ((A, 100), (B, 321)):
        click(app, key, [row])
        assert_is_whole(app)
        assert f"**{TEXTS[row]}**: nearest neighbours in the full space" in shown(app.main.markdown)
        for place, unit in enumerate(units):
            rows = near[place][row]
            listed = table(app, "neighbours", place)
            assert listed["sentence"].tolist() == [TEXTS[other] for other in rows]
            np.testing.assert_allclose(listed["cosine"], unit[rows] @ unit[row], atol=1e-5)
            in_both = np.isin(rows, near[1 - place][row])
            assert listed["in both"].tolist() == in_both.tolist()
            drawn = (A, B)[place]
            assert rows_of(trace(app, drawn, "focus")) == [row]
            assert sorted(rows_of(trace(app, drawn, "neighbour rings"))) == sorted(rows)
    press(app, "space_clear")
    assert_is_whole(app)
    assert not {"focus", "neighbour rings"} & names_of(app)
    assert not tables(app, "neighbours")


def test_the_mouse_may_click_or_draw_a_lasso(open_own):
    app = open_own()
    assert [figures(app)[key]["layout"]["dragmode"] for key in (A, B)] == [False, False]
    app.button_group(key="mouse").set_value("Lasso").run()
    assert [figures(app)[key]["layout"]["dragmode"] for key in (A, B)] == ["lasso", "lasso"]


# --- the lasso ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [A, B])
def test_a_lasso_marks_and_lists_the_same_sentences_in_both_maps(open_space, taken, key):
    app = open_space()
    points = places(app, key)
    low, high = np.quantile(points, [0.3, 0.7], axis=0)
    corners = [(low[0], low[1]), (high[0], low[1]), (low[0], high[1])]  # a triangle
    wanted = [row for row, place in enumerate(points) if is_inside(*place, corners)]
    assert 20 < len(wanted) < 300
    lasso(app, key, corners)
    assert_is_whole(app)
    for drawn in (A, B):
        assert rows_of(trace(app, drawn, "selected")) == wanted
    assert f"**{len(wanted)} sentences selected**" in shown(app.main.markdown)
    listed = table(app, "selected")
    assert listed["sentence"].tolist() == [TEXTS[row] for row in wanted]
    assert listed["topic"].tolist() == EXAMPLE["topic"][wanted].tolist()
    found = mapping._spaces().found.popitem()[1]
    first, second = (space.near.indices[:, :10] for space in found.spaces)
    assert listed["neighbours kept"].tolist() == shared(first, second)[wanted].tolist()
    np.testing.assert_allclose(listed["movement"], found.pca.maps.moved[wanted])
    held_out = pd.read_csv(io.StringIO(taken("lwap-selection.csv")))
    assert held_out["sentence"].tolist() == listed["sentence"].tolist()
    assert list(held_out) == list(listed)
    press(app, "space_clear")
    assert "selected" not in names_of(app, A) | names_of(app, B)
    assert not tables(app, "selected")


def test_the_legend_hides_sentences_from_the_lasso(open_space):
    app = open_space()
    everywhere = around(places(app), list(range(612)))
    lasso(app, A, everywhere, hidden=[TOPICS[0], TOPICS[5]])
    hidden = EXAMPLE["topic"].isin([TOPICS[0], TOPICS[5]])
    assert app.session_state["space_selected"] == np.flatnonzero(~hidden).tolist()


def test_an_empty_lasso_selects_nothing(open_own):
    app = lasso(open_own(), A, [(90, 90), (91, 90), (91, 91)])
    assert_is_whole(app)
    assert "selected" not in names_of(app)
    assert not tables(app, "selected")


def test_a_lasso_and_a_click_replace_each_other(open_own):
    app = open_own()
    lasso(app, A, around(places(app), [0, 1]))
    chosen = rows_of(trace(app, B, "selected"))
    assert {0, 1} <= set(chosen)
    click(app, B, [5])
    assert rows_of(trace(app, A, "focus")) == [5]
    assert "selected" not in names_of(app)
    lasso(app, B, around(places(app, B), [2]))
    assert 2 in rows_of(trace(app, A, "selected"))
    assert "focus" not in names_of(app)


@pytest.mark.parametrize(
    "change",
    [
        lambda app: type_sentences(app, OWN[:7]),
        lambda app: choose(app, "space_a", "max"),
        lambda app: choose(app, "space_model", "beta"),
        lambda app: app.button_group(key="space_data").set_value("Example").run(),
    ],
    ids=["data", "strategy", "model", "kind"],
)
def test_a_selection_is_dropped_when_the_spaces_change(open_own, change):
    app = open_own()
    lasso(app, A, around(places(app), [0, 1, 2]))
    assert "selected" in names_of(app, B)
    change(app)
    assert_is_whole(app)
    assert "selected" not in names_of(app, A) | names_of(app, B)
    assert not tables(app, "selected")


def test_a_selection_stays_when_the_colour_or_the_view_changes(open_own):
    app = open_own()
    lasso(app, A, around(places(app), [0, 1, 2]))
    before = rows_of(trace(app, B, "selected"))
    choose(app, "colour", "Length")
    look_at(app, "What changed")
    assert_is_whole(app)
    assert rows_of(trace(app, B, "selected")) == before


def test_points_in_an_area_are_found_as_by_their_angles():
    random = np.random.default_rng(0)
    points = random.uniform(-1, 1, size=(400, 2))
    shapes = [
        [(0.5, -0.8), (0.9, 0.7), (-0.6, 0.4)],
        [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (0, -0.5), (-0.9, 0.9)],  # a notch
        random.uniform(-1, 1, size=(5, 2)).tolist(),
    ]
    star = [(np.cos(a), np.sin(a)) for a in np.arange(5) * 4 * np.pi / 5]
    for corners in [*shapes[:2], *[shape[::-1] for shape in shapes[:2]]]:
        x, y = zip(*corners, strict=True)
        wanted = [is_inside(*point, corners) for point in points]
        assert ui_space.in_area(points, x, y).tolist() == wanted
        assert 30 < sum(wanted) < 370
    # Where an area winds around itself twice, its middle counts as outside.
    inside = ui_space.in_area(np.array([[0.0, 0.0], [0.8, 0.0]]), *zip(*star, strict=True))
    assert inside.tolist() == [False, True]
    box = ui_space.in_area(points, [0.5, -0.25], [-0.5, 0.75])
    wanted = (abs(points[:, 0] - 0.125) <= 0.375) & (abs(points[:, 1] - 0.125) <= 0.625)
    assert box.tolist() == wanted.tolist()


# --- to the other pages -------------------------------------------------------------------------


@pytest.fixture
def open_directly(open_page):
    """Return a function that opens the page as the first one of a session."""

    def open_directly(**link) -> AppTest:
        open_page("layers")
        app = AppTest.from_file(ROOT / "app.py", default_timeout=SECONDS)
        app.query_params.update({"projection": "PCA"} | link)
        app._page_hash = calc_hash("space")
        return app.run()

    return open_directly


@pytest.fixture(params=["directly", "after another page"])
def open_selected(request, open_directly, open_space):
    """Return a function that opens the page and selects three sentences of the example."""
    opener = open_directly if request.param == "directly" else open_space

    def open_selected() -> tuple[AppTest, list[int]]:
        app = opener()
        assert_is_whole(app)
        points = places(app)
        order = np.argsort(np.linalg.norm(points - points.mean(axis=0), axis=1))
        far = [int(order[-1])]
        lasso(app, A, around(points, far, room=float(np.ptp(points[:, 0])) / 20))
        rows = rows_of(trace(app, A, "selected"))
        assert far[0] in rows and len(rows) < 50
        return app, rows

    return open_selected


def test_a_selection_opens_in_layers(open_selected):
    app, rows = open_selected()
    press(app, "to_layers")
    assert not app.exception
    assert not app.error
    assert app.title[0].value == "Layers"
    assert app.text_area(key="layers_text").value.split("\n") == [TEXTS[row] for row in rows]


def test_a_selection_opens_in_pairs_with_its_neighbours(open_selected, tiny_checkpoints):
    app, rows = open_selected()
    press(app, "to_pairs")
    assert not app.exception
    assert not app.error
    assert app.title[0].value == "Pairs"
    near = nearest(vectors(tiny_checkpoints, "mean"), 1)[:, 0]
    pairs = app.session_state["pairs"]
    assert pairs["sentence1"].tolist() == [TEXTS[row] for row in rows]
    assert pairs["sentence2"].tolist() == [TEXTS[near[row]] for row in rows]
    assert pairs["score"].isna().all()


def test_a_selection_opens_in_search(open_selected):
    app, rows = open_selected()
    press(app, "to_search")
    assert not app.exception
    assert not app.error
    assert app.title[0].value == "Search"
    assert app.text_area(key="search_text").value.split("\n") == [TEXTS[row] for row in rows]


def test_only_the_first_go_where_not_all_fit(open_space):
    app = open_space()
    lasso(app, A, around(places(app), list(range(612))))
    found = buttons(app)
    assert found["to_layers"] == "Open in Layers (first 200)"
    assert found["to_pairs"] == "Open in Pairs (first 50)"
    assert found["to_search"] == "Open in Search"
    press(app, "to_layers")
    assert app.text_area(key="layers_text").value.split("\n") == TEXTS[:200]


# --- sentences that are dropped in --------------------------------------------------------------


def drop(app, text: str) -> AppTest:
    return app.text_input(key="space_drop").set_value(text).run()


@pytest.mark.parametrize("method", ["PCA", "UMAP"])
def test_a_sentence_that_is_on_the_map_gets_its_place(open_space, fits, method):
    app = settle(open_space(projection=method))
    drop(app, f" {TEXTS[40]} | {TEXTS[333]}")
    assert_is_whole(app)
    for key in (A, B):
        star = trace(app, key, "added")
        assert rows_of(star) == [-1, -2]
        found = np.column_stack([star["x"], star["y"]])
        np.testing.assert_allclose(found, places(app, key)[[40, 333]], atol=2e-3)
    drop(app, "")
    assert "added" not in names_of(app)


def test_a_new_sentence_lands_near_its_neighbours(open_own):
    app = drop(open_own(), "The heron has flown away today.")
    star = trace(app, A, "added")
    assert np.isfinite([star["x"], star["y"]]).all()
    assert "The heron has flown away today." in texts_in(figures(app)[A])


def test_a_dropped_sentence_is_no_neighbour_to_look_up(open_own):
    app = drop(open_own(), "A new one.")
    click(app, A, [-1])
    assert_is_whole(app)
    assert "focus" not in names_of(app)
    lasso(app, A, around(places(app), list(range(8)), room=100))
    assert app.session_state["space_selected"] == list(range(8))


def test_only_so_many_are_dropped(open_own):
    app = drop(open_own(), "|".join(f"Number {number}." for number in range(11)))
    assert_is_whole(app)
    assert "The first 8 of the 11 sentences are drawn." in shown(app.caption)
    assert len(trace(app, B, "added")["x"]) == 8


# --- views --------------------------------------------------------------------------------------


def test_the_numbers_are_the_measures_of_both_spaces(open_space, tiny_checkpoints):
    app = open_space()
    found = table(app, "numbers")
    assert found["space"].tolist() == ["mean", "lwap"]
    for row, strategy in enumerate(("mean", "lwap")):
        unit = vectors(tiny_checkpoints, strategy)
        cosines = (unit @ unit.T)[np.triu_indices(612, 1)]
        uniformity = np.log(np.exp(-2 * (2 - 2 * cosines)).mean())
        assert found["mean cosine"][row] == pytest.approx(cosines.mean(), abs=1e-5)
        assert found["uniformity"][row] == pytest.approx(uniformity, abs=1e-4)
    assert "Neighbours are always looked up in the full space." in shown(app.caption)


def test_spread_has_the_exact_density_of_the_sphere(open_space):
    app = open_space()
    drawn = figures(app)["space-cosines"]
    reference = trace(app, "space-cosines", "uniform sphere, D = 32")
    x = np.linspace(-1, 1, 801)
    np.testing.assert_allclose(reference["x"], x)
    np.testing.assert_allclose(reference["y"], random_cosine_density(x, 32))
    found = mapping._spaces().found.popitem()[1]
    for name, space in zip(("mean", "lwap"), found.spaces, strict=True):
        entry = trace(app, "space-cosines", name)
        np.testing.assert_allclose(entry["y"], space.cosines.density)
        spectrum = trace(app, "space-spectrum", name)
        np.testing.assert_allclose(np.asarray(spectrum["y"])[:32], 100 * space.variance, rtol=1e-5)
    assert "Pairwise cosines" in texts_in(drawn)
    assert "the exact density in 32 dimensions" in shown(app.caption)


def test_what_changed_lists_the_most_changed_first(open_space, tiny_checkpoints, taken):
    app = look_at(open_space(), "What changed")
    assert_is_whole(app)
    near = [nearest(vectors(tiny_checkpoints, name), 10) for name in ("mean", "lwap")]
    kept = shared(*near)
    listed = table(app, "changed")
    assert len(listed) == 200
    assert list(listed) == ["sentence", "kept", "lost", "gained", "movement"]
    assert listed["kept"].is_monotonic_increasing
    assert listed["kept"].tolist() == sorted(kept)[:200]
    moved = mapping._spaces().found.popitem()[1].pca.maps.moved
    for sentence, share, lost, gained, movement in listed.to_numpy().tolist():
        row = TEXTS.index(sentence)
        assert share == pytest.approx(kept[row])
        before, after = ([TEXTS[i] for i in rows[row]] for rows in near)
        assert lost == next((text for text in before if text not in after), "")
        assert gained == next((text for text in after if text not in before), "")
        assert movement == pytest.approx(moved[row])
    said = shown(app.main.markdown)
    assert f"On average {kept.mean():.0%} of a sentence's 10 nearest neighbours" in said
    assert f"{(kept == 0).sum()} sentences keep none" in said
    every = pd.read_csv(io.StringIO(taken("lwap-changed.csv")))
    assert sorted(every["sentence"]) == sorted(TEXTS)
    assert every["sentence"].tolist()[:200] == listed["sentence"].tolist()


def test_the_same_space_twice_has_not_changed(open_space):
    app = look_at(open_space(space_b="mean"), "What changed")
    assert_is_whole(app)
    assert "No neighbourhood differs between the two spaces." in shown(app.info)
    assert not tables(app, "changed")
    np.testing.assert_array_equal(places(app, A), places(app, B))
    choose(app, "colour", "Movement")
    assert not values_of(app, B).any()
    look_at(app, "Spread")
    names = [entry.get("name") for entry in figures(app)["space-cosines"]["data"]]
    assert names.count("mean") == 1


def test_layer_by_layer_shows_every_state_and_the_strategies(open_space, taken):
    app = look_at(open_space(), "Layer by layer")
    assert_is_whole(app)
    said = texts_in(figures(app)["space-course"])
    for name in ("mean", "lwap"):
        assert name in said
    found = pd.read_csv(io.StringIO(taken("lwap-layers-geometry.csv"))).set_index("strategy")
    layers = [f"layer_{kind}:{state}" for kind in ("cls", "mean") for state in range(4)]
    assert found.index.tolist() == [*layers, "mean", "lwap"]
    assert found.loc["layer_cls:0"].isna().all()
    np.testing.assert_allclose(found.loc["layer_mean:3"], found.loc["mean"], rtol=1e-6)
    assert found.loc["lwap", "uniformity"] == pytest.approx(table(app, "numbers")["uniformity"][1])
    choose(app, "space_model", "beta")
    assert "lwap" in texts_in(figures(app)["space-course"])


def test_the_walk_has_a_frame_for_each_state(open_space):
    app = look_at(open_space(), "Walk through the layers")
    assert_is_whole(app)
    walk = figures(app)["space-walk"]
    labels = [step["label"] for step in walk["layout"]["sliders"][0]["steps"]]
    assert len(walk["frames"]) == len(labels) == 5
    assert labels[-1] == "lwap"
    assert [entry["name"] for entry in walk["data"]] == TOPICS
    assert "then lwap." in shown(app.caption)
    choose(app, "space_b", "layer_mean:2")
    assert len(figures(app)["space-walk"]["frames"]) == 4
    choose(app, "colour", "Distance to the mean")
    assert_is_whole(app)
    assert "then" not in next(c for c in shown(app.caption).split("\n") if "token mean" in c)


def test_the_walk_is_drawn_by_umap_where_the_maps_are(open_own, fits):
    app = settle(open_own(projection="UMAP", neighbours="3", map_seed="2"))
    fits.clear()
    settle(look_at(app, "Walk through the layers"))
    assert_is_whole(app)
    assert fits == [{"n_neighbors": 3, "min_dist": 0.1, "seed": 2}] * 5
    assert len(figures(app)["space-walk"]["frames"]) == 5


def test_pca_has_no_chance(open_own):
    app = look_at(open_own(), "Chance")
    assert_is_whole(app)
    assert "PCA has no seed" in shown(app.info)


def test_chance_draws_each_map_with_two_more_seeds(open_own, fits):
    app = settle(open_own(projection="UMAP", map_seed="3"))
    settle(look_at(app, "Chance"))
    assert_is_whole(app)
    keys = {f"space-seed-{place}-{seed}" for place in (0, 1) for seed in range(3)}
    assert figures(app).keys() == {A, B} | keys
    for place, key in enumerate((A, B)):
        for number in range(3):
            drawn = figures(app)[f"space-seed-{place}-{number}"]
            assert f"Seed {3 + number}" in texts_in(drawn)
            assert drawn["layout"]["dragmode"] is False
        own = trace(app, f"space-seed-{place}-0", "values")
        np.testing.assert_allclose(np.column_stack([own["x"], own["y"]]), places(app, key))
    work = next(
        found for key, found in mapping._maps().found.items() if isinstance(key, tuple)
    ).result
    said = shown(app.main.markdown)
    for name, found in zip(("mean", "lwap"), work, strict=True):
        assert (
            f"**{name}**: with another seed a point keeps {found.kept.mean():.0%} of its 15 "
            f"neighbours on the map and moves by {np.median(found.moved):.2f} radii"
        ) in said


def test_chance_of_many_sentences_waits_for_a_press(open_own, fits, monkeypatch):
    monkeypatch.setattr(ui_space, "DRAWN", 6)
    app = settle(open_own(projection="UMAP"))
    fits.clear()
    settle(look_at(app, "Chance"))
    assert fits == []
    settle(press(app, "space_seeds_go"))
    assert_is_whole(app)
    assert len(fits) == 4
    assert "space-seed-1-2" in figures(app)


def test_both_maps_can_be_taken_away(open_space, taken):
    app = open_space()
    found = pd.read_csv(io.StringIO(taken("lwap-maps.csv")))
    assert found["sentence"].tolist() == TEXTS
    assert found["topic"].tolist() == EXAMPLE["topic"].tolist()
    for side, key in (("first", A), ("second", B)):
        np.testing.assert_allclose(found[[f"{side} x", f"{side} y"]], places(app, key), atol=1e-6)
    assert {"first k-NN recall", "second trustworthiness", "movement", "neighbours kept"} <= set(
        found
    )


# --- waiting, stopping, failing -----------------------------------------------------------------


def test_a_stopped_measuring_can_go_on(open_own, monkeypatch):
    reached, opened = threading.Event(), threading.Event()

    def held(*arguments, progress, **options):
        reached.set()
        while not opened.wait(0.02):
            progress(3, 8)
        return measure_spaces(*arguments, progress=progress, **options)

    monkeypatch.setattr(projection, "measure_spaces", held)
    monkeypatch.setattr(ui_space, "WAITED", 0.05)
    app = open_own()
    assert reached.wait(SECONDS)
    app.run()
    assert not app.exception
    assert not figures(app)
    assert buttons(app) == {"space_stop": "Stop"}
    assert "Sentences encoded: 3 of 8" in json.dumps(
        [str(element.proto) for element in app.get("progress")]
    )
    press(app, "space_stop")
    settle(app)
    assert "Stopped. What was encoded is kept" in shown(app.info)
    assert buttons(app) == {"space_again": "Go on"}
    opened.set()
    settle(press(app, "space_again"))
    assert_is_whole(app)
    assert not app.info


def test_a_stopped_umap_leaves_pca_and_can_be_drawn(open_own, held):
    app = open_own(projection="UMAP")
    assert_is_whole(app)
    assert "PCA, " in texts_in(figures(app)[A])
    assert "umap_stop" in buttons(app)
    look_at(app, "Chance")
    assert "There is no UMAP map yet" in shown(app.info)
    press(app, "umap_stop")
    settle(app)
    assert_is_whole(app)
    assert "UMAP was stopped; this is the PCA map." in shown(app.info)
    assert "PCA, " in texts_in(figures(app)[B])
    held.set()
    settle(press(app, "umap_again"))
    assert_is_whole(app)
    assert not app.info
    assert "UMAP, keeps" in texts_in(figures(app)[B])


def test_a_failed_umap_shows_why_and_pca_and_can_be_tried_again(open_own, fits, monkeypatch):
    def failing(*arguments, **options):
        raise ConfigError("The process that draws *UMAP* maps ended (by signal 9).")

    with monkeypatch.context() as patch:
        patch.setattr(UmapProcess, "fit", failing)
        app = settle(open_own(projection="UMAP"))
        assert not app.exception
        message = "The process that draws *UMAP* maps ended (by signal 9). Below is the PCA map."
        assert message in shown(app.error)
        assert "PCA, " in texts_in(figures(app)[A])
        assert buttons(app)["umap_again"] == "Try again"
        app.run()  # no other try by itself
        assert message in shown(app.error)
    settle(press(app, "umap_again"))
    assert_is_whole(app)
    assert "UMAP, keeps" in texts_in(figures(app)[A])


def test_a_failed_view_says_why_and_does_not_start_by_itself(open_own, monkeypatch):
    calls = []

    def failing(*arguments, **options):
        calls.append(1)
        raise ConfigError("Not today.")

    with monkeypatch.context() as patch:
        patch.setattr(projection, "layer_course", failing)
        app = look_at(open_own(), "Layer by layer")
        for _ in range(3):
            app.run()
        assert not app.exception
        assert shown(app.error) == "Not today."
        assert figures(app).keys() == {A, B}
        assert len(calls) == 1
    press(app, "course_stop_again")
    settle(app)
    assert_is_whole(app)
    assert "space-course" in figures(app)


def test_a_stopped_view_stays_stopped_until_asked(open_own, monkeypatch):
    opened = threading.Event()
    course = projection.layer_course

    def held(*arguments, on_strategy, **options):
        while not opened.wait(0.02):
            on_strategy(2, 10)
        return course(*arguments, on_strategy=on_strategy, **options)

    monkeypatch.setattr(projection, "layer_course", held)
    monkeypatch.setattr(ui_space, "WAITED", 0.3)
    app = look_at(open_own(), "Layer by layer")
    assert buttons(app)["course_stop"] == "Stop"
    press(app, "course_stop")
    settle(app)
    assert_is_whole(app)
    assert "Layers measured: stopped." in shown(app.info)
    opened.set()
    settle(press(app, "course_stop_again"))
    assert_is_whole(app)
    assert "space-course" in figures(app)


def test_a_process_that_cannot_be_started_leaves_pca(open_own, monkeypatch):
    def failing(process):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(UmapProcess, "warm_up", failing)
    app = open_own(projection="UMAP")
    assert not app.exception
    assert "cannot be started (Cannot allocate memory)" in shown(app.error)
    app.button_group(key="projection").set_value("PCA").run()
    assert_is_whole(app)


# --- two sessions -------------------------------------------------------------------------------


def test_two_sessions_share_the_computation_but_not_the_selection(open_own, fits, monkeypatch):
    calls = []

    def spy(*arguments, **options):
        calls.append(1)
        return measure_spaces(*arguments, **options)

    monkeypatch.setattr(projection, "measure_spaces", spy)
    first = settle(open_own(projection="UMAP"))
    lasso(first, A, around(places(first), [0, 1, 2]))
    click_in = settle(open_own(projection="UMAP"))
    assert_is_whole(click_in)
    assert len(calls) == 1
    assert len(fits) == 2
    np.testing.assert_array_equal(places(click_in), places(first))
    assert "selected" not in names_of(click_in)
    click(click_in, B, [4])
    first.run()
    assert {0, 1, 2} <= set(rows_of(trace(first, B, "selected")))
    assert "focus" not in names_of(first)


def test_equal_sentences_of_another_session_keep_their_own_labels(open_file, open_own, taken):
    """Spaces are shared by what their sentences are; labels are everyone's own."""
    one = pd.DataFrame({"sentence": OWN, "secret": ["a", "b"] * 4})
    other = pd.DataFrame({"sentence": OWN, "topic": ["p", "q", "r", "s"] * 2})
    assert_is_whole(open_file(one))
    app = open_file(other)
    lasso(app, A, around(places(app), list(range(8))))
    assert_is_whole(app)
    assert len(mapping._spaces().found) == 1
    for found in (
        table(app, "selected"),
        pd.read_csv(io.StringIO(taken("lwap-selection.csv"))),
        pd.read_csv(io.StringIO(taken("lwap-maps.csv"))),
    ):
        assert "secret" not in found
        assert found["topic"].tolist() == other["topic"].tolist()
    assert "secret" not in shown(app.main.markdown)
