"""A memory that a daemon keeps, as a store: the same methods, vectors and errors as a folder's or a database's.

A change is an entry of the daemon's history; so `turn` and `forget` keep to its order, and `forget` lets go of what
came before the edit too. Keeps nothing of the memory in this process. Invariant: every call ends within its timeout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from mindset.errors import MissingError, ReadOnlyError
from mindset.journal.journal import Entry
from mindset.store.daemon import memory_pb2 as pb
from mindset.store.daemon import messages, requests
from mindset.store.daemon.arrays import join
from mindset.store.daemon.calls import Calls
from mindset.store.daemon.check import require
from mindset.store.edit import NewShard
from mindset.store.ledger import LiveRows, Source
from mindset.store.memory_dir import Damage
from mindset.store.scan import ShardCount, Where
from mindset.store.shard_info import ShardInfo
from mindset.store.slots import Change, Ids, NewSlot, SlotRecord
from mindset.store.store import Arrays, Incoming, WrongSlot

__all__ = ["RemoteStore"]

TIMEOUT_SECONDS = 60.0
VERIFY_SECONDS = 3600.0
"""Reading every byte takes as long as the disk does."""


class RemoteStore:
    """An open channel to the daemon of a memory."""

    def __init__(
        self, url: str, *, read_only: bool = False, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        """Connect to `unix:PATH` or `grpc://HOST:PORT`; one that does not fit this release is refused."""
        self.calls = Calls(url, timeout_seconds)
        self.place, self.read_only = self.calls.url, read_only
        self.last: Entry | None = None
        """The entry of the last change made here."""
        try:
            require(self.calls)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection."""
        self.calls.close()

    def __enter__(self) -> RemoteStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- changing -----------------------------------------------------------------------------------------------

    def add_shard(self, new: NewShard, *, who: str | None = None) -> int:
        """Make an empty shard."""
        request = pb.AddShardRequest(shard=messages.new_shard_message(new), who=who or "")
        return int(self._edit("AddShard", request).edit)

    def insert(
        self, layer: int, shard: str, new: Sequence[NewSlot], arrays: Arrays, *, who: str | None = None
    ) -> tuple[int, Int64[np.ndarray, " n"]]:
        """New slots; returns the edit and their ids."""
        return _with_ids(self._edit("Insert", requests.insert(layer, shard, new, arrays, who or "")))

    def take_in(
        self, incoming: Incoming, *, origin: str = "", who: str | None = None
    ) -> tuple[int, Int64[np.ndarray, " n"]]:
        """New slots of several shards in one edit; returns it and their ids, part by part."""
        return _with_ids(self._edit("TakeIn", requests.take_in(incoming, origin, who or "")))

    def update(self, ids: Ids, arrays: Arrays, *, who: str | None = None) -> int:
        """Other vectors for slots of one shard; fields that are not given stay."""
        return int(self._edit("Update", requests.update(ids, arrays, who or "")).edit)

    def change(self, ids: Ids, change: Change, *, who: str | None = None) -> int:
        """Other attributes for slots."""
        return int(self._edit("Change", requests.change(ids, change, who or "")).edit)

    def delete(self, ids: Ids, *, who: str | None = None) -> int:
        """Take slots away."""
        return int(self._edit("Delete", requests.named(ids, who or "")).edit)

    def turn(self, edit: int, holds: bool) -> None:
        """Undo the last edit that holds, or make the last undone one hold again."""
        self.ask_change("Turn", pb.TurnRequest(edit=edit, holds=holds))

    def forget(self, edit: int) -> None:
        """Let go of what is kept for undoing an edit and those before it."""
        self.ask_change("Forget", pb.ForgetRequest(edit=edit))

    # ---- looking ------------------------------------------------------------------------------------------------

    def shards(self) -> list[ShardInfo]:
        """All shards, by layer."""
        return [messages.read_shard(one) for one in self.calls.ask("Shards", pb.Nothing()).shards]

    def shard(self, layer: int, name: str) -> ShardInfo:
        """One shard."""
        for info in self.shards():
            if (info.layer, info.name) == (layer, name):
                return info
        raise MissingError(f"{self.place}: layer {layer} has no shard {name!r}")

    def counts(self) -> list[ShardCount]:
        """Every shard with how many slots live in it."""
        return [messages.read_count(one) for one in self.calls.ask("Counts", pb.Nothing()).shards]

    def count(self, where: Where | None = None, *, at_most: int | None = None) -> int:  # noqa: ARG002  it counts all
        """How many slots live; of those that `where` names."""
        return int(self.calls.ask("Count", messages.where_message(where or Where())).count)

    def scan(
        self, where: Where, *, limit: int = 100, after: int = 0, newest: bool = False
    ) -> list[SlotRecord]:
        """A page of records by id, as `scan.scan` gives it."""
        wanted = messages.where_message(where)
        request = pb.ScanRequest(where=wanted, limit=limit, after=after, newest=newest)
        return _records(self.calls.parts("Scan", request))

    def records(self, ids: Ids) -> list[SlotRecord]:
        """The records of slots, in the order asked for."""
        return _records(self.calls.parts("Records", requests.named(ids)))

    def source(self, number: int) -> Source:
        """A text that slots cite."""
        return messages.read_source(self.calls.ask("GetSource", pb.SourceRequest(id=number)))

    def fetch(self, ids: Ids, fields: Sequence[str]) -> dict[str, Shaped[np.ndarray, "n d"]]:
        """The vectors of slots of one shard."""
        parts = self.calls.parts("Fetch", requests.fetch(ids, fields))
        return join(array for part in parts for array in part.arrays)

    def live(self, layer: int, shard: str) -> LiveRows:
        """The living slots of a shard, by row."""
        parts = self.calls.parts("Live", pb.ShardName(layer=layer, name=shard))
        columns = join(array for part in parts for array in part.arrays)
        return LiveRows(**{name: column.ravel() for name, column in columns.items()})

    def generation(self) -> int:
        """A number that grows with every change."""
        return int(self.calls.ask("About", pb.Nothing()).generation)

    def verify(self) -> list[WrongSlot]:
        """The slots whose vectors are not those that were written."""
        parts = self.calls.parts("Verify", pb.Nothing(), seconds=VERIFY_SECONDS)
        return [messages.read_wrong(one) for part in parts for one in part.wrong]

    def damage(self) -> list[Damage]:
        """The files that came with the model and are not as they were written."""
        told = self.calls.ask("Damage", pb.Nothing(), seconds=VERIFY_SECONDS)
        return [messages.read_damage(one) for one in told.files]

    # ---- inside -------------------------------------------------------------------------------------------------

    def ask_change(self, name: str, request: object) -> Any:
        """A call that changes something and has one reply."""
        self._check_writable()
        return self.calls.ask(name, request, changes=True)

    def change_parts(self, name: str, request: object) -> Iterator[Any]:
        """A call that changes something and has a reply in parts."""
        self._check_writable()
        return self.calls.parts(name, request, changes=True)

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnlyError(f"{self.place} was opened for reading")

    def _edit(self, name: str, request: object | Iterator[object]) -> Any:
        edited = self.ask_change(name, request)
        self.last = messages.read_entry(edited.entry)
        return edited


def _records(parts: Iterable[Any]) -> list[SlotRecord]:
    return [messages.read_record(slot) for part in parts for slot in part.slots]


def _with_ids(edited: Any) -> tuple[int, Int64[np.ndarray, " n"]]:
    return int(edited.edit), np.array(edited.ids, np.int64)
