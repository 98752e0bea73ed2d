"""A small memory folder of a model, for counting in by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mindset.store import BankRecord, MemoryDir, Rows, ShardRecord
from mindset.store.counters import Reads
from mindset.store.memory import Memory

FIELDS = {"key": 4, "modulator": 4, "value": 3}
SLOTS, HEADS = 12, 2


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def make_model(folder: Path, rule: str = "family") -> Path:
    """Layer 0: a gated mirror of 12 slots; layer 1: two heads of 5 slots, softmax; layer 2: associative."""
    gated = {field: Rows(drawn(SLOTS, d, seed=d), "float32") for field, d in FIELDS.items()}
    heads = {field: Rows(drawn(HEADS, 5, 4, seed=7), "float32") for field in ("key", "value")}
    heads["key_bias"] = Rows(drawn(HEADS, 5, seed=8), "float32")
    banks = [
        BankRecord(0, "mirror", 1, (ShardRecord("base", rule, True, SLOTS, gated),)),
        BankRecord(1, "featural", HEADS, (ShardRecord("base", "softmax", False, 5, heads),)),
        BankRecord(2, "associative", HEADS, (ShardRecord("base", "softmax", False, 5, heads),)),
    ]
    MemoryDir.write(folder / "memory", banks)
    return folder


def read(
    memory: Memory, ids: list[int], step: int, decay: float = 0.01, influence: list[float] | None = None
) -> None:
    """Count one read of each of these slots at a step."""
    for info in memory.store.shards():
        places = {
            r.id: r.row for r in memory.store.records(ids) if (r.layer, r.shard) == (info.layer, info.name)
        }
        some = [
            (places[i], 1.0 if influence is None else influence[n]) for n, i in enumerate(ids) if i in places
        ]
        rows, amounts = np.array([row for row, _ in some], np.int64), np.array([a for _, a in some], float)
        memory.store.usage.of(info.layer, info.name).add(Reads.of(rows, amounts, step, decay), step, decay)
