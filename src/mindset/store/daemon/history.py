"""What a daemon tells of its memory's history, and how it goes back and forth there.

All of it runs in the thread that changes the memory: a history that is being written to is not read. Knows neither
sockets nor how parts travel.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from mindset.errors import MissingError, UsageError
from mindset.journal.journal import Entry
from mindset.store.daemon import memory_pb2 as pb
from mindset.store.daemon import messages
from mindset.store.daemon.protocol import pages
from mindset.store.memory import Memory

__all__ = ["History", "edit_of"]


class History:
    """The history of an open memory."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def history(self, _: pb.Nothing) -> Iterator[pb.Entries]:
        return _entries(self.memory.history())

    def snapshots(self, _: pb.Nothing) -> pb.SnapshotsReply:
        places = self.memory.snapshots().items()
        return pb.SnapshotsReply(
            snapshots=[pb.SnapshotPlace(name=name, changes=changes) for name, changes in places]
        )

    def diff(self, request: pb.DiffRequest) -> Iterator[pb.DiffReply]:
        before = request.before if request.HasField("before") else None
        found = self.memory.diff(before, request.after if request.HasField("after") else None)
        changed = (
            pb.Changed(before=messages.record_message(one.before), after=messages.record_message(one.after))
            for one in found.changed
        )
        parts = (
            pages(map(messages.record_message, found.put_in)),
            pages(map(messages.record_message, found.taken_out)),
            pages(changed),
        )
        for put_in, taken_out, some in zip_longest(*parts, fillvalue=()):
            yield pb.DiffReply(put_in=put_in, taken_out=taken_out, changed=some)

    def turn(self, request: pb.TurnRequest) -> pb.Nothing:
        """As undo and redo, of an edit that the caller names: it must be the next one."""
        history = self.memory.journal
        waiting = history.undone[:1] if request.holds else history.done[-1:]
        if not waiting or self._edit_of(waiting[0]) != request.edit:
            self._find(request.edit)
            verb = "undone last" if request.holds else "made last"
            raise UsageError(f"edit {request.edit} was not {verb}; turn what stands before it first")
        (self.memory.redo if request.holds else self.memory.undo)(1)
        return pb.Nothing()

    def forget(self, request: pb.ForgetRequest) -> pb.Nothing:
        """An edit cannot be undone any more, nor those before it."""
        done = [self._edit_of(entry) for entry in self.memory.journal.done]
        if request.edit in done:
            self.memory.journal.forget(len(done) - 1 - done.index(request.edit))
        elif any(self._edit_of(entry) == request.edit for entry in self.memory.journal.undone):
            raise UsageError(f"edit {request.edit} is undone; it is let go of by the next change")
        return pb.Nothing()

    def undo(self, request: pb.TurnsRequest) -> Iterator[pb.Entries]:
        return _entries(self.memory.undo(request.count))

    def redo(self, request: pb.TurnsRequest) -> Iterator[pb.Entries]:
        return _entries(self.memory.redo(request.count))

    def restore(self, request: pb.SnapshotRequest) -> Iterator[pb.Entries]:
        return _entries(self.memory.restore(request.name))

    def snapshot(self, request: pb.SnapshotRequest) -> pb.Nothing:
        self.memory.snapshot(request.name)
        return pb.Nothing()

    def unsnapshot(self, request: pb.SnapshotRequest) -> pb.Nothing:
        self.memory.unsnapshot(request.name)
        return pb.Nothing()

    def _edit_of(self, entry: Entry) -> int:
        return edit_of(self.memory, entry)

    def _find(self, edit: int) -> None:
        if edit < 1 or all(self._edit_of(entry) != edit for entry in self.memory.history()):
            raise MissingError(f"there is no edit {edit}")


def edit_of(memory: Memory, entry: Entry) -> int:
    """Which edit of the store an entry is; 0: none of the memory as it was saved last."""
    ours = entry.payload.get("generation") == memory.store.memory.generation
    return int(entry.payload.get("edit", 0)) if ours else 0


def _entries(entries: list[Entry]) -> Iterator[pb.Entries]:
    return (pb.Entries(entries=some) for some in pages(map(messages.entry_message, entries)))
