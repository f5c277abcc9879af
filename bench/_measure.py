"""What the benchmarks share: alternating repeats, medians, peak memory, the machine in words."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def alternate(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Run every side in turn, `repeats` times; return the seconds of each run by side."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(peer: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """Return peer : ours (above 1, ours is faster): median, minimum and maximum over repeats."""
    ratios = [theirs / mine for theirs, mine in zip(peer, ours, strict=True)]
    return {
        "median": round(statistics.median(ratios), 3),
        "min": round(min(ratios), 3),
        "max": round(max(ratios), 3),
    }


def own_peak_megabytes() -> float:
    """Return this process' peak resident memory so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would start at the size of the parent
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return round(int(fields["VmHWM"].split()[0]) / 1024, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024**2 if sys.platform == "darwin" else 1024), 1)


def peak_megabytes(script: str, *arguments: str) -> float:
    """Return the peak resident memory of one side, run in a process of its own, in MB.

    The script prints `own_peak_megabytes()` last.
    """
    done = subprocess.run(
        [sys.executable, script, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return float(done.stdout.split()[-1])


def machine() -> dict[str, Any]:
    """Return processor, cores and versions: what a figure must be read with."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return {
        "cpu": capabilities.get("cpu_name") or platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "native_bf16": bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def report(figures: dict[str, Any], as_json: bool) -> None:
    """Print the figures, and last, with --json, one JSON object."""
    for name, value in figures.items():
        print(f"{name:<24} {value}")
    if as_json:
        print(json.dumps(figures))
