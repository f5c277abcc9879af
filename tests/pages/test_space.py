"""The Space page: sentences in; two linked maps, what was chosen in them, and five views out."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from streamlit.elements.lib import policies
from streamlit.testing.v1 import AppTest

import lwap
from lwap.errors import ConfigError
from lwap.evaluation.geometry import random_cosine_density
from lwap.projection import clusters
from lwap.projection import space as projection
from lwap.projection.process import UmapProcess
from lwap.projection.space import layer_course, measure_spaces
from lwap.ui import cache
from lwap.ui.space import mapping
from lwap.ui.space import maps as ui_space
from tests.holding import SECONDS, Gate
from tests.pages.driving import (
    PAGES,
    ROOT,
    click,
    figures,
    is_inside,
    lasso,
    shown,
    texts_in,
    trace,
    works,
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
    """Return a function that opens the page with PCA maps, measured; by keyword, the link."""

    def open_space(**options) -> AppTest:
        return ready(open_page("space", **{"projection": "PCA"} | options))

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
def gate():
    found = Gate()
    yield found
    found.opened.set()


def ready(app) -> AppTest:
    """Run again, as the page's clock does, until the page waits for nothing."""
    while app.get("progress"):
        for found in works():
            assert found.wait(SECONDS)
        app.run()
    return app


def measured() -> mapping.Spaces:
    """Return what the server has measured last, or looked at."""
    return list(mapping._spaces().found.values())[-1]


def upload(app, content, name: str = "mine.csv") -> AppTest:
    if isinstance(content, pd.DataFrame):
        content = content.to_csv(index=False).encode()
    app.file_uploader(key="space_upload").set_value((name, content, "text/csv"))
    return ready(app.run())


def type_sentences(app, texts) -> AppTest:
    return ready(app.text_area(key="space_text").set_value("\n".join(texts)).run())


def choose(app, key: str, value) -> AppTest:
    return ready(app.selectbox(key=key).set_value(value).run())


def pick(app, key: str, value) -> AppTest:
    """Choose one of a row of buttons."""
    return ready(app.button_group(key=key).set_value(value).run())


def look_at(app, view: str) -> AppTest:
    return pick(app, "space_view", view)


def press(app, key: str) -> AppTest:
    return ready(app.button(key=key).click().run())


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


def test_it_opens_on_the_example_with_pca_and_the_measures_of_both_spaces(
    open_space, tiny_checkpoints, taken
):
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

    # Both maps have one scale and share their axes.
    for axis in ("xaxis", "yaxis"):
        ranges = [figures(app)[key]["layout"][axis]["range"] for key in (A, B)]
        assert ranges[0] == ranges[1]
        every = np.concatenate([places(app, key) for key in (A, B)])[:, int(axis == "yaxis")]
        assert ranges[0][0] < every.min() and every.max() < ranges[0][1]

    found = table(app, "numbers")
    assert found["space"].tolist() == ["mean", "lwap"]
    for row, strategy in enumerate(("mean", "lwap")):
        unit = vectors(tiny_checkpoints, strategy)
        cosines = (unit @ unit.T)[np.triu_indices(612, 1)]
        uniformity = np.log(np.exp(-2 * (2 - 2 * cosines)).mean())
        assert found["mean cosine"][row] == pytest.approx(cosines.mean(), abs=1e-5)
        assert found["uniformity"][row] == pytest.approx(uniformity, abs=1e-4)
    assert "Neighbours are always looked up in the full space." in shown(app.caption)

    # Spread has the exact density of the sphere.
    reference = trace(app, "space-cosines", "uniform sphere, D = 32")
    x = np.linspace(-1, 1, 801)
    np.testing.assert_allclose(reference["x"], x)
    np.testing.assert_allclose(reference["y"], random_cosine_density(x, 32))
    for name, space in zip(("mean", "lwap"), measured().spaces, strict=True):
        entry = trace(app, "space-cosines", name)
        np.testing.assert_allclose(entry["y"], space.cosines.density)
        spectrum = trace(app, "space-spectrum", name)
        np.testing.assert_allclose(np.asarray(spectrum["y"])[:32], 100 * space.variance, rtol=1e-5)
    assert "Pairwise cosines" in texts_in(figures(app)["space-cosines"])
    assert "the exact density in 32 dimensions" in shown(app.caption)

    # Both maps can be taken away.
    found = pd.read_csv(io.StringIO(taken("lwap-maps.csv")))
    assert found["sentence"].tolist() == TEXTS
    assert found["topic"].tolist() == EXAMPLE["topic"].tolist()
    for side, key in (("first", A), ("second", B)):
        np.testing.assert_allclose(found[[f"{side} x", f"{side} y"]], places(app, key), atol=1e-6)
    assert {"first k-NN recall", "second trustworthiness", "movement", "neighbours kept"} <= set(
        found
    )


