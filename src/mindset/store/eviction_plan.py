"""Which slots of a memory go: a policy over the mapped counters, quotas or a budget, and who is spared.

A plan changes nothing; `Memory.evict` carries it out as one edit, which `undo` takes back with the same bits. Pinned
slots and young ones are spared, those of associative banks never touched, and overlays (a body of facts comes and goes
as a whole) only where their shard is named. Slots that came with the model go too: they die, and stand as zeros in the
arrays that a model computes with. So bytes are those of living slots, which is what a quota or a budget is about; the
sealed files stay as long as an undo may want them.

Invariant: a policy that goes by reads refuses a bank whose counters tell nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import sqlalchemy as sa
from jaxtyping import Bool, Float64, Int64

from mindset.database.engine import reading
from mindset.errors import UsageError
from mindset.store import s3fifo
from mindset.store.counters import COUNTS
from mindset.store.eviction import POLICIES, PolicyName, least, worth_of
from mindset.store.s3fifo import MainQueue
from mindset.store.scan import counts
from mindset.store.schema import SLOTS
from mindset.store.shard_info import ShardInfo
from mindset.store.slab import STORAGE
from mindset.store.slab_store import SlabStore

__all__ = ["Eviction", "EvictionSettings", "HeadEviction", "plan_eviction"]

_BY_READS = {"lrfu": "log_crf", "lru": "last", "lfu": "hits", "influence": "influence"}


@dataclass(frozen=True)
class EvictionSettings:
    """What is to go; one of `keep`, `remove` and `budget` is given."""

    policy: PolicyName = "lrfu"
    """Who goes first (`eviction`)."""
    keep: int | None = None
    """Slots that each head of each bank keeps."""
    remove: int | None = None
    """Slots that each head of each bank loses."""
    budget: int | None = None
    """Bytes that the vectors of all living slots may have; by S3-FIFO every head loses the same share."""
    young_steps: int = 0
    """Slots put in within so many counted tokens are spared."""
    young_since: str | None = None
    """Slots created after this time (ISO 8601, UTC) are spared."""
    layer: int | None = None
    """Only slots of this layer."""
    shard: str | None = None
    """Only slots of this shard; None: those of the model itself, no overlays."""
    head: int | None = None
    """Only slots of this head."""
    seed: int = 0
    """Of the policy `random`."""

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise UsageError(f"'{self.policy}' is no eviction policy; allowed: {', '.join(POLICIES)}")
        given = [one for one in (self.keep, self.remove, self.budget) if one is not None]
        if len(given) != 1 or given[0] < 0:
            raise UsageError("say how much is to go: one of keep, remove (slots a head) and budget (bytes)")


@dataclass(frozen=True)
class HeadEviction:
    """What goes of one head of a bank."""

    layer: int
    head: int
    living: int
    """Slots in it now."""
    spared: int
    """Pinned and young ones of them."""
    evicted: int
    """Slots that go."""
    influence_share: float | None
    """Their share of the influence that was counted in this head; None: none was."""


@dataclass(frozen=True, eq=False)
class Eviction:
    """A plan."""

    policy: PolicyName
    ids: Int64[np.ndarray, " n"]
    """Slots that go, the least worth first."""
    counts: np.ndarray
    """Their counters."""
    heads: list[HeadEviction]
    bytes_before: int
    """Of the vectors of all living slots."""
    bytes_after: int
    queues: dict[tuple[int, int], MainQueue]
    """By layer and head: what S3-FIFO is to remember."""


@dataclass(frozen=True, eq=False)
class _Head:
    """The living slots of one head of a bank, all its shards together."""

    layer: int
    head: int
    ids: Int64[np.ndarray, " n"]
    counts: np.ndarray
    sizes: Int64[np.ndarray, " n"]
    """Bytes of each."""
    spared: Bool[np.ndarray, " n"]

    def part(self, some: Bool[np.ndarray, " n"]) -> _Head:
        return replace(
            self,
            ids=self.ids[some],
            counts=self.counts[some],
            sizes=self.sizes[some],
            spared=self.spared[some],
        )


def plan_eviction(store: SlabStore, settings: EvictionSettings) -> Eviction:
    """Choose who goes."""
    heads = _heads(store, settings)
    rng = np.random.default_rng(settings.seed)
    before = _living_bytes(store)
    queues: dict[tuple[int, int], MainQueue] = {}
    if settings.budget is not None and settings.policy != "s3fifo":
        chosen = _over_budget(heads, settings, before - settings.budget, rng)
    else:
        quotas = _quotas(heads, settings, before)
        chosen = [
            _of_head(store, head, settings.policy, quota, rng, queues)
            for head, quota in zip(heads, quotas, strict=True)
        ]
    ids = [head.ids[gone] for head, gone in zip(heads, chosen, strict=True)]
    counts = [head.counts[gone] for head, gone in zip(heads, chosen, strict=True)]
    freed = sum(int(head.sizes[gone].sum()) for head, gone in zip(heads, chosen, strict=True))
    return Eviction(
        settings.policy,
        np.concatenate([np.empty(0, np.int64), *ids]),
        np.concatenate([np.empty(0, COUNTS), *counts]),
        [_told(head, gone) for head, gone in zip(heads, chosen, strict=True)],
        before,
        before - freed,
        queues,
    )


# ---- who there is ------------------------------------------------------------------------------------------------


def _heads(store: SlabStore, settings: EvictionSettings) -> list[_Head]:
    stamp = store.usage.stamp
    step = 0 if stamp is None else stamp[0]
    parts: dict[tuple[int, int], list[_Head]] = {}
    for info in store.shards():
        named = info.name == settings.shard if settings.shard is not None else not info.is_overlay
        if (
            not named
            or not info.mounted
            or info.kind == "associative"
            or settings.layer not in (None, info.layer)
        ):
            continue
        for part in _of_shard(store, info, settings, step):
            parts.setdefault((part.layer, part.head), []).append(part)
    return [_joined(some) for _, some in sorted(parts.items())]


def _of_shard(store: SlabStore, info: ShardInfo, settings: EvictionSettings, step: int) -> list[_Head]:
    young = SLOTS.c.created > (settings.young_since or "9999")
    columns = (SLOTS.c.slot, SLOTS.c.row, SLOTS.c.head, SLOTS.c.pinned, sa.case((young, 1), else_=0))
    query = sa.select(*columns).where(SLOTS.c.shard == info.id, SLOTS.c.alive == 1)
    with reading(store.ledger.engine) as connection:
        found = np.array([tuple(row) for row in connection.execute(query)], np.int64).reshape(-1, 5)
    ids, rows, heads, pinned, late = found.T
    counts = store.usage.of(info.layer, info.name).read(info.top)[rows]
    is_late = (late > 0) | (step - counts["born"].astype(np.int64) < settings.young_steps)
    spared = (pinned > 0) | (is_late & (rows >= info.sealed))
    sizes = np.full(len(ids), slot_bytes(info), np.int64)
    wanted = range(info.heads) if settings.head is None else [settings.head]
    whole = _Head(info.layer, 0, ids, counts, sizes, spared)
    return [replace(whole.part(heads == head), head=head) for head in wanted if head < info.heads]


def _joined(parts: list[_Head]) -> _Head:
    first = parts[0]
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("ids", "counts", "sizes", "spared")
    }
    return _Head(first.layer, first.head, **joined)


def slot_bytes(info: ShardInfo) -> int:
    """Bytes of one slot's vectors."""
    return sum(int(what["d"]) * STORAGE[what["dtype"]].itemsize for what in info.fields.values())


