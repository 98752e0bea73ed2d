"""Requests that may be larger than a message, as parts that the daemon puts together.

Made before they are sent as far as they can fail: an array that is no table of rows, a text too long for a message.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mindset.errors import UsageError
from mindset.store.daemon import memory_pb2 as pb
from mindset.store.daemon import messages
from mindset.store.daemon.arrays import pack, row_bytes
from mindset.store.daemon.protocol import MESSAGE_BYTES, cut, pages
from mindset.store.edit import NewShard
from mindset.store.slots import Change, Ids, NewSlot
from mindset.store.store import Arrays, Incoming, IncomingSlots

__all__ = ["change", "fetch", "insert", "named", "take_in", "update"]


def named(ids: Ids, who: str = "") -> Iterator[pb.IdsRequest]:
    """Slots by their ids."""
    for some in _ids(ids):
        yield pb.IdsRequest(ids=some, who=who)


def fetch(ids: Ids, fields: Sequence[str]) -> Iterator[pb.FetchRequest]:
    """Vectors of slots."""
    yield pb.FetchRequest(fields=fields)
    for some in _ids(ids):
        yield pb.FetchRequest(ids=some)


def insert(
    layer: int, shard: str, new: Sequence[NewSlot], arrays: Arrays, who: str
) -> Iterator[pb.InsertRequest]:
    """New slots of one shard."""
    slots, rows = _slots(new), _tables(arrays)

    def parts() -> Iterator[pb.InsertRequest]:
        yield pb.InsertRequest(shard=pb.ShardName(layer=layer, name=shard), who=who)
        for some in pages(slots):
            yield pb.InsertRequest(slots=some)
        for part in _parts(rows):
            yield pb.InsertRequest(arrays=part)

    return parts()


def take_in(incoming: Incoming, origin: str, who: str) -> Iterator[pb.TakeInRequest]:
    """New slots of several shards, with the texts that they cite."""
    texts = [pb.Source(name=name, text=text) for name, text in incoming.sources]
    _check_sizes(texts)
    ready = [(part, _slots(part.new), _tables(part.arrays)) for part in incoming.parts]

    def parts() -> Iterator[pb.TakeInRequest]:
        yield pb.TakeInRequest(title=origin, who=who)
        for gone in _ids(incoming.replaced):
            yield pb.TakeInRequest(replaced=gone)
        for some in pages(texts):
            yield pb.TakeInRequest(sources=some)
        for part, slots, rows in ready:
            yield from (pb.TakeInRequest(parts=[taken]) for taken in _taken(part, slots, rows))

    return parts()


def update(ids: Ids, arrays: Arrays, who: str) -> Iterator[pb.UpdateRequest]:
    """Other vectors of slots."""
    rows = _tables(arrays)

    def parts() -> Iterator[pb.UpdateRequest]:
        yield pb.UpdateRequest(who=who)
        for some in _ids(ids):
            yield pb.UpdateRequest(ids=some)
        for part in _parts(rows):
            yield pb.UpdateRequest(arrays=part)

    return parts()


def change(ids: Ids, change: Change, who: str) -> Iterator[pb.ChangeRequest]:
    """Other attributes of slots."""
    head = messages.change_message(change)
    head.who = who
    _check_sizes([head])

    def parts() -> Iterator[pb.ChangeRequest]:
        yield head
        for some in _ids(ids):
            yield pb.ChangeRequest(ids=some)

    return parts()


def _taken(part: IncomingSlots, slots: list[pb.Slot], rows: Arrays) -> Iterator[pb.Taken]:
    """Each has its slots and their rows: on the wire a shard may come in several parts."""
    each = row_bytes(rows) + max((slot.ByteSize() for slot in slots), default=0)
    count = max([len(slots), *(len(array) for array in rows.values())])
    for some in cut(count, each):
        taken = pb.Taken(slots=slots[some], arrays=pack(rows, some))
        if isinstance(part.shard, NewShard):
            taken.new_shard.CopyFrom(messages.new_shard_message(part.shard))
        else:
            taken.shard.CopyFrom(pb.ShardName(layer=part.shard.layer, name=part.shard.name))
        yield taken


def _ids(ids: Ids) -> Iterator[list[int]]:
    for some in cut(len(ids), 10):
        yield [int(i) for i in ids[some]]


def _parts(arrays: Arrays) -> Iterator[list[pb.Array]]:
    count = max((len(array) for array in arrays.values()), default=0)
    for some in cut(count, row_bytes(arrays)):
        yield pack(arrays, some)


def _slots(new: Sequence[NewSlot]) -> list[pb.Slot]:
    slots = [messages.new_slot_message(one) for one in new]
    _check_sizes(slots)
    return slots


def _tables(arrays: Arrays) -> Arrays:
    for field, array in arrays.items():
        if array.ndim != 2 or array.shape[1] * array.itemsize > MESSAGE_BYTES // 2:
            raise UsageError(f"{field}: an array of shape {list(array.shape)}; give [slots, d]")
    return {field: np.asarray(array) for field, array in arrays.items()}


def _check_sizes(made: Sequence[pb.Slot | pb.Source | pb.ChangeRequest]) -> None:
    for one in made:
        if one.ByteSize() > MESSAGE_BYTES // 2:
            raise UsageError(
                f"a text of {one.ByteSize() >> 20} MiB; a daemon takes {MESSAGE_BYTES >> 21} MiB"
            )
