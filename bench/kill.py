"""Kill the worker of a run, and the app, at random moments; see what is left.

A run of a tiny encoder is started as the app starts it, its worker killed with SIGKILL after a
random time, and the folder looked at: can it be read, is a checkpoint half-written, is it offered
for resume? Then it is resumed and killed again, until it ends; its losses must be those of a run
that nobody disturbed. The app, a Streamlit server with the Fine-tune page open, is killed likewise
while a run is at work: the run must go on.

    python bench/kill.py --json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from _measure import ROOT, machine, report


def tiny_encoder(folder: Path) -> Path:
    """Write a BERT of four small layers with the bundled encoder's words; return its folder."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from lwap.encoding.sources import resolve_encoder

    tokenizer = AutoTokenizer.from_pretrained(resolve_encoder("bundled"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def new_run(encoder: Path, name: str, epochs: int):
    """Make a run of the example triplets in full mode."""
    import pandas as pd

    from lwap import jobs
    from lwap.training import TrainConfig

    config = TrainConfig(
        encoder=str(encoder),
        mode="full",
        residual="last_mean",
        epochs=epochs,
        batch_size=30,
        eval_steps=4,
        precision="fp32",
    )
    triplets = pd.read_csv(ROOT / "assets" / "triplets.csv")
    pairs = pd.read_csv(ROOT / "assets" / "pairs.csv")[["sentence1", "sentence2", "score"]]
    return jobs.create(config, triplets, pairs, name=name, data_name="examples")


def losses(run) -> dict[int, float]:
    """Return the loss of each step so far."""
    from lwap.jobs.events import read_history

    return {row["step"]: row["loss"] for row in read_history(run.folder).steps}


def faults(run) -> list[str]:
    """Return what is wrong with a folder that nobody works on."""
    from lwap.checkpoints.verify import verify
    from lwap.jobs import control
    from lwap.jobs.folder import read_json
    from lwap.training.run_checkpoints import checkpoints

    found = []
    if [each.name for each in control.list_runs()].count(run.name) != 1:
        found.append("it is not listed")
    try:
        run.request  # noqa: B018
    except Exception as error:
        found.append(f"its request cannot be read: {error}")
    if read_json(run.folder / "status.json") is None:
        found.append("its status cannot be read")
    for step, folder in checkpoints(run.folder):
        try:
            whole(folder)
        except Exception as error:
            found.append(f"checkpoint {step}: {error}")
    if run.has_model:
        try:
            verify(str(run.model_folder))
        except Exception as error:
            found.append(f"its model: {error}")
    elif not control.state(run).can_resume:
        found.append(f"it is {control.state(run)} and offers no resume")
    return found


def whole(folder: Path) -> None:
    """Read everything in a checkpoint; raise if something is cut."""
    import torch
    from safetensors.torch import load_file

    for name in ("trained.safetensors", "best.safetensors"):
        load_file(folder / name)
    for name in ("course.json", "trainer_state.json"):
        json.loads((folder / name).read_text("utf-8"))
    for name in ("optimizer.pt", "scheduler.pt"):
        torch.load(folder / name, weights_only=True)


def kill_workers(encoder: Path, moments: int, epochs: int, draw: random.Random) -> dict[str, Any]:
    """Kill a worker `moments` times at random; runs are resumed until they end."""
    from lwap import jobs
    from lwap.jobs import control
    from lwap.jobs.folder import read_json

    reference = new_run(encoder, "undisturbed", epochs)
    started = time.monotonic()
    jobs.start(reference)
    wait_for_end(reference)
    lasted = time.monotonic() - started
    expected = losses(reference)
    wrong: list[str] = []
    states: dict[str, int] = {}
    killed = resumed = finished = 0
    differences = [0.0]
    number = 0
    while killed < moments:
        number += 1
        run = new_run(encoder, f"disturbed-{number}", epochs)
        jobs.start(run)
        while True:
            # From the first moment to a little beyond what a start and some steps take.
            time.sleep(draw.uniform(0.0, lasted * 0.9))
            known = read_json(run.folder / "worker.json")
            if killed < moments and known and control.is_at_work(run):
                phase = run.status.phase
                with contextlib.suppress(ProcessLookupError):
                    os.kill(known["pid"], signal.SIGKILL)
                    killed += 1
                    states[phase] = states.get(phase, 0) + 1
                while control.is_at_work(run):
                    time.sleep(0.01)
                wrong += [f"{run.name}: {fault}" for fault in faults(run)]
            else:
                wait_for_end(run)
            if control.state(run) == "finished":
                break
            jobs.resume(run)
            resumed += 1
        finished += 1
        found = losses(run)
        if found.keys() != expected.keys():
            wrong.append(f"{run.name}: {len(found)} steps, not {len(expected)}")
        differences += [
            abs(found[step] - expected[step]) for step in found.keys() & expected.keys()
        ]
        wrong += [f"{run.name}: {fault}" for fault in faults(run)]
    return {
        "worker_kills": killed,
        "worker_kills_by_phase": states,
        "resumes": resumed,
        "runs_finished": finished,
        "steps_a_run": len(expected),
        "seconds_a_run": round(lasted, 1),
        "worker_faults": wrong,
        "largest_loss_difference": max(differences),
    }


def wait_for_end(run, seconds: float = 600) -> None:
    """Wait until nobody works on a run."""
    from lwap.jobs import control

    end = time.monotonic() + seconds
    while control.state(run).is_active or control.is_at_work(run):
        if time.monotonic() > end:
            raise SystemExit(f"{run.name} does not end: {run.log_tail(20)}")
        time.sleep(0.05)


def kill_apps(encoder: Path, moments: int, epochs: int, draw: random.Random) -> dict[str, Any]:
    """Kill a Streamlit server `moments` times while a run that it started is at work."""
    from lwap.jobs import control

    run = new_run(encoder, "under-an-app", epochs * 60)
    wrong = []
    kills = 0
    started = False
    for _ in range(moments):
        port = free_port()
        app = subprocess.Popen(
            [
                *(sys.executable, "-c", APP, str(run.folder) if not started else "", str(port)),
            ],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for_server(port, app)
        if not started:
            while not losses(run):
                time.sleep(0.05)
            started = True
        time.sleep(draw.uniform(0.0, 2.0))
        before = max(losses(run))
        os.killpg(app.pid, signal.SIGKILL)
        app.wait()
        kills += 1
        time.sleep(1.0)
        if control.state(run) != "training":
            wrong.append(f"after kill {kills} the run is {control.state(run)}")
        elif max(losses(run)) <= before:
            wrong.append(f"after kill {kills} the run stands still at step {before}")
    from lwap import jobs

    jobs.stop(run)
    wait_for_end(run)
    wrong += faults(run)
    return {"app_kills": kills, "app_faults": wrong, "state_after_stop": str(control.state(run))}


# The server starts the run itself, as a click on the page does, and shows the page.
APP = """
import sys, threading
from pathlib import Path
from streamlit.web import bootstrap
folder, port = sys.argv[1:]
if folder:
    from lwap import jobs
    from lwap.jobs.folder import Run
    jobs.start(Run(Path(folder)))
options = {"server_port": int(port), "server_headless": True}
bootstrap.load_config_options(options)
bootstrap.run("app.py", False, [], options)
"""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for_server(port: int, app: subprocess.Popen, seconds: float = 60) -> None:
    """Wait until the server answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if app.poll() is not None:
            raise SystemExit(f"the app ended by itself with status {app.returncode}")
        with contextlib.suppress(OSError):
            address = f"http://127.0.0.1:{port}/_stcore/health"
            if urllib.request.urlopen(address, timeout=2).status == 200:
                return
        time.sleep(0.1)
    raise SystemExit("the app does not answer")


def main() -> None:
    """Kill, look, resume."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=20, help="kills of a worker")
    parser.add_argument("--apps", type=int, default=10, help="kills of the app")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LWAP_RUNS"] = str(Path(folder) / "runs")
        os.environ["LWAP_SAVE_SECONDS"] = "0.2"  # a checkpoint at nearly every look
        encoder = tiny_encoder(Path(folder) / "encoder")
        figures = {
            **kill_workers(encoder, options.workers, options.epochs, draw),
            **kill_apps(encoder, options.apps, options.epochs, draw),
            "machine": machine(),
        }
    report(figures, options.json)
    if figures["worker_faults"] or figures["app_faults"]:
        raise SystemExit("There are faults.")


if __name__ == "__main__":
    main()