def _living_bytes(store: SlabStore) -> int:
    return sum(one.slots * slot_bytes(one.shard) for one in counts(store.ledger) if one.shard.mounted)


# ---- who goes ----------------------------------------------------------------------------------------------------


def _quotas(heads: list[_Head], settings: EvictionSettings, total: int) -> list[int]:
    """How many each head loses, as far as it has any that are not spared."""
    if settings.remove is not None:
        wanted = [settings.remove for _ in heads]
    elif settings.keep is not None:
        wanted = [len(head.ids) - settings.keep for head in heads]
    else:
        share = 1 - min(1.0, cast(int, settings.budget) / max(total, 1))
        wanted = [int(np.ceil(share * len(head.ids))) for head in heads]
    return [min(max(0, count), int((~head.spared).sum())) for count, head in zip(wanted, heads, strict=True)]


def _of_head(
    store: SlabStore,
    head: _Head,
    policy: PolicyName,
    count: int,
    rng: np.random.Generator,
    queues: dict[tuple[int, int], MainQueue],
) -> Int64[np.ndarray, " count"]:
    """Places in `head` of who goes, the least worth first."""
    if count == 0:
        return np.empty(0, np.int64)
    _refuse_telling_nothing([head], policy)
    free = np.flatnonzero(~head.spared)
    ids = head.ids[free]
    if policy == "s3fifo":
        queue = MainQueue.load(store.usage.queue_file(head.layer, head.head))
        hits = head.counts["hits"][free].astype(np.int64)
        gone, after = s3fifo.evict(queue, ids, hits, count, len(head.ids))
        queues[head.layer, head.head] = after
        order = np.argsort(ids)
        return free[order[np.searchsorted(ids[order], gone)]]
    worth = worth_of(policy, head.counts[free], rng)
    gone = least(worth, ids, count)
    order = np.lexsort((ids[gone], worth[gone]))
    return np.asarray(free[gone[order]])