@pytest.mark.slow
def test_umap_comes_by_itself(open_space, monkeypatch, tmp_path):
    """The one test of the page with umap itself."""
    monkeypatch.setenv("LWAP_CACHE", str(tmp_path))  # a map that is known needs no process
    app = open_space(projection="UMAP", space_view="What changed")
    assert_is_whole(app)
    for key in (A, B):
        said = texts_in(figures(app)[key])
        assert "UMAP, keeps" in said and "of the nearest neighbours" in said
        assert len(places(app, key)) == 612
    found = measured()
    assert not np.allclose(places(app), found.pca.maps.first, atol=0.1)
    row = table(app, "numbers").iloc[0]
    near = nearest(places_as_unit(places(app)), 15)
    kept = shared(near, found.spaces[0].near.indices[:, :15]).mean()
    assert row["k-NN recall"] == pytest.approx(kept, abs=2e-3)
    assert f"keeps {kept:.0%}" in texts_in(figures(app)[A])


def places_as_unit(points: np.ndarray) -> np.ndarray:
    """Return vectors whose cosines order as the distances of points do: far up on a sphere."""
    radius = 1000 * np.abs(points - points.mean(axis=0)).max()
    centred = (points - points.mean(axis=0)) / radius
    up = np.sqrt(1 - np.square(centred).sum(axis=1, keepdims=True))
    return np.hstack([centred, up])


@pytest.mark.slow
def test_a_dark_browser_gets_dark_figures(open_own):
    colors = {"light": {}, "dark": {}}
    for theme, found in colors.items():
        app = open_own(theme=theme)
        for view in VIEWS:
            look_at(app, view)
            assert_is_whole(app)
            found |= {key: drawn["layout"]["font"]["color"] for key, drawn in figures(app).items()}
    assert colors["light"].keys() == {A, B}.union(*VIEWS.values())
    assert all(colors["dark"][key] != color for key, color in colors["light"].items())


@pytest.mark.slow
def test_a_plain_encoder_is_compared_with_cls(open_space, tiny_encoder_folder):
    app = open_space(model=str(tiny_encoder_folder), colour="Dominant layer")
    assert_is_whole(app)
    assert app.selectbox(key="space_b").value == "cls"
    assert "Dominant layer" not in app.selectbox(key="colour").options
    assert app.selectbox(key="colour").value == "topic"
    look_at(app, "Layer by layer")
    assert_is_whole(app)
    assert "space-course" in figures(app)


@pytest.mark.slow
def test_no_choice_is_set_against_a_default(open_own, caplog, monkeypatch, tiny_encoder_folder):
    """Streamlit logs a warning where a widget has a default and its state is set as well."""
    monkeypatch.setattr(policies, "_shown_default_value_warning", False)  # it does so only once
    app = open_own(space_view="What changed")
    for name in ("mix", str(tiny_encoder_folder), "alpha"):
        choose(app, "model", name)
    for kind in ("Example", "Typed"):
        pick(app, "space_data", kind)
    choose(app, "colour", "Movement")
    pick(app, "space_data", "Example")
    assert_is_whole(app)
    assert "Session State API" not in caplog.text


# --- what is compared ---------------------------------------------------------------------------


@pytest.mark.slow
def test_the_chosen_strategies_are_measured(open_space, tiny_checkpoints):
    groups = EXAMPLE["group"].to_numpy()
    first, second = np.triu_indices(612, 1)
    positives = np.stack([first, second], axis=1)[groups[first] == groups[second]]
    assert len(positives) == 612  # three pairs of each of 204 messages
    app = open_space(space_view="What changed")
    for key, value, spaces in (
        ("space_a", "max", [("alpha", "max"), ("alpha", "lwap")]),
        ("space_b", "layer_mean:1", [("alpha", "max"), ("alpha", "layer_mean:1")]),
        ("space_model", "beta", [("alpha", "max"), ("beta", "layer_mean:1")]),
    ):
        choose(app, key, value)
        assert_is_whole(app)
        found, numbers = measured(), table(app, "numbers")
        assert found.request.models == tuple(model for model, _ in spaces)
        for place, (model, strategy) in enumerate(spaces):
            unit = vectors(tiny_checkpoints, strategy, name=model)
            np.testing.assert_allclose(found.spaces[place].unit, unit, atol=1e-5)
            apart = np.square(unit[positives[:, 0]] - unit[positives[:, 1]]).sum(axis=1)
            assert numbers["alignment"][place] == pytest.approx(apart.mean(), abs=1e-5)
    titles = [texts_in(figures(app)[key]) for key in (A, B)]
    assert "alpha · max" in titles[0] and "beta · layer_mean:1" in titles[1]
    assert table(app, "numbers")["space"].tolist() == ["alpha · max", "beta · layer_mean:1"]


@pytest.mark.slow
def test_the_second_model_may_be_typed_unknown_or_the_first_itself(open_own, tiny_encoder_folder):
    # A strategy of the link that the second model lacks gives way.
    plain = str(tiny_encoder_folder)
    app = open_own(space_b="lwap", space_model=plain, space_view="What changed")
    assert_is_whole(app)
    assert app.selectbox(key="space_b").value == "cls"
    assert measured().request.models == ("alpha", plain)
    choose(app, "space_model", "nobody/no-such-model")
    assert not app.exception
    assert "'nobody/no-such-model' is not on this machine" in shown(app.error)
    choose(app, "space_model", "the same model")
    assert_is_whole(app)
    choose(app, "space_model", plain)  # it may be typed, too
    assert_is_whole(app)
    assert app.selectbox(key="space_b").value == "cls"
    choose(app, "space_model", "beta")
    choose(app, "model", "beta")
    assert_is_whole(app)
    assert measured().request.models == ("beta", "beta")
    assert "beta ·" not in texts_in(figures(app)[A])


