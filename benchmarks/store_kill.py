"""Bar 10: writers killed at random moments, during insert, edit, delete, forgetting and reindexing, on both stores."""

from __future__ import annotations

import sys
from dataclasses import asdict

from benchmarks.rows import ROOT, Bench, Measured
from benchmarks.timing import missing, scratch

__all__ = ["kill_rows"]


def kill_rows(bench: Bench) -> None:
    """A row for each store; the writer and what it is judged by are those of the test suite."""
    if missing("faiss"):
        return
    sys.path.insert(0, str(ROOT / "tests"))
    from store.killed_store import kill_again_and_again
    from store.test_slab_store import make_memory

    kills = 3 if bench.quick else 120
    for kind in ("slab", "sqlite"):

        def measure(kind: str = kind) -> Measured:
            with scratch() as folder:
                tally = kill_again_and_again(kind, make_memory(folder / "memory"), kills, bench.seed)
            told = asdict(tally) | {"living": len(tally.living)}
            return Measured(tally.lost + tally.back + tally.mismatches + tally.repairs, extra=told)

        bench.row(f"10: {kills} kills -9, {kind}", measure, unit="slots lost, back, damaged, or repairs",
                  settings={"kills": kills, "store": kind}, bar="<= 0")  # fmt: skip
