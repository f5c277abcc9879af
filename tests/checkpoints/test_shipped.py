"""The shipped checkpoints: whole, small, read by what they say, made by commands that exist."""

import re
import shlex

import pytest
from sentence_transformers import SentenceTransformer

import lwap
from lwap.checkpoints.manifest import CARD, Contents, read_info
from lwap.cli import parser
from lwap.cli.shared import DEFAULT_MODEL, PAPER_MODEL
from lwap.scores import cosine
from tests.conftest import ROOT

FOLDER = ROOT / "checkpoints"
NAMES = sorted(folder.name for folder in FOLDER.iterdir() if folder.is_dir())


def test_the_defaults_are_among_them_and_the_default_comes_first():
    assert NAMES[0] == DEFAULT_MODEL
    assert PAPER_MODEL in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_whole_and_small(name):
    folder = FOLDER / name
    assert lwap.verify(str(folder))
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 10e6
    assert not {".bin", ".pt", ".pkl"} & {file.suffix for file in folder.rglob("*")}


@pytest.mark.parametrize("name", NAMES)
def test_its_card_has_a_licence_and_commands_that_are_understood(name):
    card = (FOLDER / name / CARD).read_text("utf-8")
    assert card.startswith("---\n") and "\nlicense: mit\n" in card
    (block,) = re.findall(r"```bash\n(python -m lwap train.*?)```", card, re.S)
    commands = block.replace("\\\n", " ").replace("$LWAP_DATA", "data").strip().split("\n\n")
    for command in commands:
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "lwap"]
        options = parser().parse_args(words[3:])
    assert options.name in (None, name)


def test_what_is_held_of_the_default(bundled_model: SentenceTransformer):
    info = read_info(FOLDER / DEFAULT_MODEL)
    assert info.contains == Contents.ADAPTER
    assert "no STS data" in info.training["data"]
    model, text = lwap.load(str(FOLDER / DEFAULT_MODEL), device="cpu"), ["A heron waits."]
    own, untouched = lwap.encode_layers(model, text), lwap.encode_layers(bundled_model, text)
    head, mean = lwap.embed(own, "lwap"), lwap.embed(own, "mean")
    assert 0.9 < cosine(head, mean)[0] < 0.999  # the layers add to the mean
    assert 0.9 < cosine(mean, lwap.embed(untouched, "mean"))[0] < 0.999  # adapted
