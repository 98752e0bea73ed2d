"""The row on `mindset --help`: its time as a multiple of an empty Python's, and that no torch comes with it."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.rows import Bench, Measured

__all__ = ["startup_rows"]

PAIRS = 20


def startup_rows(bench: Bench) -> None:
    """Whole processes, alternating."""

    def measure() -> Measured:
        ratios = []
        for _ in range(PAIRS + 1):
            empty = _seconds([sys.executable, "-c", "pass"])
            ratios.append(_seconds([sys.executable, "-m", "mindset", "--help"]) / empty)
        probe = "import sys, mindset, mindset.__main__; print('torch' in sys.modules)"
        loaded = subprocess.run(
            [sys.executable, "-c", probe], capture_output=True, text=True, check=True
        ).stdout
        counted = ratios[1:]
        extra = {"torch_loaded": loaded.strip() == "True"}
        return Measured(statistics.median(counted), 1.0, (min(counted), max(counted)), extra)

    bench.row("mindset --help", measure, unit="x python -c pass", settings={"pairs": PAIRS}, bar="<= 3.0")


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - began