def test_a_space_of_one_vector_says_so(open_own):
    app = open_own(space_a="layer_cls:0", space_view="What changed")
    assert not app.exception
    message = shown(app.error)
    assert "'alpha', strategy 'layer_cls:0': All vectors of this space are the same" in message
    assert not figures(app)
    assert buttons(app) == {"space_again": "Try again"}
    choose(app, "space_a", "mean")
    assert_is_whole(app)


def test_the_settings_arrive_at_umap(open_own, fits):
    app = open_own(projection="UMAP", neighbours="3", min_dist="0.5", space_view="What changed")
    assert_is_whole(app)
    assert fits == [{"n_neighbors": 3, "min_dist": 0.5, "seed": 0}] * 2
    ready(app.slider(key="neighbours").set_value(40).run())
    ready(app.slider(key="min_dist").set_value(0.35).run())
    ready(app.number_input(key="map_seed").set_value(11).run())
    assert_is_whole(app)
    names = ("n_neighbors", "min_dist", "seed")
    asked = [tuple(given[name] for name in names) for given in fits[2:]]
    assert asked[::2] == asked[1::2] == [(7, 0.5, 0), (7, 0.35, 0), (7, 0.35, 11)]  # of 8 points
    drawn = list(mapping._maps().found.values())[-1].result
    np.testing.assert_allclose(places(app, B), drawn.maps.second, atol=1e-6)


@pytest.mark.slow
def test_the_settings_have_defaults_and_come_from_the_link(open_own, fits):
    open_own(projection="UMAP", space_view="What changed")
    open_own(projection="UMAP", map_seed="7", space_view="What changed")
    found = list(mapping._maps().found)
    assert [(each.n_neighbors, each.min_dist, each.seed) for each in found] == [
        (15, 0.1, 0),
        (15, 0.1, 7),
    ]
    assert fits[-1] == {"n_neighbors": 7, "min_dist": 0.1, "seed": 7}


# --- colours ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_labels_colour(open_space, tiny_checkpoints):
    app = open_space(colour="nonsense", space_view="What changed")
    assert_is_whole(app)
    assert app.selectbox(key="colour").value == "topic"

    unit = measured().spaces[0].unit
    for kind, found in (
        ("k-means", clusters.kmeans(unit, 12)),
        ("HDBSCAN", clusters.hdbscan(unit)),
    ):
        choose(app, "colour", f"Cluster ({kind})")
        assert_is_whole(app)
        wanted = {row: label or "no label" for row, label in enumerate(found)}
        assert labels_of(app) == labels_of(app, B) == wanted
        names = [entry["name"] for entry in points_of(app) if entry["name"] != "no label"]
        assert names == [str(number) for number in range(1, len(names) + 1)]
        if without := found.count(""):
            assert f"{without:,} sentences are in no cluster and grey" in shown(app.caption)

    choose(app, "colour", "Dominant layer")
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

    choose(app, "colour", "register")
    assert_is_whole(app)
    assert labels_of(app) == labels_of(app, B) == dict(enumerate(EXAMPLE["register"]))
    pick(app, "space_data", "Typed")  # the column goes with its file
    assert_is_whole(app)
    assert app.selectbox(key="colour").value == "Neighbours changed"
    assert "register" not in app.selectbox(key="colour").options


@pytest.mark.slow
def test_numbers_of_the_sentences_colour(open_space, tiny_checkpoints):
    units = [vectors(tiny_checkpoints, strategy) for strategy in ("mean", "lwap")]
    near = [nearest(unit, 15) for unit in units]
    app = open_space(space_view="What changed")

    choose(app, "colour", "Length")
    lengths = [len(text.split()) for text in TEXTS]
    for key in (A, B):
        assert values_of(app, key).tolist() == lengths

    choose(app, "colour", "Distance to the mean")
    for key, unit in zip((A, B), units, strict=True):
        mean = unit.mean(axis=0)
        wanted = 1 - unit @ mean / np.linalg.norm(mean)
        np.testing.assert_allclose(values_of(app, key), wanted, atol=1e-5)
    every = np.concatenate([values_of(app, key) for key in (A, B)])
    for key in (A, B):  # one scale in both maps
        marker = trace(app, key, "values")["marker"]
        assert (marker["cmin"], marker["cmax"]) == pytest.approx((every.min(), every.max()))

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


