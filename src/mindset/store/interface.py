"""What can be done with a memory, whoever keeps it: a folder, a database, or a daemon that this process only asks.

Written against this, a caller works with all of them. Says nothing of SQL, files or sockets. Invariant: one test suite
runs against every implementation (tests/store/test_stores.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, Shaped

from mindset.journal.journal import Entry
from mindset.store.difference import Difference
from mindset.store.edit import NewShard
from mindset.store.ledger import LiveRows, Source
from mindset.store.memory_dir import Damage
from mindset.store.scan import ShardCount, Where
from mindset.store.shard_info import ShardInfo
from mindset.store.slots import Change, Ids, NewSlot, SlotRecord
from mindset.store.store import Arrays, Incoming, WrongSlot

__all__ = ["SlotMemory", "SlotStore"]


@runtime_checkable
class SlotStore(Protocol):
    """An open memory; close it, or use it as a context."""

    place: str
    """What messages call it."""
    read_only: bool

    def close(self) -> None:
        """Let go of files and connections."""

    def __enter__(self) -> SlotStore: ...

    def __exit__(self, *_: object) -> None: ...

    # ---- changing: each returns the number of its edit ----------------------------------------------------------

    def add_shard(self, new: NewShard) -> int:
        """Make an empty shard."""

    def insert(
        self, layer: int, shard: str, new: Sequence[NewSlot], arrays: Arrays
    ) -> tuple[int, Int64[np.ndarray, " n"]]:
        """New slots; returns the edit and their ids."""

    def take_in(self, incoming: Incoming) -> tuple[int, Int64[np.ndarray, " n"]]:
        """New slots of several shards in one edit; returns it and their ids, part by part."""

    def update(self, ids: Ids, arrays: Arrays) -> int:
        """Other vectors for slots of one shard; fields that are not given stay."""

    def change(self, ids: Ids, change: Change) -> int:
        """Other attributes for slots."""

    def delete(self, ids: Ids) -> int:
        """Take slots away."""

    def turn(self, edit: int, holds: bool) -> None:
        """Undo the last edit that holds, or make the last undone one hold again."""

    def forget(self, edit: int) -> None:
        """Let go of what is kept for undoing an edit."""

    # ---- looking ------------------------------------------------------------------------------------------------

    def shards(self) -> list[ShardInfo]:
        """All shards, by layer."""

    def shard(self, layer: int, name: str) -> ShardInfo:
        """One shard."""

    def counts(self) -> list[ShardCount]:
        """Every shard with how many slots live in it."""

    def count(self, where: Where | None = None, *, at_most: int | None = None) -> int:
        """How many slots live; of those that `where` names, where counting may stop at `at_most`."""

    def scan(
        self, where: Where, *, limit: int = 100, after: int = 0, newest: bool = False
    ) -> list[SlotRecord]:
        """A page of records by id, as `scan.scan` gives it."""

    def records(self, ids: Ids) -> list[SlotRecord]:
        """The records of slots, in the order asked for."""

    def source(self, number: int) -> Source:
        """A text that slots cite."""

    def fetch(self, ids: Ids, fields: Sequence[str]) -> dict[str, Shaped[np.ndarray, "n d"]]:
        """The vectors of slots of one shard."""

    def live(self, layer: int, shard: str) -> LiveRows:
        """The living slots of a shard, by row."""

    def generation(self) -> int:
        """A number that grows with every change."""

    def verify(self) -> list[WrongSlot]:
        """The slots whose vectors are not those that were written."""

    def damage(self) -> list[Damage]:
        """The files that came with the model and are not as they were written."""


@runtime_checkable
class SlotMemory(Protocol):
    """A memory with its history: every change is one entry that goes back and forth."""

    read_only: bool

    @property
    def place(self) -> str:
        """What messages and commands call it: a folder or a URL."""

    @property
    def store(self) -> SlotStore:
        """What is in it."""

    def last_change(self) -> Entry:
        """The last change, which holds."""

    def close(self) -> None:
        """Let go of files, connections and lock."""

    def __enter__(self) -> SlotMemory: ...

    def __exit__(self, *_: object) -> None: ...

    def add_shard(self, new: NewShard, *, who: str | None = None) -> None:
        """Make an empty shard."""

    def insert(
        self, layer: int, shard: str, new: Sequence[NewSlot], arrays: Arrays, *, who: str | None = None
    ) -> Int64[np.ndarray, " n"]:
        """Put new slots in; returns their ids."""

    def take_in(self, folder: Path, *, who: str | None = None) -> Int64[np.ndarray, " n"]:
        """Put in the slots of an export; returns their ids."""

    def update(self, ids: Ids, arrays: Arrays, *, who: str | None = None) -> None:
        """Give slots other vectors."""

    def change(self, ids: Ids, change: Change, *, who: str | None = None) -> None:
        """Give slots other attributes."""

    def delete(self, ids: Ids, *, who: str | None = None) -> None:
        """Take slots out."""

    def undo(self, count: int = 1) -> list[Entry]:
        """Take back the last changes; returns them, the last one first."""

    def redo(self, count: int = 1) -> list[Entry]:
        """Make them again."""

    def history(self) -> list[Entry]:
        """Every change, oldest first; the undone ones last."""

    def snapshots(self) -> dict[str, int]:
        """By name: how many changes hold at a snapshot."""

    def snapshot(self, name: str) -> None:
        """Name the place where the history stands."""

    def unsnapshot(self, name: str) -> None:
        """Let go of a snapshot's name."""

    def restore(self, snapshot: str) -> list[Entry]:
        """Go back, or forward, to a snapshot; returns what was turned."""

    def diff(self, before: str | None = None, after: str | None = None) -> Difference:
        """What differs between two snapshots; None: before all changes, and now."""
