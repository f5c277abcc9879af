"""What all tests share: no network, caches and runs in a temporary folder, tiny random encoders.

A tiny encoder has an initialiser ten times as wide as usual, so that its states differ enough for
a mix-up of layers, tokens or sentences to show.
"""

# ruff: noqa: E402  (the collector and the environment come first)

import gc
import os

gc.disable()  # until all is imported: a sixth of that time went into looking for garbage

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch; tiny encoders lose by threads

import copy
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import AutoConfig, AutoModel, BertTokenizer

import lwap
from lwap import cli
from lwap.encoding.bank import LayerBank
from lwap.encoding.encoder import LayerwiseTransformer
from lwap.pooling.layer_attention import LayerwiseAttentionPooling
from lwap.training import TrainConfig
from tests.made_up_umap import MadeUpUmap

gc.enable()
gc.freeze()  # torch and transformers are never garbage; a full collection of them takes 0.3 s

ROOT = Path(__file__).resolve().parents[1]
DIMENSION, LAYERS, TOKENS = 32, 3, 64  # of tiny encoders: D, L, longest input

# Configuration of a tiny encoder of each architecture, where its names differ from BERT's.
ARCHITECTURES = {
    "bert": {},
    "roberta": {"max_position_embeddings": TOKENS + 2, "type_vocab_size": 1},
    "xlm-roberta": {"max_position_embeddings": TOKENS + 2, "type_vocab_size": 1},
    "mpnet": {"max_position_embeddings": TOKENS + 2},
    "distilbert": {"dim": DIMENSION, "hidden_dim": 48, "n_layers": LAYERS, "n_heads": 2},
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16, "num_hidden_groups": 1},
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 16},
    "llama": {"num_key_value_heads": 1},
    "gpt2": {"n_embd": DIMENSION, "n_layer": LAYERS, "n_head": 2, "n_positions": TOKENS},
}


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory):
    """Point every folder that the library writes to away from the project and the user's home."""
    folder = tmp_path_factory.mktemp("lwap")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("LWAP_CACHE", str(folder / "cache"))
        patch.setenv("LWAP_RUNS", str(folder / "runs"))
        yield folder


