"""A run's events, checkpoints, stop and resume, and how it ends when something goes wrong."""

import errno
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from torch.nn import functional
from transformers import set_seed

import lwap
from lwap.errors import CheckpointError, ConfigError, LwapError
from lwap.training import RunStopped, TrainConfig, follower, train
from lwap.training import run_checkpoints as kept
from lwap.training.dev_evaluation import DevSet
from lwap.training.examples import Examples
from lwap.training.loop import fit
from lwap.training.model import new_model, on_summaries

ROOT = Path(__file__).resolve().parents[2]


class Events(list):
    """What a run said; asks for a stop after some step."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.stop_after = stop_after

    def should_stop(self) -> bool:
        return any(event["step"] >= self.stop_after - 1 for event in self)

    def of(self, kind: str) -> list[dict]:
        return [event for event in self if event["event"] == kind]

    @property
    def losses(self) -> dict[int, float]:
        return {event["step"]: event["loss"] for event in self.of("step")}


def run(config, data, pairs, events, **options):
    return train(config, data, pairs, log=events.append, should_stop=events.should_stop, **options)


def copied(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in weights.items()}


# --- the loop, with a dev set and faults of the test's own ---------------------------------------


class Scripted:
    """A dev set whose looks give these scores, the last one over and over.

    Attributes:
        seen: The pooling's weights at each look.
    """

    def __init__(self, *scores: float) -> None:
        self.scores = scores
        self.seen: list[dict[str, torch.Tensor]] = []

    def untouched(self) -> float:
        return 0.0

    def look(self, model) -> dict[str, float]:
        self.seen.append(copied(model[1].state_dict()))
        return {"dev": self.scores[min(len(self.seen), len(self.scores)) - 1]}


class Fault(nn.Module):
    """What a head gives, changed from some step on.

    Args:
        first: The step.
        change: From embeddings (B, D) and their column (anchors, positives, negatives) to others.
    """

    def __init__(self, first: int, change: Callable[[torch.Tensor, int], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.change, self.calls = first, change, itertools.count()

    def forward(self, features):
        step, column = divmod(next(self.calls), 3)
        if step + 1 >= self.first:
            changed = self.change(features["sentence_embedding"], column)
            features = {**features, "sentence_embedding": changed}
        return features


def fitted(config: TrainConfig, triplets, dev: Scripted | DevSet, *faults: Fault, **options):
    """Return a new model after the loop, and how the loop went."""
    examples = Examples.of(triplets, config.objective)
    encoder = lwap.load(config.encoder)
    set_seed(config.seed)
    model = new_model(config, encoder)
    if config.mode == "head":
        seen = on_summaries(config, model, examples, lambda *_: None)
        seen = SentenceTransformer(modules=[*seen, *faults], device="cpu")
    else:
        seen = model = SentenceTransformer(modules=[*model, *faults], device="cpu")
    return model, fit(config, model, seen, examples, dev, **options)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([1, 5, 3, 2], 1),
        ([1, 5, 5, 2], 1),  # the earliest of equals
        ([1, 2, 3, 4], 3),
        ([4, 3, 2, 1], 0),
        ([1, math.nan, 3, 2], 2),
        ([math.nan, 1, math.nan, 2], 3),
    ],
)
def test_the_best_step_is_kept(scores, best, settings, triplets):
    dev = Scripted(*scores)
    model, course = fitted(settings(), triplets, dev)
    assert course.history.dev.tolist() == pytest.approx(scores, nan_ok=True)
    assert course.best_step == course.history.step[best]
    kept_ones = [
        place
        for place, weights in enumerate(dev.seen)
        if all(torch.equal(weights[name], value) for name, value in model[1].state_dict().items())
    ]
    assert kept_ones == [best]


def test_weights_decay_and_a_bias_does_not(settings, triplets):
    plain, decayed = Scripted(1.0, 2.0), Scripted(1.0, 2.0)
    for dev, decay in ((plain, 0.0), (decayed, 0.3)):
        fitted(settings(weight_decay=decay, warmup=0.0, max_steps=1), triplets, dev)
    for name, before in plain.seen[0].items():
        expected = before * (0.0 if name.endswith("bias") else 5e-3 * 0.3)
        found = plain.seen[1][name] - decayed.seen[1][name]
        torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-3)


def test_pooling_and_encoder_learn_at_rates_of_their_own(settings, triplets):
    rates = {"learning_rate": 1e-3, "head_learning_rate": 0.02}
    config, dev = settings(mode="full", warmup=0.0, max_steps=1, **rates), Scripted(1.0, 2.0)
    model, _ = fitted(config, triplets, dev)
    encoder = lwap.load(config.encoder)[0].state_dict()

    def largest(before, after) -> float:
        return max(float((after[name] - value).abs().max()) for name, value in before.items())

    # The first step of Adam is as long as the rate, wherever there is a gradient.
    assert largest(encoder, model[0].state_dict()) == pytest.approx(1e-3, rel=0.01)
    assert largest(dev.seen[0], model[1].state_dict()) == pytest.approx(0.02, rel=0.01)


def test_patience_ends_a_run(settings, triplets):
    config = settings(mode="full", epochs=10, eval_steps=1, patience=3)
    _, course = fitted(config, triplets, Scripted(1.0))
    assert course.history.step.tolist() == [0, 1, 2, 3]
    assert course.best_step == 0


def test_patience_is_remembered(settings, triplets, tmp_path):
    config = settings(epochs=4, patience=3)
    first, second = Events(5), Events()
    options = {"folder": tmp_path, "should_stop": first.should_stop, "log": first.append}
    with pytest.raises(RunStopped):
        fitted(config, triplets, Scripted(3.0, 2.0), **options)
    fitted(config, triplets, Scripted(2.0), folder=tmp_path, log=second.append)
    assert max(second.losses) == 6


def positives_opposed(embeddings: torch.Tensor, column: int) -> torch.Tensor:
    return 0 * embeddings + (-1 if column == 1 else 1)


def no_numbers(embeddings: torch.Tensor, column: int) -> torch.Tensor:
    return embeddings * math.nan


@pytest.mark.parametrize(
    ("change", "noticed_at"),
    [
        (no_numbers, 8),  # at once
        (positives_opposed, 12),  # where half of the last ten steps are lost
    ],
)
def test_a_run_that_diverges_late_ends_and_keeps_its_best_step(
    change, noticed_at, settings, triplets
):
    events, dev = Events(), Scripted(1.0, 2.0, 3.0, 0.5)
    config = settings(epochs=20, eval_steps=3, learning_rate=1e-3)
    model, course = fitted(config, triplets, dev, Fault(8, change), log=events.append)
    assert course.diverged_at == noticed_at == max(events.losses)
    assert course.history.step.tolist() == [*range(0, noticed_at, 3), noticed_at]
    assert math.isnan(course.history.loss.iloc[-1]) == (change is no_numbers)
    assert course.best_step == 6
    weights = model[1].state_dict()
    assert all(torch.equal(dev.seen[2][name], value) for name, value in weights.items())
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_a_loss_that_is_no_number_at_once_is_an_error(settings, triplets):
    with pytest.raises(LwapError, match=r"diverged: at step 1 the loss is nan .* Lower the learn"):
        fitted(settings(), triplets, Scripted(1.0), Fault(1, no_numbers))


def test_held_out_triplets_do_not_hide_a_diverged_run(settings, triplets):
    config = settings()
    _, held_out = Examples.of(triplets, config.objective).hold_out(config.seed)
    dev = DevSet(lwap.load(config.encoder), None, held_out, is_frozen=True)
    with pytest.raises(LwapError, match="diverged: at step 1"):
        fitted(config, triplets, dev, Fault(1, no_numbers))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(
    ("mode", "advice"),
    [("head", r"a smaller batch_size\.$"), ("full", r"mini_batch, .* or mode 'lora'\.$")],
)
def test_too_little_memory_is_told(error, mode, advice, settings, triplets):
    def fail(embeddings, column):
        raise error

    with pytest.raises(LwapError, match=rf"Memory did not suffice at step 1 .* 20\. Try {advice}"):
        fitted(settings(mode=mode), triplets, Scripted(1.0), Fault(1, fail))


def test_other_errors_stay_what_they_are(settings, triplets):
    def fail(embeddings, column):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        fitted(settings(), triplets, Scripted(1.0), Fault(1, fail))


# --- runs that really diverge --------------------------------------------------------------------


def test_a_run_that_diverges_keeps_its_best_step(settings, triplets, dev_pairs):
    events = Events()
    config = settings(epochs=20, eval_steps=1, temperature=0.001, learning_rate=100.0)
    result = run(config, triplets, dev_pairs, events)
    assert result.diverged_at == result.results["diverged_at"] == max(events.losses) < 60
    assert 0 < result.best_step < result.diverged_at
    best = result.history.set_index("step").dev[result.best_step]
    assert result.results["dev_spearman"]["lwap"]["value"] == pytest.approx(best, abs=1e-3)


def test_a_model_that_collapsed_is_an_error(settings, triplets, dev_pairs):
    # All sentences get one vector, so no dev score is a number.
    config = settings(epochs=10, eval_steps=1, temperature=0.01, learning_rate=100.0)
    message = r"diverged.*learning_rate 100.0, temperature 0.01\)\. Lower the learning rate"
    with pytest.raises(LwapError, match=message):
        train(config, triplets, dev_pairs)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["head", "full"])
def test_a_learning_rate_of_ten_is_noticed(mode, settings, dev_pairs):
    # On the bundled encoder and easy triplets: an untrained encoder has nothing to lose.
    groups = pd.read_csv(ROOT / "assets/sentences.csv").groupby("register").sentence.apply(list)
    rows = zip(groups.plain[:50], groups.formal[:50], groups.casual[50:100], strict=True)
    triplets = pd.DataFrame(rows, columns=["sent0", "sent1", "hard_neg"])
    encoder = {"encoder": "all-MiniLM-L6-v2", "max_tokens": 16 if mode == "full" else 0}
    config = settings(mode=mode, learning_rate=10.0, epochs=8, batch_size=10, warmup=0.0, **encoder)
    events = Events()
    try:
        result = run(config, triplets, dev_pairs, events)
    except LwapError as error:  # no step was better than the untrained model
        message = str(error)
        assert "diverged" in message and "learning_rate 10.0" in message
        assert message.endswith("Lower the learning rate.")
    else:  # on 40 pairs a step may be better by chance: that one is kept
        assert result.diverged_at == max(events.losses)
        assert result.results["dev_spearman"]["lwap"]["value"] >= result.history.dev[0]
    assert max(events.losses) < 20


def test_an_ordinary_run_has_not_diverged(settings, triplets, dev_pairs):
    result = train(settings(epochs=8, learning_rate=1e-3), triplets, dev_pairs)
    assert result.diverged_at is None
    assert "diverged_at" not in result.results


# --- stop and resume ----------------------------------------------------------------------------

KINDS = {
    "head": {},
    "head of views": {"objective": "unsupervised", "max_steps": 6},
    "scalar mix": {"pooling": "scalar_mix"},
    "lora": {"mode": "lora"},
    "full": {"mode": "full", "residual": "last_mean"},
    "full, two dropout masks": {"mode": "full", "objective": "unsupervised", "dropout": 0.1},
    "cls with its dense layer": {"mode": "full", "pooling": "cls"},
    "cached": {"mode": "full", "mini_batch": 8},
    "accumulated": {"mode": "full", "accumulation": 2, "batch_size": 10},
}
FAST = ("head", "full, two dropout masks")


@pytest.mark.parametrize(
    "kind", [kind if kind in FAST else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_a_run_that_is_stopped_again_and_again_is_the_uninterrupted_one(
    kind, settings, triplets, dev_pairs, tmp_path
):
    config = settings(learning_rate=1e-3, **KINDS[kind])
    data = triplets.sent0.tolist() if config.objective == "unsupervised" else triplets
    whole, parts = Events(), {}
    expected = run(config, data, dev_pairs, whole)
    assert sorted(whole.losses) == [1, 2, 3, 4, 5, 6]

    before = None
    for stop_after in (2, 3, 5):  # at a look, at an epoch's end, within an epoch
        events = Events(stop_after)
        with pytest.raises(RunStopped, match=f"Stopped at step {stop_after} of 6"):
            run(config, data, dev_pairs, events, folder=tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [f"checkpoint-{stop_after}"]
        assert events.of("resume") == ([{"event": "resume", "step": before}] if before else [])
        assert min(events.losses) == (before or 0) + 1
        parts |= events.losses
        before = stop_after
    last = Events()
    result = run(config, data, dev_pairs, last, folder=tmp_path)
    assert last[0] == {"event": "resume", "step": 5}
    assert parts | last.losses == pytest.approx(whole.losses, abs=5e-5)
    assert result.best_step == expected.best_step
    pd.testing.assert_frame_equal(result.history, expected.history, atol=1e-4)
    weights = result.model.state_dict()
    for name, value in expected.model.state_dict().items():
        torch.testing.assert_close(weights[name], value, atol=1e-5, rtol=1e-4)


def test_checkpoints_are_written_at_looks_and_one_is_kept(settings, triplets, dev_pairs, tmp_path):
    seen = []

    def log(event):
        if event["event"] == "step":
            seen.append(sorted(path.name for path in tmp_path.iterdir()))

    train(settings(), triplets, dev_pairs, log=log, folder=tmp_path, save_seconds=0.0)
    assert seen == [[], [], *2 * [["checkpoint-2"]], *2 * [["checkpoint-4"]]]


def test_without_a_folder_a_stop_keeps_nothing(settings, triplets, dev_pairs):
    with pytest.raises(RunStopped):
        run(settings(), triplets, dev_pairs, Events(2))
    events = Events()
    run(settings(), triplets, dev_pairs, events)
    assert min(events.losses) == 1


def test_a_stop_is_heard_while_sentences_are_encoded(settings, triplets, dev_pairs):
    with pytest.raises(RunStopped, match=r"^Stopped\.$"):
        train(settings(), triplets, dev_pairs, should_stop=lambda: True)


@pytest.fixture(scope="module")
def stopped_once(settings, triplets, dev_pairs, tmp_path_factory) -> Path:
    """The folder of a run that was stopped after three steps. Do not change it."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(RunStopped):
        run(settings(), triplets, dev_pairs, Events(3), folder=folder)
    return folder


