"""What a run would take: time, memory, disk. Formulas against what torch itself keeps."""

import copy
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest
import torch

from lwap.checkpoints.load import load
from lwap.datasets.readers import read_training
from lwap.training import TrainConfig, timing, train
from lwap.training import memory as memory_module
from lwap.training.batches import embed_columns
from lwap.training.check import check_data
from lwap.training.estimate import estimate
from lwap.training.examples import Examples
from lwap.training.loop import last_checkpoint
from lwap.training.memory import Size, activation_bytes, free_memory
from lwap.training.model import new_model
from lwap.training.probe import Probe

ROOT = Path(__file__).resolve().parents[2]
MODES = ("head", "lora", "full")


@pytest.fixture(scope="module")
def dev_pairs() -> pd.DataFrame:
    return pd.read_csv(ROOT / "assets/pairs.csv")[["sentence1", "sentence2", "score"]]


@pytest.fixture(scope="module")
def triplets() -> pd.DataFrame:
    return read_training(ROOT / "assets/triplets.csv")[:120]


@pytest.fixture(scope="module")
def settings(tiny_encoder_folder):
    def make(**changes) -> TrainConfig:
        small = {"encoder": str(tiny_encoder_folder), "batch_size": 16, "precision": "fp32"}
        return TrainConfig(**(small | changes))

    return make


@pytest.fixture
def of(tiny_model):
    """Return a function from settings and data to an estimate."""

    def make(config, data, dev_pairs=None, **options):
        return estimate(
            config, Examples.of(data, config.objective), tiny_model, dev_pairs, **options
        )

    return make


# --- memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_activations_are_what_autograd_keeps(mode, dropout, settings, triplets, make_encoder):
    # Wide enough for the large parts to decide.
    folder = make_encoder("bert", hidden_size=128, intermediate_size=512, num_attention_heads=4)
    config = settings(mode=mode, dropout=dropout, encoder=str(folder))
    probe = Probe(config, Examples.of(triplets, "supervised"), load(str(folder), device="cpu"))
    model = probe.model.train()
    weights = {value.untyped_storage().data_ptr() for value in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(value: torch.Tensor) -> torch.Tensor:
        if value.untyped_storage().data_ptr() not in weights:
            kept[value.untyped_storage().data_ptr()] = value
        return value

    columns = [model.preprocess(list(column)) for column in zip(*probe.rows[0], strict=True)]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        embed_columns(model, columns)
    measured = sum(value.untyped_storage().nbytes() for value in kept.values())
    found = activation_bytes(Size.of(config, model), probe.batches[0], has_dropout=dropout > 0)
    assert found == pytest.approx(measured, rel=0.15)


def test_activations_are_korthikantis_where_masks_take_a_byte():
    """34 s b h + 5 a s² b of the paper, for L layers, values of 2 bytes, an inner size of 4 h."""
    s, b, h, a, layers = 20, 3, 64, 4, 5
    size = Size(0, 0, 0, layers + 1, h, layers, 4 * h, a)
    paper = layers * (34 * s * b * h + 5 * a * s * s * b)
    # Here: masks as wide as values, one byte more; the embeddings' 4 D are ours.
    masks = layers * (2 * s * b * h + a * s * s * b)
    ours = activation_bytes(size, [(b, s)], has_dropout=True, width=2)
    assert ours == paper + masks + 2 * 4 * s * b * h


def test_states_of_the_optimizer_are_those_of_what_is_trained(of, settings, triplets, tiny_model):
    numbers = {
        mode: sum(
            value.numel()
            for value in train_model(settings(mode=mode), tiny_model).parameters()
            if value.requires_grad
        )
        for mode in ("lora", "full")
    }
    for mode, trained in numbers.items():
        parts = of(settings(mode=mode), triplets).memory[0].parts
        assert (parts["gradients"], parts["optimizer"]) == (4 * trained, 8 * trained)
    parts = of(settings(), triplets).memory[0].parts
    assert parts["optimizer"] == 8 * (3 * 32 * 32 + 32 * 64 + 32)  # the pooling's own


def train_model(config, encoder):
    return new_model(config, copy.deepcopy(encoder))


def test_summaries_are_those_of_the_bank(of, settings, triplets, dev_pairs):
    texts = 360  # all different
    dev = len({text for name in ("sentence1", "sentence2") for text in dev_pairs[name]})
    one = 2 * 4 * 32 * 4  # CLS and mean, 4 states, 32 numbers of 4 bytes
    found = {
        (mode, objective): of(settings(mode=mode, objective=objective), triplets, dev_pairs)
        .memory[0]
        .parts["summaries"]
        for mode in MODES
        for objective in ("supervised", "unsupervised")
    }
    assert found["head", "supervised"] == (texts + dev) * one
    assert found["head", "unsupervised"] == (4 * texts + dev) * one  # under four dropout masks
    assert found["full", "supervised"] == found["lora", "unsupervised"] == 2 * dev * one


@pytest.mark.parametrize("mode", MODES)
def test_a_larger_batch_needs_more_memory(mode, of, settings, triplets):
    totals = [
        of(settings(mode=mode, batch_size=size), triplets).memory[0].total for size in (8, 32, 96)
    ]
    assert totals == sorted(set(totals))


def test_more_rows_need_more_of_everything_in_a_head_run(of, settings, triplets):
    less, more = (of(settings(), table) for table in (triplets[:30], triplets))
    assert less.memory[0].total < more.memory[0].total
    assert less.steps < more.steps == 21


def test_mini_batch_needs_less_memory_for_the_same_batch(of, settings, triplets):
    whole, parts = (
        of(settings(mode="full", batch_size=96, mini_batch=size), triplets).memory[0].parts
        for size in (0, 8)
    )
    assert parts["activations"] < whole["activations"] / 8
    assert whole.keys() == parts.keys()


def test_max_tokens_needs_less_memory(of, settings, triplets):
    long, short = (
        of(settings(mode="full", max_tokens=tokens), triplets).memory[0].parts["activations"]
        for tokens in (64, 8)
    )
    assert short < long / 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mode": "full", "batch_size": 96},
            r"of it for activations, and 0 MB are free\. Set mini_batch to 24, which keeps the neg",
        ),
        (
            {"mode": "full", "batch_size": 96, "mini_batch": 32, "max_tokens": 64},
            r"for activations, .* Set mini_batch to 8, which keeps",
        ),
        ({"mode": "head"}, "for summaries, .* Train on fewer sentences, or choose mode 'lora'"),
    ],
)
def test_too_little_memory_is_a_problem(changes, message, of, settings, triplets, monkeypatch):
    monkeypatch.setattr(memory_module, "PROCESS_BYTES", 0)
    monkeypatch.setattr(memory_module, "free_memory", lambda: 500_000)
    (problem,) = of(settings(**changes), triplets).problems
    assert re.search(message, problem), problem
    assert problem.startswith("The run needs about ")


