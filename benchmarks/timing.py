"""Two things timed in turn, so that what else the machine does falls on both."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mindset.store import BankRecord, MemoryDir, Rows, ShardRecord
from mindset.store.slab_store import SlabStore

__all__ = ["clusters", "in_turn", "missing", "one_shard", "scratch", "seconds"]


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turn(one: Callable[[], object], other: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median seconds of each, after one call of each that is not counted."""
    one(), other()
    taken = [(seconds(one), seconds(other)) for _ in range(repeats)]
    return statistics.median(t for t, _ in taken), statistics.median(t for _, t in taken)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that goes."""
    with tempfile.TemporaryDirectory(prefix="mindset-bench-") as folder:
        yield Path(folder)


def missing(module: str) -> bool:
    """Say that rows are skipped for want of a library."""
    try:
        __import__(module)
    except ImportError:
        print(f"skipped: rows that need {module}, which is not installed", flush=True)
        return True
    return False


def clusters(n: int, d: int, seed: int, *, normalised: bool = True, share: int = 1000) -> np.ndarray:
    """A mixture of 1,000 Gaussians of within-cluster sigma 1 around unit centres; `seed` draws the points alone."""
    centres = np.random.default_rng(7).standard_normal((share, d)).astype(np.float32)
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(share, size=n)] + rng.standard_normal((n, d), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) if normalised else rows


def one_shard(folder: Path, keys: np.ndarray, values: np.ndarray | None = None) -> SlabStore:
    """A memory with one plain shard of these keys."""
    rows = {"key": keys, "value": np.ones((len(keys), 1), np.float32) if values is None else values}
    fields = {name: Rows(array, array.dtype.name) for name, array in rows.items()}
    shard = ShardRecord("base", "radius", False, len(keys), fields)
    MemoryDir.write(folder, [BankRecord(0, "mirror", 1, (shard,))])
    return SlabStore(folder)