# --- sentences ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_typed_sentences_are_mapped_stand_in_the_link_and_are_kept(open_own):
    app = open_own(space_view="What changed")
    assert_is_whole(app)
    assert app.button_group(key="space_data").value == "Typed"
    assert app.text_area(key="space_text").value == "\n".join(OWN)
    assert app.expander[0].label == "Sentences: typed, 8"
    assert len(places(app)) == len(places(app, B)) == 8
    assert "alignment" not in table(app, "numbers")
    type_sentences(app, ["", *OWN, "  ", "  One more.  ", OWN[2], OWN[0]])
    assert_is_whole(app)
    assert "2 repeated sentences are counted once." in shown(app.caption)
    assert len(places(app)) == 9
    pick(app, "space_data", "Example")
    assert_is_whole(app)
    assert "s" not in app.query_params
    assert len(places(app)) == 612
    pick(app, "space_data", "Typed")
    assert len(places(app)) == 9
    type_sentences(app, ["", *OWN, "  ", "  One more.  "])
    assert app.query_params["s"] == [*OWN, "One more."]
    text = app.text_area(key="space_text").value
    app.switch_page(PAGES["models"]).run()
    ready(app.switch_page(PAGES["space"]).run())
    assert_is_whole(app)
    assert app.text_area(key="space_text").value == text
    assert len(places(app)) == 9


@pytest.mark.slow
def test_any_text_is_mapped(open_space):
    app = open_space(space_data="Typed", space_view="What changed")
    assert_is_whole(app)
    assert app.text_area(key="space_text").value.split("\n") == TEXTS[:60]
    assert "too long for a link" in shown(app.caption)

    texts = [
        "🦩 waits 👩‍👩‍👧‍👦",
        "מימין לשמאל",
        "<b>bold</b> $x$ :red[no] *star*",
        "नमस्ते दुनिया",
        " ".join(["heron"] * 10_000),
        "a\u2028b\x0cc",
        "| a | b |",
    ]
    type_sentences(app, texts)
    assert_is_whole(app)
    assert len(places(app)) == 7
    drawn = texts_in(figures(app)[A])
    assert all(text in drawn for text in ("🦩 waits", "מימין לשמאל", "नमस्ते दुनिया"))
    assert "<b>bold</b> $x$" not in drawn
    click(app, A, [2])
    assert_is_whole(app)
    assert "**<b>bold</b> $x$ :red[no] *star***: nearest" in shown(app.main.markdown)
    choose(app, "colour", "Length")
    assert values_of(app).max() == 10_000
    for view in VIEWS:
        look_at(app, view)
        assert_is_whole(app)


@pytest.mark.slow
def test_too_few_sentences_say_so(open_own):
    app = open_own(space_view="What changed")
    for texts, message in (
        (OWN[:4], "A map needs 5 different sentences or more; there are 4. Open *Sentences*"),
        ([OWN[0]] * 20, "A map needs 5 different sentences or more; there is 1."),
        ([], "A map needs 5 different sentences or more; there are 0."),
    ):
        type_sentences(app, texts)
        assert not app.exception
        assert message in shown(app.error)
        assert not figures(app)
    type_sentences(app, OWN)
    assert_is_whole(app)


@pytest.mark.slow
def test_five_sentences_are_enough(open_own, fits):
    app = open_own(s=OWN[:5], projection="UMAP")
    assert_is_whole(app)
    for view in [view for view in VIEWS if view != "What changed"] + ["What changed"]:
        look_at(app, view)
        assert_is_whole(app)
        assert figures(app).keys() >= VIEWS[view]
    for colour in app.selectbox(key="colour").options:
        choose(app, "colour", colour)
        assert_is_whole(app)


# --- files --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_uploaded_file_is_mapped_with_its_columns_and_kept(open_file, tiny_checkpoints):
    content = pd.DataFrame(
        {
            "number": [1.5, "", 3, 4, 5, 6, 7, 8],
            "sentence": OWN,
            "my_label": ["bird", "bird", "", "river", "river", "bridge", "bridge", ""],
            "group": ["a", "a", "b", "b", "", "", "c", ""],
        }
    )
    app = open_file(content, space_view="Layer by layer")
    assert_is_whole(app)
    assert app.expander[0].label == "Sentences: mine.csv, 8"
    assert app.selectbox(key="colour").value == "my_label"
    assert "2 sentences are without a label and grey." in shown(app.caption)
    assert labels_of(app) == {
        row: label or "no label" for row, label in enumerate(content["my_label"])
    }
    assert "alignment" in texts_in(figures(app)["space-course"]).lower()
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

    app.switch_page(PAGES["models"]).run()
    ready(app.switch_page(PAGES["space"]).run())
    assert_is_whole(app)
    assert app.expander[0].label == "Sentences: mine.csv, 8"
    upload(app, "\n".join(OWN[:6]).encode(), "other.txt")
    assert_is_whole(app)
    assert app.expander[0].label == "Sentences: other.txt, 6"
    assert len(places(app)) == 6


MANY = "\n".join(map(str, range(100_001))).encode()
WRONG_FILES = [
    (b"", "mine.csv", "'mine.csv' is empty"),
    (b"\n \n", "mine.txt", "'mine.txt' is empty"),
    (b"a,b\n1,2\n", "mine.csv", "'mine.csv' has no column 'sentence'"),
    (b"sentence,b\n,2\n", "mine.csv", "'mine.csv' holds no sentences"),
    (b"PK", "mine.xlsx", "ends in '.xlsx'"),
    (b"\xff\xfe\x00", "mine.txt", "'mine.txt' is not UTF-8"),
    (b"x\n1\n", "a *b* $c$ :red[d].csv", "'a *b* $c$ :red[d].csv' has no column"),
    (MANY, "mine.txt", "'mine.txt' has 100,001 different sentences; this page maps up to 100,000."),
]


