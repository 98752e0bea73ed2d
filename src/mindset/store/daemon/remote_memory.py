"""A memory that a daemon keeps, with its history: what `store.memory.Memory` is for a folder beside us.

Every change becomes an entry of the daemon's journal, in the order in which its callers made them. Keeps no history of
its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from mindset.errors import MissingError
from mindset.journal.journal import Entry
from mindset.store.daemon import memory_pb2 as pb
from mindset.store.daemon import messages
from mindset.store.daemon.remote_store import TIMEOUT_SECONDS, RemoteStore
from mindset.store.difference import Changed, Difference
from mindset.store.edit import NewShard
from mindset.store.portable import read_export
from mindset.store.slots import Change, Ids, NewSlot
from mindset.store.store import Arrays

__all__ = ["RemoteMemory"]


class RemoteMemory:
    """A memory at a URL; close it, or use it as a context."""

    def __init__(
        self, url: str, *, read_only: bool = False, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        self.read_only = read_only
        self.store = RemoteStore(url, read_only=read_only, timeout_seconds=timeout_seconds)

    @property
    def place(self) -> str:
        """Its URL."""
        return self.store.place

    def last_change(self) -> Entry:
        """The last change made through here."""
        if self.store.last is None:
            raise MissingError(f"{self.place}: nothing was changed through here yet")
        return self.store.last

    def close(self) -> None:
        """Let go of the connection."""
        self.store.close()

    def __enter__(self) -> RemoteMemory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- changes ------------------------------------------------------------------------------------------------

    def add_shard(self, new: NewShard, *, who: str | None = None) -> None:
        """Make an empty shard."""
        self.store.add_shard(new, who=who)

    def insert(
        self, layer: int, shard: str, new: Sequence[NewSlot], arrays: Arrays, *, who: str | None = None
    ) -> Int64[np.ndarray, " n"]:
        """Put new slots in; returns their ids."""
        return self.store.insert(layer, shard, new, arrays, who=who)[1]

    def take_in(self, folder: Path, *, who: str | None = None) -> Int64[np.ndarray, " n"]:
        """Put in the slots of an export; returns their ids."""
        incoming = read_export(self.store, folder)
        return self.store.take_in(incoming, origin=Path(folder).name, who=who)[1]

    def update(self, ids: Ids, arrays: Arrays, *, who: str | None = None) -> None:
        """Give slots other vectors."""
        self.store.update(ids, arrays, who=who)

    def change(self, ids: Ids, change: Change, *, who: str | None = None) -> None:
        """Give slots other attributes."""
        self.store.change(ids, change, who=who)

    def delete(self, ids: Ids, *, who: str | None = None) -> None:
        """Take slots out."""
        self.store.delete(ids, who=who)

    # ---- history ------------------------------------------------------------------------------------------------

    def undo(self, count: int = 1) -> list[Entry]:
        """Take back the last changes, whoever made them."""
        return self._turned("Undo", pb.TurnsRequest(count=count))

    def redo(self, count: int = 1) -> list[Entry]:
        """Make them again."""
        return self._turned("Redo", pb.TurnsRequest(count=count))

    def restore(self, snapshot: str) -> list[Entry]:
        """Go back, or forward, to a snapshot."""
        return self._turned("Restore", pb.SnapshotRequest(name=snapshot))

    def history(self) -> list[Entry]:
        """Every change, oldest first; the undone ones last."""
        parts = self.store.calls.parts("History", pb.Nothing())
        return [messages.read_entry(entry) for part in parts for entry in part.entries]

    def snapshots(self) -> dict[str, int]:
        """By name: how many changes hold at a snapshot."""
        told = self.store.calls.ask("Snapshots", pb.Nothing()).snapshots
        return {place.name: int(place.changes) for place in told}

    def snapshot(self, name: str) -> None:
        """Name the place where the history stands."""
        self.store.ask_change("Snapshot", pb.SnapshotRequest(name=name))

    def unsnapshot(self, name: str) -> None:
        """Let go of a snapshot's name."""
        self.store.ask_change("Unsnapshot", pb.SnapshotRequest(name=name))

    def diff(self, before: str | None = None, after: str | None = None) -> Difference:
        """What differs between two snapshots; None: before all changes, and now."""
        found = Difference([], [], [])
        for part in self.store.calls.parts("Diff", pb.DiffRequest(before=before, after=after)):
            found.put_in.extend(map(messages.read_record, part.put_in))
            found.taken_out.extend(map(messages.read_record, part.taken_out))
            found.changed.extend(
                Changed(messages.read_record(one.before), messages.read_record(one.after))
                for one in part.changed
            )
        return found

    def _turned(self, name: str, request: object) -> list[Entry]:
        parts = self.store.change_parts(name, request)
        return [messages.read_entry(entry) for part in parts for entry in part.entries]
