"""Slots by how they are used: the most read, the last read, the most influential, the newest, page by page.

Order comes from the mapped counters, records only for what is shown; so a page of a million slots costs no scan of
them, unless a filter leaves few. Reads only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import sqlalchemy as sa
from jaxtyping import Float64, Int64

from mindset.database.engine import reading
from mindset.errors import UsageError
from mindset.store.eviction import least
from mindset.store.ledger import CHUNK, record_columns, slot_record
from mindset.store.scan import ShardCount, Where, conditions
from mindset.store.schema import SLOTS
from mindset.store.slab_store import SlabStore
from mindset.store.slots import SlotRecord

__all__ = ["SORTS", "ShardUse", "Sort", "ranked", "shard_use"]

Sort = Literal["hits", "last", "influence", "created"]
SORTS = get_args(Sort)


@dataclass(frozen=True)
class ShardUse:
    """What was counted of a shard's living slots."""

    hits: int
    """Reads of all of them."""
    unread: int
    """Slots that were never read while reads were counted."""
    influence: float
    """What they added, in all."""


def shard_use(store: SlabStore, one: ShardCount) -> ShardUse:
    """Sums over the living slots of a shard."""
    counters = store.usage.of(one.shard.layer, one.shard.name)
    if counters.stamp is None:
        return ShardUse(0, one.slots, 0.0)
    counts = counters.read(one.shard.top)[store.ledger.live(one.shard.id).rows]
    hits = counts["hits"].astype(np.int64)
    return ShardUse(int(hits.sum()), int((hits == 0).sum()), float(counts["influence"].sum()))


def ranked(store: SlabStore, where: Where, by: str, *, limit: int = 20, after: int = 0) -> list[SlotRecord]:
    """The next `limit` slots after the slot `after` (0: from the top), the most first; ties by place."""
    if by not in SORTS or limit < 1:
        raise UsageError(f"sort by {by}, limit = {limit}; allowed: {', '.join(SORTS)}, and at least 1")
    if by == "created":
        return _newest(store, where, limit, after)
    places, worth = _places(store, where, cast(Sort, by))
    rest = _after(store, places, worth, after) if after else np.arange(len(worth))
    size = 2 * limit
    while True:
        first = least(-worth[rest], rest, size)
        first = first[np.lexsort((rest[first], -worth[rest[first]]))]
        found = _records(store, where, places[rest[first]])
        if len(found) >= limit or size >= len(rest):
            return found[:limit]
        size *= 8


def _places(
    store: SlabStore, where: Where, by: Sort
) -> tuple[Int64[np.ndarray, "n 2"], Float64[np.ndarray, " n"]]:
    """Shard and row of every row ever used, and what it is sorted by."""
    places, worth = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for info in store.shards():
        if where.layer in (None, info.layer) and where.shard in (None, info.name):
            rows = np.arange(info.top, dtype=np.int64)
            places.append(np.stack([np.full(info.top, info.id, np.int64), rows], axis=1))
            worth.append(store.usage.of(info.layer, info.name).read(info.top)[by].astype(np.float64))
    return np.concatenate(places), np.concatenate(worth)


def _after(
    store: SlabStore, places: Int64[np.ndarray, "n 2"], worth: Float64[np.ndarray, " n"], slot: int
) -> Int64[np.ndarray, " rest"]:
    """What comes after a slot."""
    (record,) = store.records([slot])
    here = (store.shard(record.layer, record.shard).id, record.row)
    at = int(np.flatnonzero((places == here).all(1))[0])
    return np.flatnonzero((worth < worth[at]) | ((worth == worth[at]) & (np.arange(len(worth)) > at)))


def _records(store: SlabStore, where: Where, places: Int64[np.ndarray, "n 2"]) -> list[SlotRecord]:
    """Those of the living slots in these places that `where` asks for, in that order."""
    found: dict[tuple[int, int], SlotRecord] = {}
    with reading(store.ledger.engine) as connection:
        wanted = record_columns().where(*conditions(connection, where))
        for shard in np.unique(places[:, 0]).tolist():
            rows = places[places[:, 0] == shard, 1].tolist()
            for start in range(0, len(rows), CHUNK):
                here = sa.and_(SLOTS.c.shard == shard, SLOTS.c.row.in_(rows[start : start + CHUNK]))
                some = connection.execute(wanted.where(here)).mappings()
                found |= {(row["shard"], row["row"]): slot_record(row) for row in some}
    return [found[place] for place in map(tuple, places.tolist()) if place in found]


def _newest(store: SlabStore, where: Where, limit: int, after: int) -> list[SlotRecord]:
    order = (SLOTS.c.created.desc(), SLOTS.c.slot.desc())
    with reading(store.ledger.engine) as connection:
        query = record_columns().where(*conditions(connection, where)).order_by(*order).limit(limit)
        if after:
            here = sa.and_(SLOTS.c.slot == after, SLOTS.c.alive == 1)
            created = sa.select(SLOTS.c.created).where(here).scalar_subquery()
            same = sa.and_(SLOTS.c.created == created, SLOTS.c.slot < after)
            query = query.where(sa.or_(SLOTS.c.created < created, same))
        return [slot_record(row) for row in connection.execute(query).mappings()]