@pytest.fixture
def stopped(stopped_once, tmp_path) -> Path:
    """A copy of that folder, to damage."""
    return Path(shutil.copytree(stopped_once, tmp_path / "stopped"))


def test_a_checkpoint_holds_what_is_trained_and_no_training_arguments(stopped):
    names = {path.name for path in (stopped / "checkpoint-3").iterdir()}
    assert names == {
        "trained.safetensors",
        "best.safetensors",
        "course.json",
        "trainer_state.json",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
    }


def test_a_run_with_other_settings_does_not_go_on(stopped, settings, triplets, dev_pairs):
    with pytest.raises(ConfigError, match=r"other settings \(temperature 0\.05 → 0\.1\)"):
        train(settings(temperature=0.1), triplets, dev_pairs, folder=stopped)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "trained.safetensors").write_bytes(b"short"),
        lambda folder: (folder / "best.safetensors").unlink(),
        lambda folder: (folder / "course.json").write_text("{"),
        lambda folder: (folder / "course.json").write_text("{}"),
    ],
)
def test_a_damaged_checkpoint_is_told(damage, stopped, settings, triplets, dev_pairs):
    damage(stopped / "checkpoint-3")
    with pytest.raises(CheckpointError, match=r"cannot be read .* start from the first step"):
        train(settings(), triplets, dev_pairs, folder=stopped)


