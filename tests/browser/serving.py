"""Start the app and a browser, and wait for a page: for the browser tests and for screenshots.py.

Chromium must be installed by the system (`apt-get install chromium`); Playwright only drives it.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from playwright.sync_api import Browser, Page, Playwright

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = Path(__file__).parent / "output"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
)
ADDRESSES = {
    "layers": "/",
    "pairs": "/pairs",
    "search": "/search",
    "evaluate": "/evaluate",
    "space": "/space",
    "finetune": "/finetune",
    "models": "/models",
}
TITLES = {name: name.capitalize() for name in ADDRESSES} | {"finetune": "Fine-tune"}
# What a page shows first where that is no figure.
WITHOUT_FIGURE = {"finetune": ".st-key-train_start button"}
START_SECONDS = 60
PAGE_SECONDS = 90  # the first page imports torch and loads a model

# Streamlit draws asynchronously: its script has ended, no placeholder is left, and every figure
# has its picture.
_IS_DRAWN = """
() => {
    const app = document.querySelector('[data-testid="stApp"]');
    if (!app || app.getAttribute("data-test-script-state") !== "notRunning") return false;
    if (document.querySelector('[data-testid="stSkeleton"], [data-testid="stSpinner"]')) {
        return false;
    }
    if (document.querySelector('[data-stale="true"]')) return false;
    const charts = [...document.querySelectorAll('[data-testid="stPlotlyChart"]')];
    return charts.every((chart) => chart.querySelector(".js-plotly-plot .main-svg"));
}
"""


@dataclass(frozen=True)
class Server:
    """A running app.

    Attributes:
        url: Its address, without a slash at the end.
        log: The file that holds what it printed.
        pid: Its process.
    """

    url: str
    log: Path
    pid: int = 0

    def complaints(self) -> list[str]:
        """Return the lines of the log that tell of a traceback, an error or a warning."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return [line for line in lines if re.search(r"Traceback|Error|Warning|ERROR|WARN", line)]


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    """Run the app on a free port of this machine, in a process group of its own.

    Raises:
        RuntimeError: If it does not start; the message holds its log.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    with tempfile.TemporaryDirectory(prefix="lwap-server-") as folder:
        server = Server(f"http://127.0.0.1:{port}", Path(folder) / "log.txt")
        with server.log.open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _wait_for_health(server, process)
            yield replace(server, pid=process.pid)
        finally:
            _end(process)


def _wait_for_health(server: Server, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.url}/_stcore/health"):
            return
        time.sleep(0.1)
    log = server.log.read_text("utf-8", "replace")
    raise RuntimeError(f"The app did not start within {START_SECONDS} s:\n{log}")


def _end(process: subprocess.Popen) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
            return


def find_browser() -> str | None:
    """Return the path of an installed Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def launch(playwright: Playwright, executable: str) -> Browser:
    """Start the browser without a window."""
    return playwright.chromium.launch(
        executable_path=executable, headless=True, args=list(BROWSER_OPTIONS)
    )


def wait_until_drawn(page: Page) -> None:
    """Wait until the page's script has ended and every figure is drawn, and is so still."""
    page.wait_for_selector('[data-testid="stApp"]', timeout=PAGE_SECONDS * 1000)
    calm = 0
    deadline = time.monotonic() + PAGE_SECONDS
    while calm < 3:  # between two runs of a script, a page looks as if it were done
        if time.monotonic() > deadline:
            raise TimeoutError(f"{page.url} was not drawn within {PAGE_SECONDS} s")
        calm = calm + 1 if page.evaluate(_IS_DRAWN) else 0
        page.wait_for_timeout(100)
