"""Pages driven by AppTest on tiny checkpoints: a folder of them takes the shipped ones' place."""

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from streamlit.components.v2 import manifest_scanner
from streamlit.delta_generator import DeltaGenerator
from streamlit.proto.WidgetStates_pb2 import WidgetState
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest, app_test
from streamlit.testing.v1.element_tree import Selectbox
from torch.nn.modules.module import register_module_forward_pre_hook

import lwap
from lwap.checkpoints.save import save_checkpoint
from lwap.encoding.sources import weights_sha256
from lwap.pooling.head import LayerHead
from lwap.pooling.layer_attention import LayerwiseAttentionPooling
from lwap.pooling.scalar_mix import ScalarMix
from lwap.ui.space import mapping
from tests.pages.driving import PAGES, ROOT, SECONDS

RESULTS = {
    "dev_set": "a made-up dev set",
    "dev_spearman": {"lwap": {"value": 71.25, "low": 70.5, "high": 72.0}},
}


@pytest.fixture(scope="session")
def tiny_checkpoints(tiny_encoder_folder, tmp_path_factory) -> Path:
    """Checkpoints on the tiny BERT (D = 32, S = 4, 64 tokens): random heads. Do not change them.

    alpha and beta differ in their weights alone; last has one query; mix is a scalar mix.
    """
    folder = tmp_path_factory.mktemp("checkpoints")
    dimension, states = 32, 4
    heads = {
        "alpha": LayerwiseAttentionPooling(dimension, states),
        "beta": LayerwiseAttentionPooling(dimension, states),
        "last": LayerwiseAttentionPooling(dimension, states, query="last"),
        "mix": ScalarMix(dimension, states),
    }
    for seed, (name, head) in enumerate(heads.items()):
        save_tiny(folder / name, head, tiny_encoder_folder, seed)
    return folder


@pytest.fixture(scope="session")
def alpha_model(tiny_checkpoints) -> SentenceTransformer:
    """The checkpoint alpha as the library loads it. Do not change it: deep-copy it."""
    return lwap.load(str(tiny_checkpoints / "alpha"), device="cpu")


def save_tiny(folder: Path, head: LayerHead, encoder: Path, seed: int = 0) -> Path:
    """Save a checkpoint of a head with random weights on a tiny encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in head.parameters():  # wide, so that the attention is far from even
            torch.nn.init.normal_(parameter, std=0.3)
    transformer = lwap.load(str(encoder), device="cpu")[0]
    return save_checkpoint(
        SentenceTransformer(modules=[transformer, head], device="cpu"),
        folder,
        name=folder.name,
        encoder_id=str(encoder),
        encoder_sha256=weights_sha256(encoder),
        training={"data": "ten made-up triplets"},
        results=RESULTS,
        card="A tiny checkpoint of the tests.\n",
    )


@pytest.fixture
def make_checkpoint(tmp_path, tiny_encoder_folder) -> Callable[..., Path]:
    """Return a function that saves a checkpoint of the test's own, to be damaged or replaced."""

    def make(name: str, seed: int = 0) -> Path:
        head = LayerwiseAttentionPooling(32, 4)
        return save_tiny(tmp_path / name, head, tiny_encoder_folder, seed)

    return make


@pytest.fixture(scope="session", autouse=True)
def packages_are_scanned_once() -> Iterator[None]:
    """Let all sessions share what Streamlit finds in installed packages, as those of a server do.

    AppTest reads the metadata of every package in each session anew.
    """
    with pytest.MonkeyPatch.context() as patch:
        scan = functools.cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", scan)
        yield


@pytest.fixture(autouse=True)
def streamlit_as_in_a_server(monkeypatch) -> None:
    """Mend what AppTest 1.67 does otherwise than a server and a browser.

    It makes every run the first one of a fresh server, which takes the folder pages/ for an app
    without st.navigation; and it cannot type a text that a selectbox does not list.
    """
    monkeypatch.setattr(PagesManager, "uses_pages_directory", False)
    monkeypatch.setattr(app_test, "PagesManager", type("Running", (PagesManager,), {}))

    def widget_state(box: Selectbox) -> WidgetState:
        return WidgetState(id=box.id, string_value=box.format_func(box.value))

    monkeypatch.setattr(Selectbox, "_widget_state", property(widget_state))


@pytest.fixture(scope="session", autouse=True)
def umap_ends() -> Iterator[None]:
    """End the process that draws the Space page's maps, after the last test."""
    yield
    mapping.umap_process().close()


@pytest.fixture
def open_page(tiny_checkpoints, monkeypatch) -> Callable[..., AppTest]:
    """Return a function that opens a page as the first of a session of its own.

    `open_page("pairs", scale="Cosine", p=[…])`: by keyword, what the link says. `shipped=True`
    opens it with the shipped checkpoints, `checkpoints=…` with those of a folder, `theme="dark"`
    in a dark browser.
    """

    def open_page(
        page: str = "layers",
        *,
        shipped: bool = False,
        checkpoints: Path = tiny_checkpoints,
        theme: str = "light",
        **link,
    ) -> AppTest:
        folder = ROOT / "checkpoints" if shipped else checkpoints
        monkeypatch.setenv("LWAP_CHECKPOINTS", str(folder))
        app = AppTest.from_file(ROOT / "app.py", default_timeout=SECONDS)
        app.context["theme"] = theme
        app.query_params.update(link)
        return app.switch_page(PAGES[page]).run()

    return open_page


@pytest.fixture
def encoded(before_encoding) -> list[int]:
    """How many sentences each pass through an encoder takes, pass by pass."""
    passes = []
    before_encoding(passes.append)
    return passes


@pytest.fixture
def before_encoding() -> Iterator[Callable[[Callable[[int], None]], None]]:
    """Return a function that has another called with the number of sentences before each pass."""
    with contextlib.ExitStack() as hooks:

        def before_encoding(then: Callable[[int], None]) -> None:
            def hook(module, arguments) -> None:
                if isinstance(module, Transformer):
                    then(len(arguments[0]["input_ids"]))

            hooks.callback(register_module_forward_pre_hook(hook).remove)

        yield before_encoding


@pytest.fixture
def break_encoders(before_encoding) -> Callable[[], None]:
    """Return a function after which every pass through an encoder ends in a bug."""

    def stumble(_count: int) -> None:
        raise RuntimeError("a bug of ours")

    return lambda: before_encoding(stumble)


class Downloads(dict):
    """What the download buttons of the latest run hold, by file name."""

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_csv(io.StringIO(self[name]))


@pytest.fixture
def downloads(monkeypatch) -> Downloads:
    """What the pages hand to their download buttons."""
    found = Downloads()
    button = st.download_button

    def spy(label, data, file_name, *arguments, **options):
        found[file_name] = data
        return button(label, data, file_name, *arguments, **options)

    monkeypatch.setattr(st, "download_button", spy)
    return found


@pytest.fixture
def taken(downloads, monkeypatch) -> Callable[[str], str]:
    """Return a function that gives what a download button hands out, one in a column too."""
    button = DeltaGenerator.download_button

    def spy(place, label, data, file_name, *arguments, **options):
        downloads[file_name] = data
        return button(place, label, data, file_name, *arguments, **options)

    monkeypatch.setattr(DeltaGenerator, "download_button", spy)

    def taken(name: str) -> str:
        return downloads[name]() if callable(downloads[name]) else downloads[name]

    return taken