@pytest.mark.parametrize(
    ("mode", "largest", "advice"),
    [
        ("full", "optimizer", "Choose mode 'lora' or 'head', which train far fewer weights"),
        ("lora", "weights", "Choose mode 'head', or a smaller encoder."),
        ("head", "weights", "Set a smaller batch_size, bring fewer sentences, or choose a sma"),
    ],
)
def test_the_advice_goes_by_what_is_largest(mode, largest, advice, settings):
    memory = memory_module.Memory("cpu", {"process": 1, largest: 5 * 10**9}, 2 * 10**9)
    (problem,) = memory_module.memory_problems(settings(mode=mode), [memory])
    assert problem == (
        f"The run needs about 5.0 GB of memory on cpu, 5.0 GB of it for {largest}, and 2.0 GB are "
        f"free. {memory_module._memory_advice(settings(mode=mode), largest)}"
    )
    assert advice in problem


def test_enough_memory_is_no_problem(of, settings, triplets, monkeypatch):
    monkeypatch.setattr(memory_module, "free_memory", lambda: 10**12)
    assert of(settings(mode="full"), triplets).problems == ()


def test_free_memory_is_the_machines_or_the_containers(monkeypatch):
    assert 0 < free_memory() <= psutil.virtual_memory().total
    files = {
        "memory.max": "5000",
        "memory.current": "4000",
        "memory.stat": "anon 9\ninactive_file 300",
    }
    monkeypatch.setattr(Path, "read_text", lambda self, *_: files[self.name])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=9000))
    assert free_memory() == 1300
    files["memory.max"] = "max"
    assert free_memory() == 9000