def test_a_full_disk_is_told_and_the_checkpoint_before_stays(
    settings, triplets, dev_pairs, tmp_path, monkeypatch
):
    whole, first, second = Events(), Events(), Events()
    run(settings(), triplets, dev_pairs, whole)
    with monkeypatch.context() as patched:

        def save_file(weights, file):
            if file.parent.name == "checkpoint-4":
                file.write_bytes(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            save_whole(weights, file)

        save_whole = follower.save_file
        patched.setattr(follower, "save_file", save_file)
        with pytest.raises(CheckpointError, match=r"step 4 could not be written \(No space left"):
            run(settings(), triplets, dev_pairs, first, folder=tmp_path, save_seconds=0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    run(settings(), triplets, dev_pairs, second, folder=tmp_path)
    assert second[0]["step"] == 2
    assert second.losses == pytest.approx(
        {step: loss for step, loss in whole.losses.items() if step > 2}, abs=5e-5
    )


def test_a_half_written_checkpoint_is_not_seen(settings, triplets, dev_pairs, tmp_path):
    half = tmp_path / ".checkpoint-9" / "checkpoint-9"
    half.mkdir(parents=True)
    (half / "trained.safetensors").write_bytes(b"half")
    assert kept.last_checkpoint(tmp_path) is None
    events = Events(3)
    with pytest.raises(RunStopped):
        run(settings(), triplets, dev_pairs, events, folder=tmp_path)
    assert min(events.losses) == 1
    kept.drop_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


# --- events -------------------------------------------------------------------------------------


def test_each_step_is_told_with_what_a_chart_needs(settings, triplets, dev_pairs):
    events = Events()
    config = settings(mode="full", batch_size=10, learning_rate=1e-3, temperature=0.1, eval_steps=5)
    result = run(config, triplets, dev_pairs, events)
    steps = events.of("step")
    assert [event["step"] for event in steps] == list(range(1, 13))
    assert {event["steps"] for event in steps} == {12}
    assert all(0 < event["loss"] < 5 and 0 < event["grad_norm"] < 100 for event in steps)
    assert all(event["rows"] == 10 and event["seconds"] > 0 for event in steps)
    # Warm-up of two steps, then down to nothing: the rate of a step is that it was made with.
    rates = [event["learning_rate"] for event in steps]
    assert rates[:3] == pytest.approx([0.0, 5e-4, 1e-3])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    looks = [{k: v for k, v in event.items() if k != "event"} for event in events.of("look")]
    pd.testing.assert_frame_equal(pd.DataFrame(looks), result.history)
    assert [event["step"] for event in looks] == [0, 5, 10, 12]
    assert events[0] == {
        "event": "start",
        "step": 0,
        "steps": 12,
        "untouched": events[0]["untouched"],
    }
    mean = result.results["dev_spearman"]["mean"]["value"]
    assert events[0]["untouched"] == pytest.approx(mean, abs=1e-3)
    json.dumps(events)


# --- several processes --------------------------------------------------------------------------

OPTIONS = {
    "mean": {"mode": "full", "pooling": "mean"},
    "hard negatives": {"mode": "full", "residual": "last_mean", "hard_negative_weight": 1.0},
    "cached": {"mode": "full", "pooling": "mean", "mini_batch": 3},
    "lora": {"mode": "lora"},
    "head": {"mode": "head", "residual": "last_mean"},
}
SCRIPT = """
import json, sys, warnings
warnings.filterwarnings("ignore")
import pandas as pd
from torch.nn import functional
from lwap.training import TrainConfig, train

functional.rrelu = lambda x, low, high, training: functional.leaky_relu(x, (low + high) / 2)
settings, output = json.loads(sys.argv[1]), sys.argv[2]
triplets = pd.read_csv(sys.argv[3])
pairs = pd.read_csv(sys.argv[4])
found = {}
for name, options in settings.items():
    events = []
    result = train(TrainConfig(**options), triplets, pairs, log=events.append)
    losses = [event["loss"] for event in events if event["event"] == "step"]
    found[name] = {"losses": losses, "dev": result.history.dev.tolist()}
if events:
    with open(output, "w") as file:
        json.dump(found, file)
"""


@pytest.fixture(scope="module")
def of_processes(settings) -> Callable[[str, int], TrainConfig]:
    """Return a function that gives the settings of one of OPTIONS for a batch of that many rows."""

    def make(name: str, batch_size: int) -> TrainConfig:
        # Without dropout and, see the script, random slopes: each process draws its own.
        options = OPTIONS[name]
        dropout = None if options["mode"] == "head" else 0.0
        return settings(dropout=dropout, learning_rate=1e-3, batch_size=batch_size, **options)

    return make


@pytest.fixture(scope="module")
def of_two_processes(of_processes, triplets, dev_pairs, tmp_path_factory) -> dict[str, dict]:
    """What all OPTIONS give in two processes with half a batch each; one start for all."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "script.py").write_text(SCRIPT)
    triplets.to_csv(folder / "t.csv", index=False)
    dev_pairs.to_csv(folder / "d.csv", index=False)
    every = {name: of_processes(name, 10).to_dict() for name in OPTIONS}
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    files = [str(folder / name) for name in ("found.json", "t.csv", "d.csv")]
    done = subprocess.run(
        [*start, str(folder / "script.py"), json.dumps(every), *files],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_two_processes_give_the_losses_of_one_with_both_batches(
    name, of_processes, of_two_processes, triplets, dev_pairs, monkeypatch
):
    monkeypatch.setattr(
        functional,
        "rrelu",
        lambda x, low, high, training: functional.leaky_relu(x, (low + high) / 2),
    )
    events = Events()
    result = run(of_processes(name, 20), triplets, dev_pairs, events)
    found = of_two_processes[name]
    assert len(events.losses) == 6
    assert found["losses"] == pytest.approx(list(events.losses.values()), abs=2e-4)
    assert found["dev"] == pytest.approx(result.history.dev.tolist(), abs=0.05)
