"""Which slots of a memory become one, and what that changes: a plan, which `Memory.merge` carries out as one edit.

Slots of one shard and head are merged that are near (`blend.distances`), or that kept coming back in the same top-k
with about the same influence while reads were counted (`pairs`). Left alone are pinned slots, suppressed ones, those of
associative banks (which fill their own rows), radius slots (facts are told apart, not blended) and, unless their shard
is named, overlays. The merged slot cites a source that names the slots it was made of and quotes what they cited; its
tags are theirs together, its counters their sums.

What a merge costs is an estimate: how far members were moved times the influence that was counted of them, as a share
of their layer's. Where nothing was counted, lengths of keys and values stand for influence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from mindset.errors import UsageError
from mindset.store.blend import Members, blend, decoded, distances, encoded
from mindset.store.ledger import LiveRows
from mindset.store.merged_record import merged_records
from mindset.store.pairs import Pairs
from mindset.store.shard_info import ShardInfo
from mindset.store.slab_store import SlabStore
from mindset.store.slots import Ids, SlotRecord
from mindset.store.store import Replacement
from mindset.store.tally import PAIR_STRIDE

__all__ = ["MergeSettings", "MergedGroup", "Merging", "plan_merging"]

_KNOWN = {"key", "key_bias", "modulator", "modulator_bias", "value"}
_BLOCK = 1024
"""Slots that are compared with all others at a time."""


@dataclass(frozen=True)
class MergeSettings:
    """What is to be merged."""

    within: float = 0.02
    """Largest distance (1 - cosine) of a slot from the one it goes into."""
    co_read: bool = False
    """Merge what keeps coming back together instead of what is near."""
    often: float = 0.5
    """With `co_read`: in what share of the reads of the slot that is read less often, at least."""
    most: int | None = None
    """Merged slots at most, those of the least change first; None: all."""
    layer: int | None = None
    """Only slots of this layer."""
    shard: str | None = None
    """Only slots of this shard; None: those of the model itself, no overlays."""
    head: int | None = None
    """Only slots of this head."""

    def __post_init__(self) -> None:
        if not 0 <= self.within <= 1 or not 0 < self.often <= 1:
            raise UsageError(f"within = {self.within}, often = {self.often}; give shares from 0 to 1")
        if self.most is not None and self.most < 1:
            raise UsageError(f"most = {self.most}; give at least 1")


@dataclass(frozen=True)
class MergedGroup:
    """Slots that become one."""

    layer: int
    shard: str
    head: int
    ids: tuple[int, ...]
    """The most used first."""
    change: float
    """Estimated: what changes of what they add, as a share of the layer's influence."""


@dataclass(frozen=True, eq=False)
class Merging:
    """A plan."""

    groups: list[MergedGroup]
    """The least change first."""
    change: dict[int, float]
    """By layer: the estimates' sum."""
    counted: bool
    """Whether estimates go by counted influence."""
    replacements: list[Replacement]
    """What the store is to do."""


@dataclass(frozen=True, eq=False)
class _Shard:
    """Slots of one shard that may be merged, and groups of them by place."""

    info: ShardInfo
    live: LiveRows
    members: Members
    influence: Float64[np.ndarray, " n"]
    total: float
    """Influence of the layer."""
    groups: list[list[int]]
    changes: list[float]


def plan_merging(store: SlabStore, settings: MergeSettings) -> Merging:
    """Find what is to be merged, and what it would change."""
    counted = store.usage.stamp is not None
    if settings.co_read and not counted:
        raise UsageError("nothing was counted: count reads first, with `mindset generate --count`")
    shards = [one for info in _shards(store, settings) for one in _grouped(store, info, settings, counted)]
    every = sorted((change, at, n) for at, one in enumerate(shards) for n, change in enumerate(one.changes))
    kept: dict[int, list[int]] = {}
    groups = []
    for change, at, n in every[: settings.most]:
        kept.setdefault(at, []).append(n)
        one, places = shards[at], shards[at].groups[n]
        ids = tuple(int(one.live.ids[place]) for place in places)
        head = int(one.live.heads[places[0]])
        groups.append(MergedGroup(one.info.layer, one.info.name, head, ids, change))
    layers: dict[int, float] = {}
    for group in groups:
        layers[group.layer] = layers.get(group.layer, 0.0) + group.change
    made = [
        _replacement(store, shards[at], [shards[at].groups[n] for n in some]) for at, some in kept.items()
    ]
    return Merging(groups, layers, counted, made)


# ---- who goes together -------------------------------------------------------------------------------------------


def _shards(store: SlabStore, settings: MergeSettings) -> Iterator[ShardInfo]:
    for info in store.shards():
        named = info.name == settings.shard if settings.shard is not None else not info.is_overlay
        if not named or not info.mounted or settings.layer not in (None, info.layer):
            continue
        if info.kind == "associative" or info.rule == "radius" or info.fields.keys() - _KNOWN:
            if settings.shard is not None or settings.layer is not None:
                raise UsageError(
                    f"slots of layer {info.layer}, {info.name} ({info.kind}, {info.rule}) do not merge"
                )
            continue
        yield info


