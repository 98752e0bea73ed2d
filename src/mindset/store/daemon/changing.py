"""What a daemon changes in its memory: one method a call, each one entry of the history, as if it were made beside it.

Runs in one thread, so one change is made after another. Knows neither sockets nor how parts travel. Invariant: what is
refused left nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterable

from mindset.errors import UsageError
from mindset.store.daemon import memory_pb2 as pb
from mindset.store.daemon import messages
from mindset.store.daemon.arrays import join
from mindset.store.daemon.history import edit_of
from mindset.store.edit import NewShard
from mindset.store.memory import Memory
from mindset.store.shard_info import ShardInfo
from mindset.store.slots import NewSlot
from mindset.store.store import Incoming, IncomingSlots

__all__ = ["Changing"]


class Changing:
    """Changes of an open memory."""

    def __init__(self, memory: Memory) -> None:
        self.memory, self.store = memory, memory.store

    def add_shard(self, request: pb.AddShardRequest) -> pb.Edited:
        self.memory.add_shard(messages.read_new_shard(request.shard), who=_who(request.who))
        return self._edited()

    def insert(self, request: pb.InsertRequest) -> pb.Edited:
        info = self.store.shard(request.shard.layer, request.shard.name)
        new = self._cited([messages.read_new_slot(slot, info) for slot in request.slots])
        ids = self.memory.insert(info.layer, info.name, new, join(request.arrays), who=_who(request.who))
        return self._edited(ids.tolist())

    def take_in(self, request: pb.TakeInRequest) -> pb.Edited:
        sources = [(source.name, source.text) for source in request.sources]
        parts = [self._incoming(part, len(sources)) for part in request.parts]
        incoming = Incoming(sources, parts, tuple(request.replaced))
        ids = self.memory.put_in(incoming, request.title or "a client", who=_who(request.who))
        return self._edited(ids.tolist())

    def update(self, request: pb.UpdateRequest) -> pb.Edited:
        self.memory.update(list(request.ids), join(request.arrays), who=_who(request.who))
        return self._edited()

    def change(self, request: pb.ChangeRequest) -> pb.Edited:
        change = messages.read_change(request)
        if change.cites is not None:
            self.store.source(change.cites.source)
        self.memory.change(list(request.ids), change, who=_who(request.who))
        return self._edited()

    def delete(self, request: pb.IdsRequest) -> pb.Edited:
        self.memory.delete(list(request.ids), who=_who(request.who))
        return self._edited()

    # ---- inside -------------------------------------------------------------------------------------------------

    def _edited(self, ids: Iterable[int] = ()) -> pb.Edited:
        entry = self.memory.last_change()
        return pb.Edited(edit=edit_of(self.memory, entry), ids=ids, entry=messages.entry_message(entry))

    def _incoming(self, part: pb.Taken, sources: int) -> IncomingSlots:
        info: ShardInfo | NewShard
        if part.HasField("new_shard"):
            info = messages.read_new_shard(part.new_shard)
        else:
            info = self.store.shard(part.shard.layer, part.shard.name)
        new = [messages.read_new_slot(slot, info) for slot in part.slots]
        for one in new:
            if one.cites is not None and not 0 <= one.cites.source < sources:
                raise UsageError(f"a slot cites text {one.cites.source}; {sources} came with it, from 0")
        return IncomingSlots(info, new, join(part.arrays))

    def _cited(self, new: list[NewSlot]) -> list[NewSlot]:
        """The same, if all that they cite is there."""
        for number in {one.cites.source for one in new if one.cites is not None}:
            self.store.source(number)
        return new


def _who(who: str) -> str | None:
    return who or None
