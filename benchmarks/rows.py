"""The contract of all benchmarks: rows that are measured once, appended as they finish and skipped by a rerun.

A row is keyed by its benchmark, name, seed and settings. It stands in `docs/results/NAME.jsonl` beside its bar and
baseline; `--quick` rows are another file's, under `runs/`, since they prove that the command works and claim nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mindset.probe.texts import find_shared

__all__ = ["ROOT", "Bench", "Measured", "open_bench"]

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Measured:
    """What a row's function returns."""

    figure: float
    """The number that the bar is about."""
    baseline: float | None = None
    """The same number of the thing compared with."""
    interval: tuple[float, float] | None = None
    """95 % of a paired bootstrap over windows."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Other figures of the same measurement."""


@dataclass
class Bench:
    """One benchmark's rows."""

    name: str
    """Name of the module under `benchmarks`."""
    quick: bool
    """Whether rows are cut to end within five minutes."""
    seed: int
    """Seed of a single run."""
    only: str
    """Measure rows whose name contains this; empty: all."""
    path: Path
    """Where rows are appended."""
    device: str = "cpu"
    """Where models compute, in those benchmarks that ask."""

    @property
    def where(self) -> dict[str, str]:
        """What a row's settings say of the device: nothing of a CPU."""
        if self.device == "cpu":
            return {}
        import torch

        return {"device": torch.cuda.get_device_name(self.device)}

    def rows(self) -> list[dict[str, Any]]:
        """What has been measured so far."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines() if line]

    def row(
        self,
        name: str,
        measure: Callable[[], Measured],
        *,
        unit: str,
        settings: dict[str, Any],
        seed: int | None = None,
        bar: str | None = None,
    ) -> None:
        """Measure one row and append it, unless it is there or was not asked for.

        `bar` is `<= 0.03`, `>= 1.2` or `0.115 to 0.125`, or None where a figure is shown whatever it is.
        """
        seed = self.seed if seed is None else seed
        key = (name, seed, json.dumps(settings, sort_keys=True))
        if self.only not in name or any(_key(row) == key for row in self.rows()):
            return
        began = time.monotonic()
        measured = measure()
        row = {
            "name": name,
            "figure": measured.figure,
            "unit": unit,
            "baseline": measured.baseline,
            "bar": bar,
        }
        row |= {"holds": _holds(measured.figure, bar), "seed": seed, "interval": measured.interval}
        row |= {
            "settings": settings,
            "commit": _commit(),
            "minutes": round((time.monotonic() - began) / 60, 2),
        }
        row["extra"] = measured.extra
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(_line(row), flush=True)


def _key(row: dict[str, Any]) -> tuple[str, int, str]:
    return row["name"], row["seed"], json.dumps(row["settings"], sort_keys=True)


def _holds(figure: float, bar: str | None) -> bool | None:
    if bar is None:
        return None
    if " to " in bar:
        low, high = map(float, bar.split(" to "))
        return low <= figure <= high
    sign, value = bar.split()
    return figure <= float(value) if sign == "<=" else figure >= float(value)


def _line(row: dict[str, Any]) -> str:
    bar = "" if row["bar"] is None else f"  bar {row['bar']}: {'holds' if row['holds'] else 'MISSED'}"
    base = "" if row["baseline"] is None else f"  (baseline {row['baseline']:.4f})"
    return f"{row['name']}  seed {row['seed']}: {row['figure']:.4f} {row['unit']}{base}{bar}  [{row['minutes']} min]"


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def settings_of(value: Any) -> dict[str, Any]:
    """A dataclass of settings as plain data."""
    return json.loads(json.dumps(asdict(value)))


def shared_data() -> Path | None:
    """The folder of real material, from `MINDSET_SHARED` or beside the checkout."""
    return find_shared(ROOT.parent / "shared")


def open_bench(name: str, *, devices: bool = False) -> Bench:
    """Read the command line of a benchmark; `devices`: whether it can compute on a GPU."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument(
        "--quick", action="store_true", help="cut to five minutes; proves the command, claims nothing"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0: torch's own choice")
    if devices:
        parser.add_argument("--device", default="cpu", help="cpu or cuda; rows of a GPU say so")
    given = parser.parse_args()
    if given.threads:
        import torch

        torch.set_num_threads(given.threads)
    folder = ROOT / ("runs/quick" if given.quick else "docs/results")
    path = folder / f"{name}.jsonl"
    return Bench(name, given.quick, given.seed, given.only, path, given.device if devices else "cpu")