def _grouped(store: SlabStore, info: ShardInfo, settings: MergeSettings, counted: bool) -> Iterator[_Shard]:
    live = _mergeable(store, info)
    members, influence = _members(store, info, live, counted)
    total = max(float(influence.sum()), 1e-300)
    for head in range(info.heads) if settings.head is None else [settings.head]:
        here = np.flatnonzero(live.heads == head)
        order = here[np.argsort(-members.use[here], kind="stable")]
        if len(order) < 2:
            continue
        pairs = (
            _co_read(store, info, live, order, settings)
            if settings.co_read
            else _near(members, order, settings)
        )
        if not (groups := _led(order, pairs)):
            continue
        which = np.array([place for group in groups for place in group])
        number = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        moved = blend(members.some(which), number).error * influence[which]
        yield _Shard(
            info, live, members, influence, total, groups, (np.bincount(number, moved) / total).tolist()
        )


def _mergeable(store: SlabStore, info: ShardInfo) -> LiveRows:
    live, pinned = store.ledger.live(info.id), store.ledger.pinned(info.id)
    some = (live.weights != 0) & ~np.isin(live.ids, pinned)
    return LiveRows(live.ids[some], live.rows[some], live.heads[some], live.crcs[some], live.weights[some])


def _members(
    store: SlabStore, info: ShardInfo, live: LiveRows, counted: bool
) -> tuple[Members, Float64[np.ndarray, " n"]]:
    fields = {
        name: decoded(store.vectors.get(info, name, live.rows), what["dtype"])
        for name, what in info.fields.items()
    }
    use = store.usage.of(info.layer, info.name).read(info.top)["influence"][live.rows]
    members = Members(info.rule, fields, live.weights, use)
    if counted:
        return members, use
    lengths = np.linalg.norm(members.keys, axis=1) * np.linalg.norm(fields["value"], axis=1)
    return members, lengths * np.abs(live.weights)


def _near(
    members: Members, order: Int64[np.ndarray, " n"], settings: MergeSettings
) -> Iterator[tuple[int, Int64[np.ndarray, " near"]]]:
    """For each place in `order` the later ones that are near it."""
    some = members.some(order)
    keys, modulators = some.keys, some.modulators
    for start in range(0, len(order), _BLOCK):
        stop = start + _BLOCK
        part = None if modulators is None else modulators[start:stop]
        rest = None if modulators is None else modulators[start:]
        near = distances(members.rule, keys[start:stop], keys[start:], part, rest) <= settings.within + 1e-12
        near = np.triu(near, 1)
        for row in np.flatnonzero(near.any(1)):
            yield start + int(row), start + np.flatnonzero(near[row])


def _co_read(
    store: SlabStore,
    info: ShardInfo,
    live: LiveRows,
    order: Int64[np.ndarray, " n"],
    settings: MergeSettings,
) -> Iterator[tuple[int, Int64[np.ndarray, " near"]]]:
    """For each place in `order` the later ones that came back with it."""
    found = Pairs.load(store.usage.pairs_file(info.layer, info.name))
    ids = live.ids[order]
    hits = store.usage.of(info.layer, info.name).read(info.top)["hits"][live.rows[order]].astype(np.int64)
    by_id = np.argsort(ids)
    places = by_id[np.searchsorted(ids[by_id], found.pairs).clip(max=len(ids) - 1)]
    both = (ids[places] == found.pairs).all(1)
    least = hits[places].min(1)
    often = both & (found.counts * PAIR_STRIDE >= settings.often * least) & (least > 0)
    low, high = places[often].min(1), places[often].max(1)
    for first in np.unique(low):
        yield int(first), np.sort(high[low == first])


def _led(
    order: Int64[np.ndarray, " n"], near: Iterator[tuple[int, Int64[np.ndarray, " near"]]]
) -> list[list[int]]:
    """Groups around the most used: each takes what is near it and not yet taken."""
    taken: set[int] = set()
    groups = []
    for leader, others in near:
        if leader in taken:
            continue
        free = [other for other in others.tolist() if other not in taken]
        if free:
            taken.update([leader, *free])
            groups.append([int(order[place]) for place in (leader, *free)])
    return groups


# ---- what becomes of them ----------------------------------------------------------------------------------------


def _replacement(store: SlabStore, one: _Shard, groups: Sequence[list[int]]) -> Replacement:
    which = np.array([place for group in groups for place in group])
    number = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    merged = blend(one.members.some(which), number).fields
    arrays = {name: encoded(rows, one.info.fields[name]["dtype"]) for name, rows in merged.items()}
    ids: Ids = one.live.ids[which]
    records = store.records(ids)
    grouped: list[list[SlotRecord]] = [[] for _ in groups]
    for record, at in zip(records, number.tolist(), strict=True):
        grouped[at].append(record)
    new, sources = merged_records(store.ledger, grouped)
    return Replacement(one.info, one.live.ids[which], one.live.rows[which], number, new, sources, arrays)
