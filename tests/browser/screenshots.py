"""Take the documentation's pictures anew: `make screenshots`.

assets/screenshots/NAME-{light,dark}.png show what stands above the fold at 1440 × 900.
tests/browser/output/ gets, for looking at only, each page in full and as on a phone.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from playwright.sync_api import Page, sync_playwright

from tests.browser.serving import (
    ADDRESSES,
    BROWSERS,
    OUTPUT,
    PAGE_SECONDS,
    ROOT,
    find_browser,
    launch,
    serve,
    wait_until_drawn,
)

PICTURES = ROOT / "assets" / "screenshots"
VIEWS = ADDRESSES | {
    "space-changed": "/space?model=all-MiniLM-L6-v2&space_model=lwap-minilm-paper"
    "&space_view=What+changed",
    "finetune-run": "/finetune?run=example",
}
WIDE, PHONE = (1440, 900), (400, 800)
TALL = {"space-changed": (1440, 1500), "finetune-run": (1440, 1500)}  # shown below the fold
# A run that is there to be looked at: a minute of training on the example.
TRAIN = (
    "train --triplets assets/triplets.csv --dev assets/pairs.csv --preset minute --epochs 10 "
    "--eval-steps 4 --name example"
)
MAX_BYTES = 400_000


def main() -> int:
    """Write all pictures; return the exit status."""
    executable = find_browser()
    if executable is None:
        print(f"No browser: install one of {', '.join(BROWSERS)}.", file=sys.stderr)
        return 1
    for folder in (PICTURES, OUTPUT):
        folder.mkdir(parents=True, exist_ok=True)
    too_big = []
    with own_runs(), serve() as server, sync_playwright() as playwright:
        browser = launch(playwright, executable)
        for theme in ("light", "dark"):
            for name, address in VIEWS.items():
                for suffix, size in (("", TALL.get(name, WIDE)), ("-narrow", PHONE)):
                    context = browser.new_context(
                        viewport={"width": size[0], "height": size[1]},
                        device_scale_factor=1,
                        color_scheme=theme,
                        locale="en-GB",
                    )
                    page = context.new_page()
                    page.goto(f"{server.url}{address}")
                    if name == "evaluate":  # drawn when the sample's thread is done
                        page.locator(".st-key-strategy-grid .main-svg").first.wait_for()
                    if name.startswith("space"):  # drawn by PCA until UMAP is there
                        kept = page.locator(".st-key-space-map-b").get_by_text("UMAP, keeps")
                        kept.wait_for(timeout=PAGE_SECONDS * 1000)
                    wait_until_drawn(page)
                    if not suffix:
                        file = PICTURES / f"{name}-{theme}.png"
                        page.screenshot(path=file)
                        print(file.relative_to(ROOT), file.stat().st_size, "bytes")
                        too_big += [file.name] if file.stat().st_size > MAX_BYTES else []
                    show_whole(page)
                    file = OUTPUT / f"{name}-{theme}{suffix}.png"
                    page.screenshot(path=file)
                    print(file.relative_to(ROOT))
                    context.close()
        browser.close()
    if too_big:
        print(f"Above {MAX_BYTES:,} bytes: {', '.join(too_big)}", file=sys.stderr)
    return 1 if too_big else 0


@contextlib.contextmanager
def own_runs() -> Iterator[None]:
    """Have one finished run and no others, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="lwap-runs-") as folder:
        os.environ["LWAP_RUNS"] = folder
        subprocess.run([sys.executable, "-m", "lwap", *TRAIN.split()], cwd=ROOT, check=True)
        yield


def show_whole(page: Page) -> None:
    """Make the window as high as the page, which scrolls inside of it."""
    height = page.get_by_test_id("stMain").evaluate("main => main.scrollHeight")
    page.set_viewport_size({"width": page.viewport_size["width"], "height": height})
    page.wait_for_timeout(500)
    wait_until_drawn(page)


if __name__ == "__main__":
    sys.exit(main())