@pytest.fixture(scope="module", autouse=True)
def little_garbage():
    """Take what is there out of garbage collection.

    The trainer and Streamlit collect at each run; over all that torch and transformers keep, that
    takes 0.3 s each time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """The distinct sentences of assets/examples.json; 5 to 20 words each."""
    examples = json.loads((ROOT / "assets/examples.json").read_text("utf-8"))
    found = [text for item in examples["phenomena"] for text in item["sentences"]]
    return list(dict.fromkeys(found))


@pytest.fixture(scope="session")
def vocabulary(sentences) -> list[str]:
    """A WordPiece vocabulary: the words of the examples, and every letter for all other words.

    Padding is token 1, as RoBERTa and its kin count positions from it.
    """
    words = sorted({word for text in sentences for word in re.findall(r"\w+", text.lower())})
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    marks = [".", ",", "-", "'", "!", "?"]
    pieces = [*letters, *(f"##{letter}" for letter in letters), *"0123456789", *marks]
    special = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    return list(dict.fromkeys([*special, *pieces, *words]))


@pytest.fixture(scope="session")
def make_encoder(vocabulary, tmp_path_factory) -> Callable[..., Path]:
    """Return a function that writes a tiny random encoder as a plain transformers folder.

    `make_encoder("bert", padding_side="left", seed=1, hidden_size=16)`; the same arguments give
    the same folder, so it must not be changed.
    """
    made: dict[str, Path] = {}

    def make(architecture: str, padding_side: str = "right", seed: int = 0, **changes) -> Path:
        key = json.dumps([architecture, padding_side, seed, changes], sort_keys=True)
        if key not in made:
            made[key] = tmp_path_factory.mktemp(architecture)
            _write_encoder(made[key], vocabulary, architecture, padding_side, seed, changes)
        return made[key]

    return make


def _write_encoder(folder, vocabulary, architecture, padding_side, seed, changes) -> None:
    common = {
        "vocab_size": len(vocabulary),
        "hidden_size": DIMENSION,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": TOKENS,
        "initializer_range": 0.2,
        "pad_token_id": vocabulary.index("[PAD]"),
        "bos_token_id": vocabulary.index("[CLS]"),
        "eos_token_id": vocabulary.index("[SEP]"),
        "cls_token_id": vocabulary.index("[CLS]"),
        "sep_token_id": vocabulary.index("[SEP]"),
    }
    options = common | ARCHITECTURES[architecture] | changes
    if architecture in {"distilbert", "gpt2"}:  # their own names stand above
        renamed = {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"}
        options = {name: value for name, value in options.items() if name not in renamed}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(AutoConfig.for_model(architecture, **options))
        model.save_pretrained(folder)
    segments = ["token_type_ids"] if architecture in {"bert", "electra", "albert"} else []
    tokenizer = BertTokenizer(
        vocab={word: place for place, word in enumerate(vocabulary)},
        model_input_names=["input_ids", *segments, "attention_mask"],
        do_lower_case=True,
        model_max_length=TOKENS,
        padding_side=padding_side,
    )
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session", params=list(ARCHITECTURES))
def architecture(request) -> str:
    """The name of every architecture that must work, one after the other."""
    return request.param


@pytest.fixture(scope="session")
def tiny_encoder_folder(make_encoder) -> Path:
    """A tiny random BERT and its tokenizer, as a plain transformers folder. Do not change it."""
    return make_encoder("bert")


@pytest.fixture(scope="session")
def tiny_model(tiny_encoder_folder) -> SentenceTransformer:
    """The tiny BERT as `lwap.load` gives it, with mean pooling. Do not change it: deep-copy it."""
    return lwap.load(str(tiny_encoder_folder), device="cpu")


@pytest.fixture
def model(tiny_model) -> SentenceTransformer:
    """A copy of the tiny model, to change."""
    return copy.deepcopy(tiny_model)


@pytest.fixture(scope="session")
def tiny_lwap_model(tiny_encoder_folder) -> SentenceTransformer:
    """The tiny BERT with a random attention over its layers, in eval mode. Do not change it."""
    return add_head(lwap.load(str(tiny_encoder_folder), device="cpu"))


def add_head(model: SentenceTransformer) -> SentenceTransformer:
    encoder = model[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = LayerwiseAttentionPooling(encoder.get_embedding_dimension(), encoder.num_states)
        for parameter in head.parameters():  # wide, so that the attention is far from even
            torch.nn.init.normal_(parameter, std=0.3)
    found = SentenceTransformer(modules=[encoder, head], device="cpu").eval()
    found.lwap_name = model.lwap_name
    return found


@pytest.fixture(scope="session")
def make_bank() -> Callable[..., LayerBank]:
    """Return a function that makes a bank of random summaries: no encoder, no text behind it.

    `make_bank(7, num_states=4, dimension=6, is_causal=True, seed=1, heads={…}, cls=None)`.
    """

    def make(count, num_states=4, dimension=6, is_causal=False, seed=0, **changes) -> LayerBank:
        random = np.random.default_rng(seed)
        shapes = {
            "cls": (count, num_states, dimension),
            "mean": (count, num_states, dimension),
            "max": (count, dimension),
            "last_token": (count, dimension),
            "last_tokens": (count, num_states, dimension) if is_causal else None,
        }
        arrays = {
            name: None if shape is None else random.normal(size=shape).astype(np.float32)
            for name, shape in shapes.items()
        }
        facts = {
            "texts": tuple(f"sentence {row}" for row in range(count)),
            "token_counts": np.full(count, 3),
            "is_truncated": np.zeros(count, dtype=bool),
            "max_tokens": 64,
            "encoder": "random",
        }
        return LayerBank(**(arrays | facts | changes))

    return make


@pytest.fixture(scope="session")
def bundled_model() -> SentenceTransformer:
    """The bundled encoder, all-MiniLM-L6-v2. Do not change it: deep-copy it."""
    return lwap.load(device="cpu")


@pytest.fixture
def encoded() -> Iterator[Counter]:
    """How often encoders have read each sentence, known by its tokens: compare with `read_as`."""
    counts: Counter = Counter()

    def read(module, inputs) -> None:
        if isinstance(module, LayerwiseTransformer):
            tokens = inputs[0]["input_ids"]
            # Without padding there is no mask.
            is_real = inputs[0].get("attention_mask", torch.ones_like(tokens)).bool()
            counts.update(tuple(t[real].tolist()) for t, real in zip(tokens, is_real, strict=True))

    hook = register_module_forward_pre_hook(read)
    yield counts
    hook.remove()


@pytest.fixture(scope="session")
def read_as(tiny_model) -> Callable[[Iterable[str]], Counter]:
    """Return a function that counts sentences by the tokens that a tiny encoder reads of them."""

    def read(texts: Iterable[str]) -> Counter:
        tokens = (tiny_model.tokenizer(text, truncation=True)["input_ids"] for text in texts)
        return Counter(map(tuple, tokens))

    return read


@pytest.fixture(scope="module")
def made_up_umap(tmp_path_factory) -> Iterator[MadeUpUmap]:
    """What a process that is started from now on imports as umap."""
    found = MadeUpUmap(tmp_path_factory.mktemp("umap"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(found.folder))
        patch.setenv("MADE_UP_UMAP", str(found.folder))
        yield found


@pytest.fixture
def umap(made_up_umap) -> MadeUpUmap:
    """The made-up umap, with nothing planned and nothing done."""
    made_up_umap.clear()
    return made_up_umap


# --- training -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def dev_pairs() -> pd.DataFrame:
    """40 scored pairs of all subsets of assets/pairs.csv."""
    pairs = pd.read_csv(ROOT / "assets/pairs.csv")
    return pairs[["sentence1", "sentence2", "score"]].iloc[::3].reset_index(drop=True)


@pytest.fixture(scope="session")
def triplets() -> pd.DataFrame:
    """60 triplets of 180 sentences."""
    return pd.read_csv(ROOT / "assets/triplets.csv", nrows=60)


@pytest.fixture(scope="session")
def settings(tiny_encoder_folder) -> Callable[..., TrainConfig]:
    """Return a function that gives a small run on the tiny encoder; 3 steps an epoch."""

    def make(**changes) -> TrainConfig:
        small = {
            "encoder": str(tiny_encoder_folder),
            "epochs": 2,
            "batch_size": 20,
            "learning_rate": 5e-3,
            "eval_steps": 2,
            "precision": "fp32",
        }
        return TrainConfig(**(small | changes))

    return make


# --- commands -----------------------------------------------------------------------------------


@pytest.fixture
def run(capsys):
    """Return a function that runs a command and returns its standard output and standard error."""

    def run(*arguments) -> tuple[str, str]:
        capsys.readouterr()
        assert cli.main([str(argument) for argument in arguments]) == 0
        return tuple(capsys.readouterr())

    return run


@pytest.fixture
def run_json(run):
    """Return a function that runs a command with --json and returns its one object."""

    def run_json(*arguments):
        printed, errors = run(*arguments, "--json")
        assert errors == ""
        assert printed.count("\n") == 1 and printed.endswith("\n")
        return json.loads(printed, parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))

    return run_json


@pytest.fixture
def refused(capsys):
    """Return a function that runs a command that must fail, and returns its one line of error."""

    def refused(*arguments) -> str:
        capsys.readouterr()
        assert cli.main([str(argument) for argument in arguments]) == 2
        printed, errors = capsys.readouterr()
        assert printed == ""
        assert errors.startswith("lwap: error: ")
        assert errors.count("\n") == 1 and errors.endswith("\n")
        return errors

    return refused