@pytest.mark.slow
def test_a_wrong_file_says_what_is_wrong_and_another_takes_its_place(open_space):
    app = open_space(space_data="File", space_view="What changed")
    assert not app.exception
    assert "There is no file yet. Upload one, or choose the example." in shown(app.error)
    for content, name, message in WRONG_FILES:
        upload(app, content, name)
        assert not app.exception
        assert message in shown(app.error)
        assert not figures(app)
    upload(app, pd.DataFrame({"sentence": OWN}))
    assert_is_whole(app)


@pytest.mark.slow
def test_a_column_may_be_called_as_one_of_ours(open_file, taken):
    columns = {"Length": ["x", "y"] * 4, "movement": range(8), "a *b* <i>": ["p", "q"] * 4}
    app = open_file(pd.DataFrame({"sentence": OWN} | columns), space_view="What changed")
    assert_is_whole(app)
    assert app.selectbox(key="colour").options.count("Length") == 1
    for name in columns:
        choose(app, "colour", name)
        assert_is_whole(app)
    lasso(app, A, around(places(app), list(range(8))))
    assert_is_whole(app)
    assert len(table(app, "selected")) == 8
    assert len(pd.read_csv(io.StringIO(taken("lwap-maps.csv")))) == 8


@pytest.mark.slow
def test_many_sentences_are_drawn_as_density_and_chosen_by_the_area(open_file, fits):
    """Four thousand of them, each with a label of its own."""
    count = 4_000
    content = pd.DataFrame(
        {
            "sentence": [f"{TEXTS[row % 600][:20]} {row}" for row in range(count)],
            "label": [f"label {row}" for row in range(count)],
        }
    )
    app = open_file(content, space_view="Walk through the layers")
    assert_is_whole(app)
    said = shown(app.caption)
    assert "'label' has 4,000 different values; the 12 most frequent are coloured" in said
    assert "1,500 of the sentences." in said
    assert "other (3988)" in names_of(app)
    drawn = [row for entry in points_of(app) for row in rows_of(entry)]
    assert len(drawn) == ui_space.DRAWN
    assert "density" in names_of(app)
    # The area decides, not the marks that are sent: many sentences have none.
    maps = measured().pca.maps
    middle, spread = np.median(maps.second, axis=0), maps.second.std(axis=0)
    reach = np.sort((abs(maps.second - middle) / spread).max(axis=1))[1200] * spread
    corners = around(np.array([middle - reach, middle + reach]), [0, 1])
    lasso(app, B, corners)
    assert_is_whole(app)
    inside = [row for row, place in enumerate(maps.second) if is_inside(*place, corners)]
    assert len(inside) > ui_space.LISTED > len(set(inside) & set(drawn)) > 100
    assert app.session_state["space_selected"] == inside
    said = shown(app.main.markdown)
    assert f"**{len(inside):,} sentences selected**; the first 1,000 are listed" in said
    assert len(table(app, "selected")) == 1000
    assert buttons(app)["to_layers"] == "Open in Layers (first 200)"
    assert "in 4,000 rows" not in said
    # Maps of other seeds wait for a press.
    look_at(app, "Chance")
    pick(app, "projection", "UMAP")
    assert_is_whole(app)
    assert len(fits) == 2
    press(app, "space_seeds_go")
    assert_is_whole(app)
    assert len(fits) == 2 + 4
    assert "space-seed-1-2" in figures(app)


# --- benchmarks ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_a_data_folder_the_ways_out_are_named(open_space, tmp_path):
    app = open_space(space_data="Benchmark", space_view="What changed")
    assert not app.exception
    message = shown(app.error)
    assert f"There are no STS tasks in '{tmp_path / 'no data'}'" in message
    assert "python -m lwap data download sts" in message and "LWAP_DATA" in message
    pick(app, "space_data", "Example")
    assert_is_whole(app)


@pytest.mark.slow
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
    app = open_space(space_data="Benchmark", space_view="What changed")
    assert_is_whole(app)
    assert app.selectbox(key="space_task").options == ["STS13", "STS-B"]
    assert app.expander[0].label == "Sentences: STS13, 23"
    assert app.selectbox(key="colour").value == "subset"
    assert set(labels_of(app).values()) == {"first", "second"}
    found = measured().table
    # Scores 4 and 5 are positive; the pair of one sentence with itself is none.
    texts = [(found.sentences[a], found.sentences[b]) for a, b in found.positives]
    assert texts == [tuple(pairs.iloc[row, :2]) for row in (4, 5, 10)]


# --- clicks and the lasso -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_click_lists_the_neighbours_of_both_full_spaces(open_space, tiny_checkpoints):
    app = open_space(space_view="What changed")
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


