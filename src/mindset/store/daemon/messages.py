"""Slots, shards, filters and history as messages and back.

Knows neither channel nor store. What comes in becomes our own plain data here, whose checks refuse what cannot be
meant; so nothing beyond this file handles unchecked text or numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, cast, get_args

from mindset.errors import FormatError, UsageError
from mindset.journal.journal import Entry, State
from mindset.store.daemon import memory_pb2 as pb
from mindset.store.edit import NewShard
from mindset.store.ledger import Source
from mindset.store.memory_dir import Damage
from mindset.store.scan import ShardCount, Where
from mindset.store.shard_info import ShardInfo
from mindset.store.slots import Change, Citation, NewSlot, SlotRecord
from mindset.store.store import WrongSlot

__all__ = [
    "change_message", "count_message", "damage_message", "entry_message", "new_shard_message", "new_slot_message",
    "read_change", "read_count", "read_damage", "read_entry", "read_new_shard", "read_new_slot", "read_record",
    "read_shard", "read_source", "read_where", "read_wrong", "record_message", "shard_message", "source_message",
    "where_message", "wrong_message",
]  # fmt: skip


# ---- slots -------------------------------------------------------------------------------------------------------


def record_message(record: SlotRecord) -> pb.Slot:
    """A slot that is there."""
    return pb.Slot(
        id=record.id, layer=record.layer, shard=record.shard, head=record.head, row=record.row,
        created=record.created, cites=_cites(record.cites), label=record.label, tags=record.tags,
        pinned=record.pinned, weight=record.weight,
    )  # fmt: skip


def read_record(message: pb.Slot) -> SlotRecord:
    """A slot that is there."""
    return SlotRecord(
        message.id, message.layer, message.shard, message.head, message.row, message.created,
        _read_cites(message), message.label, tuple(message.tags), message.pinned, message.weight,
    )  # fmt: skip


def new_slot_message(new: NewSlot) -> pb.Slot:
    """A slot to be put in."""
    return pb.Slot(
        head=new.head, created=new.created or "", cites=_cites(new.cites), label=new.label, tags=new.tags,
        pinned=new.pinned, weight=new.weight,
    )  # fmt: skip


def read_new_slot(message: pb.Slot, shard: ShardInfo | NewShard) -> NewSlot:
    """A slot to be put in a shard."""
    if not 0 <= message.head < shard.heads:
        raise UsageError(f"head {message.head}: layer {shard.layer} has {shard.heads}, from 0")
    return NewSlot(
        head=message.head, cites=_read_cites(message), label=message.label, tags=tuple(message.tags),
        pinned=message.pinned, weight=_finite(message.weight), created=message.created or None,
    )  # fmt: skip


def change_message(change: Change) -> pb.ChangeRequest:
    """New values of attributes, as a part of a request."""
    request = pb.ChangeRequest(
        label=change.label, pinned=change.pinned, weight=change.weight, cites=_cites(change.cites)
    )
    if change.tags is not None:
        request.tags.CopyFrom(pb.Tags(tags=change.tags))
    return request


def read_change(request: pb.ChangeRequest) -> Change:
    """New values of attributes."""
    change = Change(
        label=_given(request, "label"), tags=tuple(request.tags.tags) if request.HasField("tags") else None,
        pinned=_given(request, "pinned"), weight=_given(request, "weight"), cites=_read_cites(request),
    )  # fmt: skip
    if change.weight is not None:
        _finite(change.weight)
    if not change.given():
        raise UsageError("nothing to change: give label, tags, pinned, weight or cites")
    return change


def source_message(source: Source) -> pb.Source:
    """A text."""
    return pb.Source(id=source.id, name=source.name, text=source.text, created=source.created)


def read_source(message: pb.Source) -> Source:
    """A text."""
    return Source(message.id, message.name, message.text, message.created)


def where_message(where: Where) -> pb.Where:
    """A filter."""
    return pb.Where(**vars(where))


def read_where(message: pb.Where) -> Where:
    """A filter."""
    return Where(**{name: _given(message, name) for name in Where.__dataclass_fields__})


# ---- shards and their state --------------------------------------------------------------------------------------


def new_shard_message(new: NewShard) -> pb.Shard:
    """A shard to be made."""
    return pb.Shard(
        layer=new.layer, name=new.name, kind=new.kind, heads=new.heads, rule=new.rule, gated=new.gated,
        fields=_fields(new.fields), sealed=new.sealed, mounted=new.mounted,
    )  # fmt: skip


def read_new_shard(message: pb.Shard) -> NewShard:
    """A shard to be made."""
    if message.sealed:
        raise UsageError("sealed rows come with a model; a new shard has none")
    return NewShard(
        message.layer, message.name, message.kind, message.heads, message.rule, message.gated,
        _read_fields(message), mounted=message.mounted,
    )  # fmt: skip


def shard_message(info: ShardInfo) -> pb.Shard:
    """A shard that is there."""
    return pb.Shard(
        id=info.id, layer=info.layer, name=info.name, kind=info.kind, heads=info.heads, rule=info.rule,
        gated=info.gated, fields=_fields(info.fields), sealed=info.sealed, top=info.top, mounted=info.mounted,
    )  # fmt: skip


def read_shard(message: pb.Shard) -> ShardInfo:
    """A shard that is there."""
    return ShardInfo(
        message.id, message.layer, message.name, message.kind, message.heads, message.rule, message.gated,
        _read_fields(message), message.sealed, message.top, message.mounted,
    )  # fmt: skip


def count_message(count: ShardCount) -> pb.ShardCount:
    """A shard and how many slots live in it."""
    return pb.ShardCount(shard=shard_message(count.shard), slots=count.slots, pinned=count.pinned)


def read_count(message: pb.ShardCount) -> ShardCount:
    """A shard and how many slots live in it."""
    return ShardCount(read_shard(message.shard), message.slots, message.pinned)


def wrong_message(wrong: WrongSlot) -> pb.WrongSlot:
    """A damaged slot."""
    return pb.WrongSlot(id=wrong.id, layer=wrong.layer, shard=wrong.shard, row=wrong.row)


def read_wrong(message: pb.WrongSlot) -> WrongSlot:
    """A damaged slot."""
    return WrongSlot(message.id, message.layer, message.shard, message.row)


def damage_message(damage: Damage) -> pb.DamagedFile:
    """A damaged file."""
    rows = damage.rows
    if rows is None:
        return pb.DamagedFile(file=damage.file, message=damage.message)
    return pb.DamagedFile(file=damage.file, start=rows.start, stop=rows.stop, message=damage.message)


def read_damage(message: pb.DamagedFile) -> Damage:
    """A damaged file."""
    rows = range(message.start, message.stop) if message.HasField("start") else None
    return Damage(message.file, rows, message.message)


# ---- history -----------------------------------------------------------------------------------------------------


def entry_message(entry: Entry) -> pb.Entry:
    """A change in the history."""
    return pb.Entry(
        id=entry.id, kind=entry.kind, title=entry.title, when=entry.when, who=entry.who,
        payload=json.dumps(entry.payload), state=entry.state,
    )  # fmt: skip


def read_entry(message: pb.Entry) -> Entry:
    """A change in the history."""
    if message.state not in get_args(State):
        raise FormatError(f"the daemon told of a change with state {message.state!r}; is it of this release?")
    payload, state = json.loads(message.payload), cast(State, message.state)
    return Entry(message.id, message.kind, message.title, message.when, message.who, payload, state)


# ---- inside ------------------------------------------------------------------------------------------------------


def _cites(cites: Citation | None) -> pb.Citation | None:
    return None if cites is None else pb.Citation(source=cites.source, start=cites.start, stop=cites.stop)


def _read_cites(message: pb.Slot | pb.ChangeRequest) -> Citation | None:
    if not message.HasField("cites"):
        return None
    cites = message.cites
    return Citation(cites.source, _given(cites, "start"), _given(cites, "stop"))


def _given(message: Any, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None


def _finite(weight: float) -> float:
    if not math.isfinite(weight):
        raise UsageError(f"weight {weight}; give a finite number")
    return weight


def _fields(fields: Mapping[str, Mapping[str, Any]]) -> dict[str, pb.Field]:
    return {name: pb.Field(dtype=what["dtype"], d=what["d"]) for name, what in fields.items()}


def _read_fields(message: pb.Shard) -> dict[str, dict[str, Any]]:
    """In the order of their names, which a map on the wire does not keep and a shard's record does."""
    return {
        name: {"dtype": message.fields[name].dtype, "d": message.fields[name].d}
        for name in sorted(message.fields)
    }
