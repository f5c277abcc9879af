"""A run's events, checkpoints, stop and resume, and how it ends when something goes wrong."""

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from lwap.errors import CheckpointError, ConfigError, LwapError
from lwap.training import RunStopped, TrainConfig, loop, train
from lwap.training import run_checkpoints as kept
from lwap.training.objectives import ContrastiveLoss

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def dev_pairs() -> pd.DataFrame:
    pairs = pd.read_csv(ROOT / "assets/pairs.csv")
    return pairs[["sentence1", "sentence2", "score"]].head(40)


@pytest.fixture(scope="module")
def triplets() -> pd.DataFrame:
    groups = pd.read_csv(ROOT / "assets/sentences.csv")
    plain, formal, casual = (
        groups[groups.register == name].sentence.tolist() for name in ("plain", "formal", "casual")
    )
    return pd.DataFrame({"sent0": plain[:50], "sent1": formal[:50], "hard_neg": casual[50:100]})


@pytest.fixture(scope="module")
def settings(tiny_encoder_folder):
    def make(**changes) -> TrainConfig:
        small = {
            "encoder": str(tiny_encoder_folder),
            "epochs": 2,
            "batch_size": 10,
            "learning_rate": 1e-3,
            "eval_steps": 3,
            "precision": "fp32",
        }
        return TrainConfig(**(small | changes))

    return make