@pytest.mark.slow
def test_a_lasso_marks_and_lists_the_same_sentences_in_both_maps(open_space, taken):
    app = open_space(space_view="What changed")
    for key in (A, B):
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
        found = measured()
        first, second = (space.near.indices[:, :10] for space in found.spaces)
        assert listed["neighbours kept"].tolist() == shared(first, second)[wanted].tolist()
        np.testing.assert_allclose(listed["movement"], found.pca.maps.moved[wanted])
        held_out = pd.read_csv(io.StringIO(taken("lwap-selection.csv")))
        assert held_out["sentence"].tolist() == listed["sentence"].tolist()
        assert list(held_out) == list(listed)
        press(app, "space_clear")
        assert "selected" not in names_of(app, A) | names_of(app, B)
        assert not tables(app, "selected")

    # What the legend hides is not selected.
    everywhere = around(places(app), list(range(612)))
    lasso(app, A, everywhere, hidden=[TOPICS[0], TOPICS[5]])
    hidden = EXAMPLE["topic"].isin([TOPICS[0], TOPICS[5]])
    assert app.session_state["space_selected"] == np.flatnonzero(~hidden).tolist()

    # Only the first go where not all fit.
    lasso(app, A, everywhere)
    found = buttons(app)
    assert found["to_layers"] == "Open in Layers (first 200)"
    assert found["to_pairs"] == "Open in Pairs (first 50)"
    assert found["to_search"] == "Open in Search"
    press(app, "to_layers")
    assert app.text_area(key="layers_text").value.split("\n") == TEXTS[:200]


def test_a_selection_is_replaced_kept_and_dropped(open_own):
    app = open_own(space_view="What changed")
    assert [figures(app)[key]["layout"]["dragmode"] for key in (A, B)] == [False, False]
    pick(app, "mouse", "Lasso")
    assert [figures(app)[key]["layout"]["dragmode"] for key in (A, B)] == ["lasso", "lasso"]

    lasso(app, A, [(90, 90), (91, 90), (91, 91)])
    assert_is_whole(app)
    assert "selected" not in names_of(app)
    assert not tables(app, "selected")

    # A lasso and a click replace each other.
    lasso(app, A, around(places(app), [0, 1]))
    assert {0, 1} <= set(rows_of(trace(app, B, "selected")))
    click(app, B, [5])
    assert rows_of(trace(app, A, "focus")) == [5]
    assert "selected" not in names_of(app)
    lasso(app, B, around(places(app, B), [2]))
    chosen = rows_of(trace(app, A, "selected"))
    assert 2 in chosen
    assert "focus" not in names_of(app)

    # Another colour or view leaves it.
    choose(app, "colour", "Length")
    look_at(app, "Chance")
    assert_is_whole(app)
    assert rows_of(trace(app, B, "selected")) == chosen

    # Other spaces drop it: another strategy, model, data, kind of data.
    for change in (
        lambda: choose(app, "space_a", "max"),
        lambda: choose(app, "space_model", "beta"),
        lambda: type_sentences(app, OWN[:7]),
        lambda: pick(app, "space_data", "Example"),
    ):
        lasso(app, A, around(places(app), [0, 1, 2]))
        assert "selected" in names_of(app, B)
        change()
        assert_is_whole(app)
        assert "selected" not in names_of(app, A) | names_of(app, B)
        assert not tables(app, "selected")


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "is_first"), [("layers", True), ("layers", False), ("pairs", True), ("search", True)]
)
def test_a_selection_opens_on_another_page(
    page, is_first, open_page, open_own, open_space, tiny_checkpoints
):
    if is_first:
        app = open_own(space_view="What changed")
    else:
        app = open_page("models")
        app.query_params.update({"projection": "PCA", "s": OWN})
        app = ready(app.switch_page(PAGES["space"]).run())
    assert_is_whole(app)
    points = places(app)
    order = np.argsort(np.linalg.norm(points - points.mean(axis=0), axis=1))
    lasso(app, A, around(points, order[-2:]))
    rows = rows_of(trace(app, A, "selected"))
    assert set(order[-2:].tolist()) <= set(rows)
    press(app, f"to_{page}")
    assert not app.exception
    assert not app.error
    assert app.title[0].value == page.capitalize()
    texts = [OWN[row] for row in rows]
    if page != "pairs":
        assert app.text_area(key=f"{page}_text").value.split("\n") == texts
        return
    near = nearest(vectors(tiny_checkpoints, "mean", OWN), 1)[:, 0]
    pairs = app.session_state["pairs"]  # each with its nearest neighbour
    assert pairs["sentence1"].tolist() == texts
    assert pairs["sentence2"].tolist() == [OWN[near[row]] for row in rows]
    assert pairs["score"].isna().all()


# --- sentences that are dropped in --------------------------------------------------------------


def drop(app, text: str) -> AppTest:
    return ready(app.text_input(key="space_drop").set_value(text).run())


@pytest.mark.parametrize("method", ["PCA", "UMAP"])
def test_a_sentence_that_is_on_the_map_gets_its_place(open_own, fits, method):
    app = open_own(projection=method, space_view="What changed")
    drop(app, f" {OWN[2]} | {OWN[5]}")
    assert_is_whole(app)
    for key in (A, B):
        star = trace(app, key, "added")
        assert rows_of(star) == [-1, -2]
        found = np.column_stack([star["x"], star["y"]])
        np.testing.assert_allclose(found, places(app, key)[[2, 5]], atol=2e-3)
    drop(app, "")
    assert "added" not in names_of(app)