def _over_budget(
    heads: list[_Head], settings: EvictionSettings, excess: int, rng: np.random.Generator
) -> list[Int64[np.ndarray, " gone"]]:
    """One order over all heads, for as many bytes as are too many; influence as a share of its head's."""
    if excess <= 0 or not heads:
        return [np.empty(0, np.int64) for _ in heads]
    _refuse_telling_nothing(heads, settings.policy)
    worths = [_comparable(settings.policy, head, rng) for head in heads]
    which = np.repeat(np.arange(len(heads)), [len(head.ids) for head in heads])
    place = np.concatenate([np.arange(len(head.ids)) for head in heads])
    joined, worth = _joined(heads), np.concatenate(worths)
    free = np.flatnonzero(~joined.spared)
    free = free[np.lexsort((joined.ids[free], worth[free]))]
    freed = np.cumsum(joined.sizes[free])
    gone = free[: int(np.searchsorted(freed, excess)) + 1]
    return [place[gone[which[gone] == number]] for number in range(len(heads))]


def _comparable(policy: PolicyName, head: _Head, rng: np.random.Generator) -> Float64[np.ndarray, " n"]:
    worth = worth_of(policy, head.counts, rng)
    total = max(float(worth.sum()), 1e-300) if policy == "influence" else 1.0
    return np.asarray(worth / total)


def _refuse_telling_nothing(heads: list[_Head], policy: PolicyName) -> None:
    column = _BY_READS.get(policy)
    for head in heads if column or policy == "s3fifo" else ():
        if not head.counts["hits"].any():
            raise UsageError(
                f"nothing was counted in layer {head.layer}, head {head.head}, so {policy} has nothing to go by: count "
                "reads with `mindset generate --count` or `mindset eval --count`, or let fifo or random choose"
            )
    worth = np.concatenate([head.counts[column] for head in heads]) if column else np.empty(0)
    if len(worth) > 1 and worth.min() == worth.max():
        raise UsageError(
            f"every slot of layer {heads[0].layer} was read alike, as with k = all, and {policy} cannot tell them "
            "apart; --policy influence may"
        )


def _told(head: _Head, gone: Int64[np.ndarray, " gone"]) -> HeadEviction:
    influence = head.counts["influence"]
    total = float(influence.sum())
    share = float(influence[gone].sum()) / total if total > 0 else None
    return HeadEviction(head.layer, head.head, len(head.ids), int(head.spared.sum()), len(gone), share)
