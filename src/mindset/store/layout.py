"""Which slot stands where in the arrays that a model computes with.

Per head: the sealed rows in their order, those of dead slots empty, then the living grown rows. So a memory without
edits is its sealed slabs, uncopied and bit for bit, and is so again when every edit is undone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from mindset.store.ledger import LiveRows
from mindset.store.shard_info import ShardInfo
from mindset.store.store import Vectors

__all__ = ["Layout", "lay_out"]


@dataclass(frozen=True, eq=False)
class Layout:
    """The places of one shard."""

    shard: ShardInfo
    ids: Int64[np.ndarray, "n_heads capacity"]
    """Slot in each place; 0: none."""
    rows: Int64[np.ndarray, "n_heads capacity"]
    """Row of its vectors; -1: none."""
    weights: Float64[np.ndarray, "n_heads capacity"]
    """What multiplies its value."""

    @property
    def capacity(self) -> int:
        """Places in each head."""
        return int(self.ids.shape[1])

    @property
    def untouched(self) -> bool:
        """Whether this is the sealed slab as it is."""
        return self.rows.size == self.shard.sealed and bool(
            (self.rows >= 0).all() and (self.weights == 1).all()
        )

    def array(self, vectors: Vectors, field: str) -> Shaped[np.ndarray, "n_heads capacity d"]:
        """A copy of one field; zeros where there is no slot."""
        there = self.rows >= 0
        rows = vectors.get(self.shard, field, self.rows[there])
        out = np.zeros((*self.rows.shape, rows.shape[1]), rows.dtype)
        out[there] = rows
        return out


def lay_out(shard: ShardInfo, live: LiveRows) -> Layout:
    """Give every living slot its place."""
    per_head = shard.sealed // shard.heads
    grown = [live.rows[(live.heads == head) & (live.rows >= shard.sealed)] for head in range(shard.heads)]
    capacity = per_head + max((len(rows) for rows in grown), default=0)
    rows = np.full((shard.heads, capacity), -1, np.int64)
    for head, more in enumerate(grown):
        rows[head, per_head : per_head + len(more)] = more
    sealed = live.rows[live.rows < shard.sealed]
    if per_head:
        rows[sealed // per_head, sealed % per_head] = sealed
    ids, weights = np.zeros(rows.shape, np.int64), np.ones(rows.shape)
    there = rows >= 0
    which = np.searchsorted(live.rows, rows[there])  # the living are in the order of their rows
    ids[there], weights[there] = live.ids[which], live.weights[which]
    return Layout(shard, ids, rows, weights)