@pytest.mark.slow
def test_new_sentences_are_drawn_but_are_no_points_of_the_map(open_own):
    app = drop(open_own(space_view="What changed"), "The heron has flown away today.")
    star = trace(app, A, "added")
    assert np.isfinite([star["x"], star["y"]]).all()
    assert "The heron has flown away today." in texts_in(figures(app)[A])
    click(app, A, [-1])
    assert_is_whole(app)
    assert "focus" not in names_of(app)
    lasso(app, A, around(places(app), list(range(8)), room=100))
    assert app.session_state["space_selected"] == list(range(8))
    drop(app, "|".join(f"Number {number}." for number in range(11)))
    assert_is_whole(app)
    assert "The first 8 of the 11 sentences are drawn." in shown(app.caption)
    assert len(trace(app, B, "added")["x"]) == 8


# --- views --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_changed_lists_the_most_changed_first(open_space, tiny_checkpoints, taken):
    app = open_space(space_view="What changed")
    assert_is_whole(app)
    near = [nearest(vectors(tiny_checkpoints, name), 10) for name in ("mean", "lwap")]
    kept = shared(*near)
    listed = table(app, "changed")
    assert len(listed) == 200
    assert list(listed) == ["sentence", "kept", "lost", "gained", "movement"]
    assert listed["kept"].is_monotonic_increasing
    assert listed["kept"].tolist() == sorted(kept)[:200]
    moved = measured().pca.maps.moved
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


@pytest.mark.slow
def test_the_same_space_twice_has_not_changed(open_own):
    app = open_own(space_b="mean", space_view="What changed", colour="Movement")
    assert_is_whole(app)
    assert "No neighbourhood differs between the two spaces." in shown(app.info)
    assert not tables(app, "changed")
    np.testing.assert_array_equal(places(app, A), places(app, B))
    assert not values_of(app, B).any()
    look_at(app, "Spread")
    names = [entry.get("name") for entry in figures(app)["space-cosines"]["data"]]
    assert names.count("mean") == 1


@pytest.mark.slow
def test_layer_by_layer_and_the_walk_show_every_state_and_the_strategy(open_space, taken):
    app = open_space(space_view="Layer by layer")
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

    look_at(app, "Walk through the layers")
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


@pytest.mark.slow
def test_the_walk_and_chance_are_drawn_by_umap_where_the_maps_are(open_own, fits):
    app = open_own(
        projection="UMAP", neighbours="3", map_seed="2", space_view="Walk through the layers"
    )
    assert_is_whole(app)
    assert fits == [{"n_neighbors": 3, "min_dist": 0.1, "seed": 2}] * (2 + 5)
    assert len(figures(app)["space-walk"]["frames"]) == 5

    look_at(app, "Chance")
    assert_is_whole(app)
    keys = {f"space-seed-{place}-{seed}" for place in (0, 1) for seed in range(3)}
    assert figures(app).keys() == {A, B} | keys
    for place, key in enumerate((A, B)):
        for number in range(3):
            drawn = figures(app)[f"space-seed-{place}-{number}"]
            assert f"Seed {2 + number}" in texts_in(drawn)
            assert drawn["layout"]["dragmode"] is False
        own = trace(app, f"space-seed-{place}-0", "values")
        np.testing.assert_allclose(np.column_stack([own["x"], own["y"]]), places(app, key))
    (found,) = (
        work.result
        for key, work in mapping._maps().found.items()
        if isinstance(key, tuple) and key[0] == "seeds"
    )
    said = shown(app.main.markdown)
    for name, stability in zip(("mean", "lwap"), found, strict=True):
        assert (
            f"**{name}**: with another seed a point keeps {stability.kept.mean():.0%} of its 15 "
            f"neighbours on the map and moves by {np.median(stability.moved):.2f} radii"
        ) in said

    pick(app, "projection", "PCA")
    assert_is_whole(app)
    assert "PCA has no seed" in shown(app.info)


# --- waiting, stopping, failing -----------------------------------------------------------------


@pytest.mark.slow
def test_a_stopped_measuring_can_go_on(open_page, gate, monkeypatch):
    def held(*arguments, progress, **options):
        progress(3, 8)
        gate.pass_through()
        progress(4, 8)  # hears of a stop
        return measure_spaces(*arguments, progress=progress, **options)

    monkeypatch.setattr(projection, "measure_spaces", held)
    app = open_page("space", projection="PCA", s=OWN, space_view="What changed")
    assert gate.reached.wait(SECONDS)
    app.run()
    assert not app.exception
    assert not figures(app)
    assert buttons(app) == {"space_stop": "Stop"}
    assert "Sentences encoded: 3 of 8" in json.dumps(
        [str(element.proto) for element in app.get("progress")]
    )
    app.button(key="space_stop").click().run()
    gate.opened.set()
    ready(app)
    assert "Stopped. What was encoded is kept" in shown(app.info)
    assert buttons(app) == {"space_again": "Go on"}
    press(app, "space_again")
    assert_is_whole(app)
    assert "Stopped" not in shown(app.info)


