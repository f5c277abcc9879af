"""The Fine-tune page in a browser: a run outlives the tab and the server, and is found again."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from lwap.jobs import control, folder
from lwap.jobs.events import read_history
from lwap.jobs.folder import Run
from tests.browser.serving import OUTPUT, serve, wait_until_drawn

pytestmark = [pytest.mark.browser, pytest.mark.slow]

STEPS = 2800  # 4 of them an epoch: long enough to be watched


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """A folder for runs; what is at work when the test ends is killed."""
    shelf = tmp_path / "runs"
    monkeypatch.setenv("LWAP_RUNS", str(shelf))
    monkeypatch.setenv("LWAP_DATA", str(tmp_path / "data"))
    yield shelf
    for run in [*control.list_runs(), Run(tmp_path / "alone" / "alone")]:
        known = folder.read_json(run.folder / folder.WORKER)
        if known and control.is_at_work(run):
            os.kill(known["pid"], signal.SIGKILL)
    for child in control._children:
        child.wait(10)


def settle(page: Page) -> None:
    page.wait_for_timeout(300)
    wait_until_drawn(page)


def fill(page: Page, key: str, value: str) -> None:
    box = page.locator(f"[class*=st-key-{key}] input")
    box.fill(value)
    box.press("Enter")
    settle(page)


def press(page: Page, key: str) -> None:
    # A button with help has a hidden twin, for phones.
    page.locator(f".st-key-{key} button:visible").click()


def losses(run) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in read_history(run.folder).steps}


def wait(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


@contextlib.contextmanager
def held(run: Run) -> Iterator[None]:
    """Hold a run's process, so that it is not done before a slow machine has drawn a page."""
    pid = folder.read_json(run.folder / folder.WORKER)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def undisturbed(run: Run, shelf: Path) -> Run:
    """Start a run of the same request and data, which nobody touches, in a folder of its own."""
    other = Run(shelf / "alone")
    other.folder.mkdir(parents=True)
    for name in (folder.CONFIG, folder.DATA, folder.DEV):
        shutil.copy(run.folder / name, other.folder)
    control.start(other)
    return other


def start(page: Page, encoder: Path, name: str) -> None:
    """Fill the form and press the button."""
    page.locator(".st-key-train_options summary").click()
    fill(page, "train_minute_supervised_epochs", str(STEPS // 4))
    fill(page, "train_minute_supervised_eval_steps", "100")
    fill(page, "train_encoder", str(encoder))
    fill(page, "train_name", name)
    press(page, "train_start")


def state_of(page: Page, text: str, seconds: float = 40) -> None:
    expect(page.get_by_test_id("stMain")).to_contain_text(text, timeout=1000 * seconds)


def test_a_run_outlives_tab_and_server(open_app, runs, tiny_encoder_folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with serve() as first:
        page = open_app("/finetune", at=first)
        expect(page.locator(".st-key-train_start button")).to_be_in_viewport()
        start(page, tiny_encoder_folder, "watched")
        state_of(page, "Training. Step")
        chart = page.locator(".st-key-run-course .main-svg").first
        chart.wait_for()
        assert "run=watched" in page.url
        run = control.find("watched")
        alone = undisturbed(run, runs.with_name("alone"))

        # It moves by itself.
        line = page.get_by_test_id("stProgress").first
        before = line.inner_text()
        expect(line).not_to_have_text(before, timeout=10_000)
        OUTPUT.mkdir(exist_ok=True)
        page.screenshot(path=OUTPUT / "finetune-running-test.png")

        with held(run):
            page.reload()
            wait_until_drawn(page)
            state_of(page, "Training. Step")
            page.locator(".st-key-run-course .main-svg").first.wait_for()
            page.close()
        address = page.url.removeprefix(first.url)
    assert control.state(run) == "training"  # the server is gone, the run is not
    step = max(losses(run))
    wait(lambda: max(losses(run)) > step)

    with contextlib.ExitStack() as until_stopped, serve() as second:
        until_stopped.enter_context(held(run))
        page = open_app(address, at=second)
        state_of(page, "Training. Step")
        press(page, "run_stop")
        state_of(page, "Stopping after this step")
        until_stopped.close()
        state_of(page, "It resumes from step")
        stopped_at = run.checkpoint
        assert 0 < stopped_at < STEPS
        press(page, "run_resume")
        state_of(page, "Finished.", seconds=300)
        expect(page.get_by_test_id("stMain")).to_contain_text("Against the encoder's mean")
        settle(page)
        page.screenshot(path=OUTPUT / "finetune-finished-test.png")
        assert second.complaints() == []
        page.close()  # it would ask for the server that ends here

    # Nothing of all this is in the losses: they are those of a run that was left alone.
    wait(lambda: control.state(alone) == "finished" and not control.is_at_work(alone))
    assert read_history(run.folder).resumed_at == [stopped_at]
    ours, theirs = losses(run), losses(alone)
    assert sorted(ours) == sorted(theirs) == list(range(1, STEPS + 1))
    assert max(abs(ours[at] - theirs[at]) for at in ours) < 5e-5
