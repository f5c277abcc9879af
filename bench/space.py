"""UMAP maps against umap-learn's own defaults; with --browser, the page under load.

Both sides draw the same vectors (mean pooling of the bundled encoder, sentences of the STS sets in
LWAP_DATA or ../shared/data) in processes that are warm; ours works on exact neighbours and starts
from the principal components. With --browser, the app gets a file of so many sentences in real
Chromium: seconds to each map, seconds from the end of a lasso drag to the table, bytes over the
websocket, peak memory of the server and of the process that draws UMAP.

    python bench/space.py --json
    python bench/space.py --browser 20000 --json
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _measure import ROOT, alternate, machine, ratio, report
from encode import sentences


def main() -> None:
    """Measure one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--browser", type=int, metavar="N", help="sentences of the file")
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    options = parser.parse_args()
    found = in_browser(options.browser) if options.browser else fits(options)
    report(found | {"machine": machine()}, options.json)


def fits(options: argparse.Namespace) -> dict:
    """Draw the same vectors with both, in turn."""
    import warnings

    import umap

    import lwap
    from lwap.projection.process import UmapProcess
    from lwap.projection.quality import quality

    warnings.filterwarnings("ignore", module="umap")  # a seed means one thread
    texts, source = sentences(options.points)
    bank = lwap.encode_layers(lwap.load(), texts, summaries=("mean",))
    unit = lwap.embed(bank, "mean")
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    process = UmapProcess()
    maps = {}

    def ours() -> None:
        maps["ours"] = lwap.project(unit, "umap", process=process).coordinates

    def peer() -> None:
        maps["peer"] = umap.UMAP(metric="cosine", random_state=0).fit_transform(unit)

    ours(), peer()  # compile
    seconds = alternate({"ours": ours, "peer": peer}, options.repeats)
    process.close()
    kept = {name: quality(unit, coordinates) for name, coordinates in maps.items()}
    return {
        "points": len(texts),
        "source": source,
        "seconds_ours": [round(value, 2) for value in seconds["ours"]],
        "seconds_peer": [round(value, 2) for value in seconds["peer"]],
        "ratio_umap": ratio(seconds["peer"], seconds["ours"]),
        "trustworthiness": {name: round(q.trustworthiness, 4) for name, q in kept.items()},
        "knn_recall": {name: round(q.knn_recall, 4) for name, q in kept.items()},
    }


def in_browser(count: int) -> dict:
    """Open the page on a file of so many sentences, wait for its maps, draw a lasso."""
    from playwright.sync_api import sync_playwright

    sys.path.insert(0, str(ROOT))
    from tests.browser.serving import find_browser, launch, serve

    executable = find_browser()
    if executable is None:
        sys.exit("No browser: install Chromium.")
    with tempfile.TemporaryDirectory() as folder, serve() as server, sync_playwright() as driver:
        file = Path(folder) / "sentences.csv"
        write_sentences(file, count)
        page = launch(driver, executable).new_page(viewport={"width": 1440, "height": 1400})
        sent, received = [], []
        page.on(
            "websocket",
            lambda socket: (
                socket.on("framesent", lambda data: sent.append(len(data))),
                socket.on("framereceived", lambda data: received.append(len(data))),
            ),
        )
        hour = 3_600_000
        page.goto(f"{server.url}/space?mouse=Lasso")
        page.locator(".st-key-space-map-a .js-plotly-plot .main-svg").first.wait_for(timeout=hour)
        page.get_by_text("Sentences: the example").click()
        page.get_by_role("radio", name="File").click()
        started = time.perf_counter()
        page.set_input_files(".st-key-space_upload input[type=file]", file)
        page.get_by_text(f"Sentences: sentences.csv, {count:,}").wait_for(timeout=hour)
        page.locator(".st-key-space-map-a .js-plotly-plot .main-svg").first.wait_for(timeout=hour)
        pca = time.perf_counter() - started
        page.get_by_text("UMAP, keeps").first.wait_for(timeout=hour)
        umap = time.perf_counter() - started
        page.wait_for_timeout(3000)
        lassos = []
        for size in (0.3, 0.6, 0.9):
            if lassos:
                page.locator(".st-key-space_clear button").click()
                page.get_by_text("sentences selected").wait_for(state="detached")
                page.wait_for_timeout(1500)
            lassos.append(draw_lasso(page, size, sent, received))
        memory = peaks(server.pid)
    return {
        "sentences": count,
        "seconds_to_pca": round(pca, 1),
        "seconds_to_umap": round(umap, 1),
        "lassos": lassos,
        "peak_megabytes_server": memory[0],
        "peak_megabytes_umap": memory[1:],
    }


def draw_lasso(page, size: float, sent: list[int], received: list[int]) -> dict:
    """Drag a lasso over a part of the first map; return seconds to the table, and bytes."""
    box = page.locator(".st-key-space-map-a .js-plotly-plot .nsewdrag").first.bounding_box()

    def at(x: float, y: float) -> tuple[float, float]:
        middle = (1 - size) / 2
        return (
            box["x"] + box["width"] * (middle + x * size),
            box["y"] + box["height"] * (middle + y * size),
        )

    page.mouse.move(*at(0, 0))
    page.mouse.down()
    for corner in ((1, 0), (1, 1), (0, 1), (0, 0.05)):
        page.mouse.move(*at(*corner), steps=8)
    sent.clear(), received.clear()
    started = time.perf_counter()
    page.mouse.up()
    line = page.get_by_text("sentences selected")
    line.wait_for(timeout=60_000)
    seconds = time.perf_counter() - started
    chosen = int(line.inner_text().split()[0].replace(",", ""))
    page.wait_for_timeout(3000)
    return {
        "selected": chosen,
        "seconds": round(seconds, 2),
        "bytes_sent": sum(sent),
        "bytes_received": sum(received),
    }


def write_sentences(file: Path, count: int) -> None:
    """Write so many different sentences; where the sets have fewer, two of them joined."""
    texts, _ = sentences(count)
    found, draw = dict.fromkeys(texts), random.Random(0)
    short = [text for text in texts if len(text) < 70]
    while len(found) < count:
        found[f"{draw.choice(short).rstrip('.')}, and {draw.choice(short)}"] = None
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["sentence"])
        writer.writerows([text] for text in found)


def peaks(pid: int) -> list[float]:
    """Return the peak resident memory of a process and of its children, in MB (Linux)."""
    found = []
    for each in [pid, *children(pid)]:
        status = Path(f"/proc/{each}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        if "VmHWM" in fields:
            found.append(round(int(fields["VmHWM"].split()[0]) / 1024, 1))
    return found


def children(pid: int) -> list[int]:
    """Return the processes that a process started (Linux)."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if int(fields["PPid"]) == pid:
            found.append(int(status.parent.name))
    return found


if __name__ == "__main__":
    main()
