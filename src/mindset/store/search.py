"""The nearest slots of one shard by inner product: over the store's own maps, exactly, or through a faster searcher.

A `ShardSearch` is a shard as it was when it was opened or last refreshed: where its keys lie, which rows live and whose
they are. Searching asks the database nothing, so that a reader's loop costs what the products cost; `refresh` sees
whether something was changed since. A searcher is a function over arrays: `exact` is the one in numpy; torch and faiss
are handed in from above, and are compared with it.

Knows neither torch nor what a score means. Invariant: whatever searcher is used, only living slots come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

from mindset.errors import UsageError
from mindset.store.shard_info import ShardInfo
from mindset.store.store import Store

__all__ = ["Found", "Searcher", "ShardSearch", "exact", "float_rows", "propose", "top_columns"]

_CHUNK_BYTES = 16 << 20


@runtime_checkable
class Searcher(Protocol):
    """The `k` rows of highest inner product, best first, and their scores; rows that do not live are never named.

    `keys` are rows as they are stored (bfloat16 as uint16 bits), `alive` None means that all of them live.
    """

    def __call__(
        self,
        keys: Shaped[np.ndarray, "n d"],
        queries: Float[np.ndarray, "q d"],
        k: int,
        alive: Bool[np.ndarray, " n"] | None,
    ) -> tuple[Int64[np.ndarray, "q k"], Float[np.ndarray, "q k"]]: ...


@dataclass(frozen=True, eq=False)
class Found:
    """What was proposed for each query, best first."""

    ids: Int64[np.ndarray, "q k"]
    scores: Float[np.ndarray, "q k"]


def exact(
    keys: Shaped[np.ndarray, "n d"],
    queries: Float[np.ndarray, "q d"],
    k: int,
    alive: Bool[np.ndarray, " n"] | None,
) -> tuple[Int64[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
    """All products, in chunks of rows that fit a cache."""
    asked = queries.astype(np.float32)
    best, scores = _none(len(asked))
    step = max(k, _CHUNK_BYTES // max(1, keys.shape[1] * 4))
    for start in range(0, len(keys), step):
        product = asked @ float_rows(keys[start : start + step]).T
        if alive is not None:
            product[:, ~alive[start : start + step]] = -np.inf
        rows, found = top_columns(product, k)
        best, scores = _merge((best, scores), (rows + start, found), k)
    return best, scores


def float_rows(rows: Shaped[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Stored rows as float32, without a copy where they are that."""
    if rows.dtype == np.uint16:  # bfloat16 is the upper half of a float32
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return rows.astype(np.float32, copy=False)


class ShardSearch:
    """One shard of a store, to be searched many times."""

    def __init__(self, store: Store, layer: int, shard: str, searcher: Searcher = exact) -> None:
        self.store, self.searcher = store, searcher
        self.info: ShardInfo = store.shard(layer, shard)
        if "scale" in self.info.fields:
            raise UsageError(
                f"{shard!r} of layer {layer} keeps its keys as scaled bytes, which are not searched"
            )
        self.generation = -1
        """Of the ledger, when it was looked at last."""
        self.parts: list[Shaped[np.ndarray, "n d"]] = []
        """All rows of the keys, living or not."""
        self.alive: list[Bool[np.ndarray, " n"] | None] = []
        """For each part which rows live; None: all."""
        self.slot_of_row: Int64[np.ndarray, " top"] = np.zeros(0, np.int64)
        """0: none."""
        self.crc_of_row: Int64[np.ndarray, " top"] = np.zeros(0, np.int64)
        self.count = 0
        """Living slots."""
        self.refresh()

    def refresh(self) -> bool:
        """See what was changed since; returns whether anything was."""
        now = self.store.ledger.generation()
        if now == self.generation:
            return False
        self.info = self.store.shard(self.info.layer, self.info.name)
        live = self.store.ledger.live(self.info.id)
        self.slot_of_row = np.zeros(self.info.top, np.int64)
        self.slot_of_row[live.rows] = live.ids
        self.crc_of_row = np.zeros(self.info.top, np.int64)
        self.crc_of_row[live.rows] = live.crcs
        self.parts, start, self.alive = self.store.vectors.parts(self.info, "key"), 0, []
        for part in self.parts:
            living = self.slot_of_row[start : start + len(part)] > 0
            self.alive.append(None if living.all() else living)
            start += len(part)
        self.count, self.generation = len(live.ids), now
        return True

    def search(self, queries: Float[np.ndarray, "q d"], k: int) -> Found:
        """The `k` living slots (all, if they are fewer) whose keys have the highest product with each query."""
        rows, scores = self.search_rows(queries, k)
        return Found(self.slot_of_row[rows], scores)

    def search_rows(
        self, queries: Float[np.ndarray, "q d"], k: int
    ) -> tuple[Int64[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
        """The same by row."""
        if k < 1 or queries.shape[1] != self.info.fields["key"]["d"]:
            raise UsageError(
                f"k = {k} for queries of {queries.shape[1]} numbers; give at least 1, and queries of "
                f"{self.info.fields['key']['d']}"
            )
        k = min(k, self.count)
        if len(self.parts) == 1:
            return self.searcher(self.parts[0], queries, k, self.alive[0])
        best, start = _none(len(queries)), 0
        for part, alive in zip(self.parts, self.alive, strict=True):
            living = len(part) if alive is None else int(alive.sum())
            rows, scores = self.searcher(part, queries, min(k, living), alive)
            best, start = _merge(best, (rows + start, scores), k), start + len(part)
        return best


def propose(
    store: Store,
    layer: int,
    shard: str,
    queries: Float[np.ndarray, "q d"],
    candidates: int,
    searcher: Searcher = exact,
) -> Found:
    """Name candidates once; who asks again and again keeps a `ShardSearch`."""
    return ShardSearch(store, layer, shard, searcher).search(queries, candidates)


_Best = tuple[Int64[np.ndarray, "q _"], Float[np.ndarray, "q _"]]


def _none(count: int) -> _Best:
    return np.zeros((count, 0), np.int64), np.zeros((count, 0), np.float32)


def top_columns(scores: Float[np.ndarray, "q n"], k: int) -> _Best:
    """The best columns of each row, in order."""
    k = min(k, scores.shape[1])
    if k < scores.shape[1]:
        some = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k :]
    else:
        some = np.broadcast_to(np.arange(k), scores.shape)
    found = np.take_along_axis(scores, some, 1)
    order = np.argsort(-found, axis=1, kind="stable")
    return np.take_along_axis(some, order, 1).astype(np.int64), np.take_along_axis(found, order, 1)


def _merge(one: _Best, other: _Best, k: int) -> _Best:
    if not one[0].shape[1]:
        return other[0][:, :k], other[1][:, :k]
    scores = np.concatenate([one[1], other[1]], axis=1)
    order, found = top_columns(scores, k)
    return np.take_along_axis(np.concatenate([one[0], other[0]], axis=1), order, 1), found
