"""Which slot a model computes with in each place of its banks, and in which row that slot lies now.

A model is loaded once and reads for hours; meanwhile slots move, die and come. So reads are counted by place, places
are known by id, and ids are looked up anew when an edit was made since. A memory that nobody edited has no records
yet: its ids are counted as they will be (`slot_names`). Opens for reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from mindset.store.layout import lay_out
from mindset.store.memory_dir import MemoryDir
from mindset.store.slab_store import SlabStore

__all__ = ["Places", "Positions"]


@dataclass(frozen=True, eq=False)
class Places:
    """The places of one shard."""

    ids: Int64[np.ndarray, "n_heads capacity"]
    """Slot in each place; 0: none."""
    rows: Int64[np.ndarray, "n_heads capacity"]
    """Row of its vectors; -1: none."""


@dataclass(frozen=True, eq=False)
class Positions:
    """All places of a memory folder in one state of it."""

    generation: int
    """Of the folder: another one is another model."""
    change: int
    """Of the records; 0: there are none."""
    shards: dict[tuple[int, str], Places]
    """By layer and name."""

    @classmethod
    def of(cls, folder: Path) -> Positions:
        """The places as a model that is loaded now has them."""
        memory = MemoryDir.open(folder)
        if not _records(memory).exists():
            return cls(memory.generation, 0, _as_saved(memory))
        with SlabStore(folder, read_only=True) as store:
            change, found = store.ledger.generation(), {}
            for info in store.shards():
                layout = lay_out(info, store.ledger.live(info.id))
                found[info.layer, info.name] = Places(layout.ids, layout.rows)
            return cls(store.memory.generation, change, found)

    def is_current(self, folder: Path) -> bool:
        """Whether no edit was made since."""
        memory = MemoryDir.open(folder)
        if memory.generation != self.generation or not _records(memory).exists():
            return memory.generation == self.generation and self.change == 0
        with SlabStore(folder, read_only=True) as store:
            return store.ledger.generation() == self.change

    def rows_in(self, now: Positions, layer: int, shard: str) -> Int64[np.ndarray, "n_heads capacity"]:
        """In which row each place's slot lies in a later state; -1: it is dead."""
        here, there = self.shards[layer, shard], now.shards.get((layer, shard))
        rows = np.full(here.ids.shape, -1, np.int64)
        if there is None:
            return rows
        living = there.rows.ravel()[there.ids.ravel() > 0]
        ids = there.ids.ravel()[there.ids.ravel() > 0]
        order = np.argsort(ids)
        at = np.searchsorted(ids[order], here.ids).clip(max=max(len(ids) - 1, 0))
        if len(ids):
            known = (ids[order][at] == here.ids) & (here.ids > 0)
            rows[known] = living[order][at][known]
        return rows


def _records(memory: MemoryDir) -> Path:
    return memory.folder / f"slots.g{memory.generation}.sqlite"


def _as_saved(memory: MemoryDir) -> dict[tuple[int, str], Places]:
    found, first = {}, 1
    for bank in memory.banks():
        for shard in bank.shards:
            rows = np.arange(bank.heads * shard.n_slots, dtype=np.int64).reshape(bank.heads, shard.n_slots)
            found[bank.layer, shard.name] = Places(rows + first, rows)
            first += rows.size
    return found