def test_a_stopped_umap_leaves_pca_and_can_be_drawn(open_page, fits, gate, monkeypatch):
    draw = UmapProcess.fit

    def held(*arguments, progress, **options):
        gate.pass_through()
        progress(100, 500)
        return draw(*arguments, **options)

    monkeypatch.setattr(UmapProcess, "fit", held)
    app = open_page("space", projection="UMAP", s=OWN, space_view="What changed")
    while not figures(app):  # the spaces are still measured
        assert measured().wait(SECONDS)
        app.run()
    assert_is_whole(app)
    assert "PCA, " in texts_in(figures(app)[A])
    assert "umap_stop" in buttons(app)
    app.button_group(key="space_view").set_value("Chance").run()
    assert "There is no UMAP map yet" in shown(app.info)
    app.button(key="umap_stop").click().run()
    gate.opened.set()
    ready(app)
    assert_is_whole(app)
    assert "UMAP was stopped; this is the PCA map." in shown(app.info)
    assert "PCA, " in texts_in(figures(app)[B])
    look_at(app, "What changed")
    press(app, "umap_again")
    assert_is_whole(app)
    assert "UMAP was stopped" not in shown(app.info)
    assert "UMAP, keeps" in texts_in(figures(app)[B])


@pytest.mark.slow
def test_a_failed_umap_shows_why_and_pca_and_can_be_tried_again(open_own, fits, monkeypatch):
    def failing(*arguments, **options):
        raise ConfigError("The process that draws *UMAP* maps ended (by signal 9).")

    with monkeypatch.context() as patch:
        patch.setattr(UmapProcess, "fit", failing)
        app = open_own(projection="UMAP", space_view="What changed")
        assert not app.exception
        message = "The process that draws *UMAP* maps ended (by signal 9). Below is the PCA map."
        assert message in shown(app.error)
        assert "PCA, " in texts_in(figures(app)[A])
        assert buttons(app)["umap_again"] == "Try again"
        app.run()  # no other try by itself
        assert message in shown(app.error)
    press(app, "umap_again")
    assert_is_whole(app)
    assert "UMAP, keeps" in texts_in(figures(app)[A])


@pytest.mark.slow
def test_a_view_that_failed_or_was_stopped_does_not_start_by_itself(open_own, gate, monkeypatch):
    calls = []

    def failing(*arguments, **options):
        calls.append(1)
        raise ConfigError("Not today.")

    def held(*arguments, on_strategy, **options):
        gate.pass_through()
        on_strategy(2, 10)
        return layer_course(*arguments, on_strategy=on_strategy, **options)

    monkeypatch.setattr(projection, "layer_course", failing)
    app = open_own(space_view="Layer by layer")
    for _ in range(2):
        app.run()
    assert not app.exception
    assert shown(app.error) == "Not today."
    assert figures(app).keys() == {A, B}
    assert len(calls) == 1

    monkeypatch.setattr(projection, "layer_course", held)
    app.button(key="course_again").click().run()
    assert gate.reached.wait(SECONDS)
    assert buttons(app)["course_stop"] == "Stop"
    app.button(key="course_stop").click().run()
    gate.opened.set()
    ready(app)
    assert_is_whole(app)
    assert "Layers measured: stopped." in shown(app.info)
    press(app, "course_again")
    assert_is_whole(app)
    assert "space-course" in figures(app)


def test_a_process_that_cannot_be_started_leaves_pca(open_own, monkeypatch):
    def failing(process):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(UmapProcess, "warm_up", failing)
    app = open_own(projection="UMAP", space_view="What changed")
    assert not app.exception
    assert "cannot be started (Cannot allocate memory)" in shown(app.error)
    pick(app, "projection", "PCA")
    assert_is_whole(app)


# --- two sessions -------------------------------------------------------------------------------


def test_two_sessions_share_the_computation_but_not_the_selection(open_own, fits):
    first = open_own(projection="UMAP", space_view="What changed")
    lasso(first, A, around(places(first), [0, 1, 2]))
    other = open_own(projection="UMAP", space_view="What changed")
    assert_is_whole(other)
    assert len(mapping._spaces().found) == 1
    assert len(fits) == 2
    np.testing.assert_array_equal(places(other), places(first))
    assert "selected" not in names_of(other)
    click(other, B, [4])
    first.run()
    assert {0, 1, 2} <= set(rows_of(trace(first, B, "selected")))
    assert "focus" not in names_of(first)


@pytest.mark.slow
def test_equal_sentences_of_another_session_keep_their_own_labels(open_file, taken):
    """Spaces are shared by what their sentences are; labels are everyone's own."""
    one = pd.DataFrame({"sentence": OWN, "secret": ["a", "b"] * 4})
    other = pd.DataFrame({"sentence": OWN, "topic": ["p", "q", "r", "s"] * 2})
    assert_is_whole(open_file(one, space_view="What changed"))
    app = open_file(other, space_view="What changed")
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