class Events(list):
    """What a run said; asks for a stop after some step."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.stop_after = stop_after

    def should_stop(self) -> bool:
        return any(event["step"] >= self.stop_after - 1 for event in self.of("step"))

    def of(self, kind: str) -> list[dict]:
        return [event for event in self if event["event"] == kind]

    @property
    def losses(self) -> dict[int, float]:
        return {event["step"]: event["loss"] for event in self.of("step")}


def run(config, data, pairs, events, **options):
    return train(config, data, pairs, log=events.append, should_stop=events.should_stop, **options)


def weights(result) -> dict[str, torch.Tensor]:
    return {name: value for name, value in result.model.state_dict().items()}


# --- stop and resume ----------------------------------------------------------------------------

KINDS = {
    "head": {},
    "head of views": {"objective": "unsupervised"},
    "scalar mix": {"pooling": "scalar_mix"},
    "lora": {"mode": "lora"},
    "full": {"mode": "full", "residual": "last_mean"},
    "full, two dropout masks": {"mode": "full", "objective": "unsupervised", "dropout": 0.1},
    "cls with its dense layer": {"mode": "full", "pooling": "cls"},
    "cached": {"mode": "full", "mini_batch": 4},
    "accumulated": {"mode": "full", "accumulation": 2, "batch_size": 5},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop_after", [4, 5, 6])  # within an epoch, at its end, at a look
def test_a_resumed_run_is_the_uninterrupted_one(
    kind, stop_after, settings, triplets, dev_pairs, tmp_path
):
    config = settings(**KINDS[kind])
    data = triplets.sent0.tolist() if config.objective == "unsupervised" else triplets
    whole = Events()
    expected = run(config, data, dev_pairs, whole)

    first = Events(stop_after)
    with pytest.raises(RunStopped, match=f"Stopped at step {stop_after} of"):
        run(config, data, dev_pairs, first, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"checkpoint-{stop_after}"]
    second = Events()
    result = run(config, data, dev_pairs, second, folder=tmp_path)

    assert second[0] == {"event": "resume", "step": stop_after}
    assert first.losses | second.losses == pytest.approx(whole.losses, abs=5e-5)
    assert min(second.losses) == stop_after + 1
    assert result.best_step == expected.best_step
    pd.testing.assert_frame_equal(result.history, expected.history, atol=1e-4)
    for name, value in weights(expected).items():
        torch.testing.assert_close(weights(result)[name], value, atol=1e-5, rtol=1e-4)


def test_a_run_may_be_stopped_again_and_again(settings, triplets, dev_pairs, tmp_path):
    whole, parts = Events(), {}
    run(settings(), triplets, dev_pairs, whole)
    for stop_after in (2, 3, 7):
        events = Events(stop_after)
        with pytest.raises(RunStopped):
            run(settings(), triplets, dev_pairs, events, folder=tmp_path)
        parts |= events.losses
    events = Events()
    run(settings(), triplets, dev_pairs, events, folder=tmp_path)
    assert parts | events.losses == pytest.approx(whole.losses, abs=5e-5)


def test_checkpoints_are_written_at_looks_and_one_is_kept(settings, triplets, dev_pairs, tmp_path):
    seen = []

    def log(event):
        if event["event"] == "step":
            seen.append(sorted(path.name for path in tmp_path.iterdir()))

    train(settings(), triplets, dev_pairs, log=log, folder=tmp_path, save_seconds=0.0)
    three, six, nine = (["checkpoint-3"], ["checkpoint-6"], ["checkpoint-9"])
    assert seen == [[], [], [], three, three, three, six, six, six, nine]


def test_without_a_folder_a_stop_keeps_nothing(settings, triplets, dev_pairs, tmp_path):
    with pytest.raises(RunStopped):
        run(settings(), triplets, dev_pairs, Events(2))
    events = Events()
    run(settings(), triplets, dev_pairs, events)
    assert min(events.losses) == 1


def test_a_stop_is_heard_while_sentences_are_encoded(settings, triplets, dev_pairs):
    with pytest.raises(RunStopped, match=r"^Stopped\.$"):
        train(settings(), triplets, dev_pairs, should_stop=lambda: True)


def test_a_checkpoint_holds_what_is_trained_and_no_training_arguments(
    settings, triplets, dev_pairs, tmp_path
):
    with pytest.raises(RunStopped):
        run(settings(), triplets, dev_pairs, Events(4), folder=tmp_path)
    names = {path.name for path in (tmp_path / "checkpoint-4").iterdir()}
    assert names == {
        "trained.safetensors",
        "best.safetensors",
        "course.json",
        "trainer_state.json",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
    }


def test_a_run_with_other_settings_does_not_go_on(settings, triplets, dev_pairs, tmp_path):
    with pytest.raises(RunStopped):
        run(settings(), triplets, dev_pairs, Events(4), folder=tmp_path)
    with pytest.raises(ConfigError, match=r"other settings \(temperature 0\.05 → 0\.1\)"):
        run(settings(temperature=0.1), triplets, dev_pairs, Events(), folder=tmp_path)


def test_patience_is_remembered(settings, triplets, dev_pairs, tmp_path, monkeypatch):
    scores = iter([3.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(loop.DevSet, "look", lambda self, model: {"dev": next(scores)})
    config = settings(epochs=4, eval_steps=2, patience=3)
    with pytest.raises(RunStopped):
        run(config, triplets, dev_pairs, Events(5), folder=tmp_path)
    events = Events()
    run(config, triplets, dev_pairs, events, folder=tmp_path)
    assert max(events.losses) == 6


# --- events -------------------------------------------------------------------------------------


def test_each_step_is_told_with_what_a_chart_needs(settings, triplets, dev_pairs):
    events = Events()
    result = run(settings(mode="full"), triplets, dev_pairs, events)
    steps = events.of("step")
    assert [event["step"] for event in steps] == list(range(1, 11))
    assert {event["steps"] for event in steps} == {10}
    assert all(0 < event["loss"] < 5 and 0 < event["grad_norm"] < 100 for event in steps)
    assert all(event["rows"] == 10 and 0 < event["seconds"] < 60 for event in steps)
    # Warm-up of one step, then down to nothing: the rate of a step is that it was made with.
    rates = [event["learning_rate"] for event in steps]
    assert rates[0] == 0.0
    assert rates[1] == pytest.approx(1e-3)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    looks = [{k: v for k, v in event.items() if k != "event"} for event in events.of("look")]
    pd.testing.assert_frame_equal(pd.DataFrame(looks), result.history)
    assert [event["step"] for event in looks] == [0, 3, 6, 9, 10]
    assert events[0] == {
        "event": "start",
        "step": 0,
        "steps": 10,
        "untouched": events[0]["untouched"],
    }
    mean = result.results["dev_spearman"]["mean"]["value"]
    assert events[0]["untouched"] == pytest.approx(mean, abs=1e-3)
    json.dumps(events)


# --- what goes wrong ----------------------------------------------------------------------------


def full_disk(monkeypatch, from_step: int) -> None:
    """Let the disk be full from some checkpoint on."""
    original = loop._Follower.save

    def save(self, folder):
        if self.step >= from_step:
            (folder / "trained.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(self, folder)

    monkeypatch.setattr(loop._Follower, "save", save)


def test_a_full_disk_is_told_and_the_checkpoint_before_stays(
    settings, triplets, dev_pairs, tmp_path, monkeypatch
):
    whole, first, second = Events(), Events(), Events()
    run(settings(), triplets, dev_pairs, whole)
    with monkeypatch.context() as patched:
        full_disk(patched, from_step=6)
        with pytest.raises(CheckpointError, match=r"step 6 could not be written \(No space left"):
            run(settings(), triplets, dev_pairs, first, folder=tmp_path, save_seconds=0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]
    run(settings(), triplets, dev_pairs, second, folder=tmp_path)
    assert second[0]["step"] == 3
    assert second.losses == pytest.approx(
        {step: loss for step, loss in whole.losses.items() if step > 3}, abs=5e-5
    )


def test_a_half_written_checkpoint_is_not_seen(settings, triplets, dev_pairs, tmp_path):
    half = tmp_path / ".checkpoint-9" / "checkpoint-9"
    half.mkdir(parents=True)
    (half / "trained.safetensors").write_bytes(b"half")
    assert kept.last_checkpoint(tmp_path) is None
    events = Events(4)
    with pytest.raises(RunStopped):
        run(settings(), triplets, dev_pairs, events, folder=tmp_path)
    assert min(events.losses) == 1
    kept.drop_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "trained.safetensors").write_bytes(b"short"),
        lambda folder: (folder / "best.safetensors").unlink(),
        lambda folder: (folder / "course.json").write_text("{"),
        lambda folder: (folder / "course.json").write_text("{}"),
    ],
)
def test_a_damaged_checkpoint_is_told(damage, settings, triplets, dev_pairs, tmp_path):
    with pytest.raises(RunStopped):
        run(settings(), triplets, dev_pairs, Events(4), folder=tmp_path)
    damage(tmp_path / "checkpoint-4")
    with pytest.raises(CheckpointError, match=r"cannot be read .* start from the first step"):
        run(settings(), triplets, dev_pairs, Events(), folder=tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
@pytest.mark.parametrize(
    ("mode", "advice"),
    [("head", r"a smaller batch_size\.$"), ("full", r"mini_batch, .* or mode 'lora'\.$")],
)
def test_too_little_memory_is_told(error, mode, advice, settings, triplets, dev_pairs, monkeypatch):
    def fail(self, embeddings, labels):
        raise error

    monkeypatch.setattr(ContrastiveLoss, "compute_loss_from_embeddings", fail)
    with pytest.raises(LwapError, match=rf"Memory did not suffice at step 1 .* 10\. Try {advice}"):
        train(settings(mode=mode), triplets, dev_pairs)


def test_other_errors_stay_what_they_are(settings, triplets, dev_pairs, monkeypatch):
    def fail(self, embeddings, labels):
        raise RuntimeError("a bug")

    monkeypatch.setattr(ContrastiveLoss, "compute_loss_from_embeddings", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        train(settings(), triplets, dev_pairs)


def later(monkeypatch, step: int, change) -> None:
    """Change the loss from some step on."""
    calls = []
    original = ContrastiveLoss.compute_loss_from_embeddings

    def compute(self, embeddings, labels):
        calls.append(1)
        loss = original(self, embeddings, labels)
        return change(loss) if len(calls) >= step else loss

    monkeypatch.setattr(ContrastiveLoss, "compute_loss_from_embeddings", compute)


@pytest.mark.parametrize(
    ("change", "noticed_at"),
    [(lambda loss: loss * math.nan, 8), (lambda loss: loss + 30, 12)],
)
def test_a_run_that_diverges_late_ends_and_keeps_its_best_step(
    change, noticed_at, settings, triplets, dev_pairs, monkeypatch
):
    later(monkeypatch, 8, change)
    scores = iter([1.0, 2.0, 3.0, *[0.5] * 20])
    monkeypatch.setattr(loop.DevSet, "look", lambda self, model: {"dev": next(scores)})
    monkeypatch.setattr(loop.DevSet, "results", lambda *args, **kwargs: {})
    events = Events()
    result = run(settings(epochs=20), triplets, dev_pairs, events)
    assert result.diverged_at == noticed_at == result.results["diverged_at"]
    assert max(events.losses) == noticed_at
    assert result.best_step == 6


@pytest.mark.parametrize("mode", ["head", "full"])
def test_a_learning_rate_of_ten_is_noticed(mode, settings, triplets, dev_pairs):
    # On the bundled encoder: an untrained one has nothing to lose.
    encoder = {"encoder": "all-MiniLM-L6-v2", "max_tokens": 16 if mode == "full" else 0}
    config = settings(mode=mode, learning_rate=10.0, epochs=8, warmup=0.0, **encoder)
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
    result = train(settings(epochs=8), triplets, dev_pairs)
    assert result.diverged_at is None
    assert "diverged_at" not in result.results


# --- several processes --------------------------------------------------------------------------

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
events = []
result = train(TrainConfig(**settings), triplets, pairs, log=events.append)
if events:
    losses = [event["loss"] for event in events if event["event"] == "step"]
    with open(output, "w") as file:
        json.dump({"losses": losses, "dev": result.history.dev.tolist()}, file)
"""


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "full", "pooling": "mean"},
        {"mode": "full", "residual": "last_mean", "hard_negative_weight": 1.0},
        {"mode": "full", "pooling": "mean", "mini_batch": 3},
        {"mode": "lora"},
        {"mode": "head", "residual": "last_mean"},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_two_processes_give_the_losses_of_one_with_both_batches(
    options, tiny_encoder_folder, triplets, dev_pairs, tmp_path
):
    # Without dropout and, see the script, random slopes: each process draws its own.
    common = {
        "encoder": str(tiny_encoder_folder),
        "dropout": None if options["mode"] == "head" else 0.0,
        "precision": "fp32",
        "learning_rate": 1e-3,
        "eval_steps": 2,
        **options,
    }
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    triplets.to_csv(tmp_path / "t.csv", index=False)
    dev_pairs.to_csv(tmp_path / "d.csv", index=False)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    found = {}
    for processes, batch in ((1, 10), (2, 5)):
        output = tmp_path / f"{processes}.json"
        start = [sys.executable]
        if processes > 1:
            start += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        settings = json.dumps({**common, "batch_size": batch})
        arguments = [
            str(script),
            settings,
            str(output),
            *(str(tmp_path / f) for f in ("t.csv", "d.csv")),
        ]
        done = subprocess.run(
            [*start, *arguments], capture_output=True, text=True, env=environment, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found[processes] = json.loads(output.read_text())
    assert len(found[1]["losses"]) == (15 if options["mode"] == "head" else 5)
    assert found[2]["losses"] == pytest.approx(found[1]["losses"], abs=2e-4)
    assert found[2]["dev"] == pytest.approx(found[1]["dev"], abs=0.05)