# --- disk ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_the_disk_holds_what_is_written(mode, of, settings, triplets, dev_pairs, tmp_path):
    config = settings(mode=mode, eval_steps=1, max_steps=2, learning_rate=1e-4)
    found = of(config, triplets, dev_pairs, folder=tmp_path)
    train(config, triplets, dev_pairs, folder=tmp_path, save_seconds=0)
    checkpoint = last_checkpoint(tmp_path)
    sizes = {file.name: file.stat().st_size for file in checkpoint.iterdir()}
    written = sum(size for name, size in sizes.items() if name.endswith((".safetensors", ".pt")))
    expected = (found.disk - memory_module.SMALL_FILES) / 2
    assert expected == pytest.approx(written, rel=0.2)
    assert found.disk >= 2 * sum(sizes.values())


@pytest.mark.parametrize("mode", MODES)
def test_a_full_disk_is_a_problem(mode, of, settings, triplets, tmp_path, monkeypatch):
    asked = []

    def usage(folder):
        asked.append(folder)
        return SimpleNamespace(free=2_000_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    found = of(settings(mode=mode), triplets, folder=tmp_path / "not" / "yet" / "there")
    assert asked == [tmp_path]
    assert found.disk_free == 2_000_000
    (problem,) = found.problems
    assert re.match(
        r"The run writes up to [34] MB, and 2 MB are free on the disk of '.*there'", problem
    )
    assert "Make room, choose another folder, or train fewer weights" in problem


def test_without_a_folder_the_disk_is_not_asked(of, settings, triplets):
    assert of(settings(), triplets).disk_free is None


# --- time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["supervised", "unsupervised"])
@pytest.mark.parametrize("mode", MODES)
def test_every_run_has_an_estimate(mode, objective, of, settings, triplets, dev_pairs):
    found = of(settings(mode=mode, objective=objective), triplets, dev_pairs)
    assert list(found.seconds) == ["start", "encoding", "training", "looks"]
    assert min(found.seconds.values()) > 0
    assert found.total_seconds == pytest.approx(sum(found.seconds.values()))
    written = found.to_dict()
    assert json.loads(json.dumps(written))["memory"][0]["total"] == found.memory[0].total
    assert written["total_seconds"] == found.total_seconds


@pytest.fixture
def steady(monkeypatch):
    """Let everything that is timed take as long as it did on a machine that nobody knows."""
    monkeypatch.setattr(timing, "_timed", lambda work, device: (work(), 0.01)[1])


def test_time_grows_with_the_work(of, settings, triplets, dev_pairs, steady):
    def seconds(table=triplets, pairs=dev_pairs, **changes):
        return of(settings(**({"mode": "full"} | changes)), table, pairs).seconds

    usual = seconds()
    assert seconds(epochs=3)["training"] == pytest.approx(3 * usual["training"])
    assert seconds(max_steps=1)["training"] == pytest.approx(usual["training"] / 7)
    assert seconds(table=triplets[:60])["training"] < usual["training"]
    assert seconds(accumulation=2)["training"] < 1.2 * usual["training"]
    assert seconds(mini_batch=8)["training"] > usual["training"]
    assert seconds(eval_steps=1)["looks"] > 2 * usual["looks"]
    assert seconds(pairs=dev_pairs[:30])["looks"] < usual["looks"]
    assert seconds(pairs=dev_pairs[:30])["encoding"] < usual["encoding"]
    head, views = seconds(mode="head"), seconds(mode="head", objective="unsupervised")
    assert views["encoding"] > 2 * head["encoding"] > 2 * usual["encoding"]


def test_a_check_gives_the_rows_and_the_held_out_ones(settings, triplets, tiny_model, steady):
    config = settings(mode="full")
    found = check_data(config, triplets, encoder=tiny_model)
    whole = estimate(config, found, tiny_model)
    assert whole.steps == found.steps
    alone = estimate(config, found.examples, tiny_model)
    assert whole.steps == alone.steps
    assert whole.seconds["looks"] > alone.seconds["looks"]


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_changed(mode, settings, triplets, dev_pairs, tiny_encoder_folder):
    encoder = load(str(tiny_encoder_folder), device="cpu")
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    limit = encoder[0].max_seq_length
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    config = settings(mode=mode, **({"dropout": 0.3, "max_tokens": 9} if mode != "head" else {}))
    estimate(config, Examples.of(triplets, "supervised"), encoder, dev_pairs)
    assert torch.equal(torch.rand(3), expected)
    after = encoder.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert encoder[0].max_seq_length == limit
    assert not encoder.training
    assert all(value.grad is None and value.requires_grad for value in encoder.parameters())
    shares = {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)}
    assert shares == {0.1}
