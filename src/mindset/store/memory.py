"""A model folder's memory with its history: every change is made under the folder's lock and can be undone.

What `mindset memory` and `facts` change a memory with. The store keeps what an edit ended until the journal lets go of
it. Knows nothing of torch, nor of what slots mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from mindset.database.engine import Durability
from mindset.errors import MissingError, ReadOnlyError
from mindset.journal.folder_lock import writing_in
from mindset.journal.journal import Entry, Journal, Kind
from mindset.store.difference import Difference, difference
from mindset.store.edit import NewShard
from mindset.store.eviction_plan import Eviction
from mindset.store.merging import Merging
from mindset.store.overlays import MOUNTING, Mounting, Overlay, find_overlay, list_overlays
from mindset.store.portable import read_export
from mindset.store.slab_store import SlabStore
from mindset.store.slots import Change, Ids, NewSlot
from mindset.store.store import Arrays, Incoming

__all__ = ["Memory"]

KIND = "memory"
WAIT_SECONDS = 10.0


class _Edits:
    """How the journal takes back what was done to slots."""

    def __init__(self, store: SlabStore) -> None:
        self.store = store

    def undo(self, payload: dict[str, Any]) -> None:
        self.store.ledger.turn(payload["edit"], False)

    def redo(self, payload: dict[str, Any]) -> None:
        self.store.ledger.turn(payload["edit"], True)

    def happened(self, payload: dict[str, Any]) -> bool:
        return self.is_ours(payload) and self.store.ledger.holds(payload["edit"])

    def forget(self, payload: dict[str, Any]) -> None:
        if self.is_ours(payload):
            self.store.ledger.forget(payload["edit"])

    def is_ours(self, payload: dict[str, Any]) -> bool:
        """Saving a model anew begins another generation, whose edits are counted anew."""
        return bool(payload["generation"] == self.store.memory.generation)


class Memory:
    """An open memory of a model folder; close it, or use it as a context."""

    def __init__(
        self,
        folder: Path,
        *,
        read_only: bool = False,
        durability: Durability = "kill",
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        """Open DIR, which holds `memory/`; one process at a time may write, others wait for so long."""
        self.folder, self.read_only = Path(folder), read_only
        self._held = ExitStack()
        with ExitStack() as stack:
            if not read_only:
                stack.enter_context(writing_in(self.folder, wait_seconds))
            self.store = stack.enter_context(
                SlabStore(self.folder / "memory", read_only=read_only, durability=durability)
            )
            self._kind = _Edits(self.store)
            kinds: dict[str, Kind] = {KIND: self._kind, MOUNTING: Mounting(self.store.ledger)}
            self.journal = Journal(self.folder / "journal", kinds, read_only=read_only)
            self._held = stack.pop_all()

    @property
    def place(self) -> str:
        """Its folder, as messages and commands say it."""
        return str(self.folder)

    def close(self) -> None:
        """Let go of files and lock."""
        self._held.close()

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- changes, each one entry of the history ------------------------------------------------------------------

    def add_shard(self, new: NewShard, *, who: str | None = None) -> None:
        """Make an empty shard."""
        self._edit(f"shard {new.name} in layer {new.layer}", lambda: self.store.add_shard(new), who)

    def insert(
        self, layer: int, shard: str, new: Sequence[NewSlot], arrays: Arrays, *, who: str | None = None
    ) -> Int64[np.ndarray, " n"]:
        """Put new slots in; returns their ids."""
        ids: list[Int64[np.ndarray, " n"]] = []

        def change() -> int:
            edit, made = self.store.insert(layer, shard, new, arrays)
            ids.append(made)
            return edit

        self._edit(f"{_slots(len(new))} in, layer {layer}, {shard}", change, who)
        return ids[0]

    def take_in(self, folder: Path, *, who: str | None = None) -> Int64[np.ndarray, " n"]:
        """Put in the slots of an export; returns their ids."""
        return self.put_in(read_export(self.store, folder), Path(folder).name, who=who)

    def put_in(self, incoming: Incoming, origin: str, *, who: str | None = None) -> Int64[np.ndarray, " n"]:
        """Put in slots of several shards at once, which come from `origin`; returns their ids."""
        ids: list[Int64[np.ndarray, " n"]] = []

        def change() -> int:
            edit, made = self.store.take_in(incoming)
            ids.append(made)
            return edit

        count = sum(len(part.new) for part in incoming.parts)
        self._edit(f"{_slots(count)} in, from {origin}", change, who)
        return ids[0]

    def update(self, ids: Ids, arrays: Arrays, *, who: str | None = None) -> None:
        """Give slots other vectors."""
        self._edit(f"{_slots(len(ids))} edited: {_named(ids)}", lambda: self.store.update(ids, arrays), who)

    def change(self, ids: Ids, change: Change, *, who: str | None = None) -> None:
        """Give slots other attributes."""
        what = ", ".join(change.given())
        self._edit(f"{what} of {_named(ids)}", lambda: self.store.change(ids, change), who)

    def delete(self, ids: Ids, *, who: str | None = None) -> None:
        """Take slots out."""
        self._edit(f"{_slots(len(ids))} out: {_named(ids)}", lambda: self.store.delete(ids), who)

    def evict(self, eviction: Eviction, *, who: str | None = None) -> None:
        """Let the slots of a plan go."""
        ids = eviction.ids
        title = f"{_slots(len(ids))} evicted by {eviction.policy}: {_named(ids)}"
        self._edit(title, lambda: self.store.delete(ids), who)
        for (layer, head), queue in eviction.queues.items():
            queue.save(self.store.usage.queue_file(layer, head))

    def merge(self, merging: Merging, *, who: str | None = None) -> Int64[np.ndarray, " n"]:
        """Let the slots of a plan become one, group by group; returns the merged slots' ids."""
        ids: list[Int64[np.ndarray, " n"]] = []

        def change() -> int:
            edit, made = self.store.replace(merging.replacements)
            ids.append(made)
            return edit

        old = [slot for group in merging.groups for slot in group.ids]
        title = f"{_slots(len(old))} merged into {len(merging.groups):,}: {_named(old)}"
        self._edit(title, change, who)
        return ids[0]

    # ---- overlays ------------------------------------------------------------------------------------------------

    def overlays(self) -> list[Overlay]:
        """The overlays that have slots."""
        return list_overlays(self.store.ledger)

    def mount(self, name: str, *, who: str | None = None) -> bool:
        """Let an overlay be read; whether it was not before."""
        return self._set_mounted(name, True, who)

    def unmount(self, name: str, *, who: str | None = None) -> bool:
        """Take an overlay off; its slots stay on disk. Whether it was mounted before."""
        return self._set_mounted(name, False, who)

    def _set_mounted(self, name: str, mounted: bool, who: str | None) -> bool:
        if self.read_only:
            raise ReadOnlyError(f"{self.folder} was opened for reading")
        if find_overlay(self.store.ledger, name).mounted == mounted:
            return False
        payload = {"name": name, "mounted": mounted, "generation": self.store.memory.generation}
        title = f"overlay {name} {'mounted' if mounted else 'taken off'}"
        with self.journal.recording(MOUNTING, title, payload, who=who):
            self.store.ledger.set_mounted(name, mounted)
        return True

    # ---- history -------------------------------------------------------------------------------------------------

    def last_change(self) -> Entry:
        """The last change that holds."""
        if not self.journal.done:
            raise MissingError(f"{self.folder}: nothing was changed yet")
        return self.journal.done[-1]

    def history(self) -> list[Entry]:
        """Every change, oldest first; the undone ones last."""
        return self.journal.entries

    def snapshots(self) -> dict[str, int]:
        """By name: how many changes hold at a snapshot."""
        return {name: len(self.journal.until(name)) for name in self.journal.snapshots}

    def snapshot(self, name: str) -> None:
        """Name the place where the history stands."""
        self.journal.snapshot(name)

    def unsnapshot(self, name: str) -> None:
        """Let go of a snapshot's name."""
        self.journal.unsnapshot(name)

    def undo(self, count: int = 1) -> list[Entry]:
        """Take back the last changes."""
        self._refuse_older(self.journal.done[::-1][:count])
        return self.journal.undo(count)

    def redo(self, count: int = 1) -> list[Entry]:
        """Make them again."""
        self._refuse_older(self.journal.undone[:count])
        return self.journal.redo(count)

    def restore(self, snapshot: str) -> list[Entry]:
        """Go back, or forward, to a snapshot of `journal`."""
        wanted = {entry.id for entry in self.journal.until(snapshot)}
        held = {entry.id for entry in self.journal.done}
        self._refuse_older([entry for entry in self.journal.entries if entry.id in wanted ^ held])
        return self.journal.restore(snapshot)

    def diff(self, before: str | None = None, after: str | None = None) -> Difference:
        """What differs between two snapshots; None: before all changes, and now."""
        then = [] if before is None else self.journal.until(before)
        now = self.journal.done if after is None else self.journal.until(after)
        history = self._edits(self.journal.entries)
        return difference(self.store.ledger, self._edits(then), self._edits(now), history)

    def _edits(self, entries: list[Entry]) -> set[int]:
        ours = [entry for entry in entries if entry.kind == KIND and self._kind.is_ours(entry.payload)]
        return {entry.payload["edit"] for entry in ours}

    def _refuse_older(self, entries: list[Entry]) -> None:
        for entry in entries:
            if not self._kind.is_ours(entry.payload):
                raise MissingError(
                    f"{entry.title!r} was done before the model in {self.folder} was saved anew; "
                    "restore a copy to go back"
                )

    def _edit(self, title: str, change: Callable[[], int], who: str | None) -> None:
        if self.read_only:
            raise ReadOnlyError(f"{self.folder} was opened for reading")
        edit = self.store.ledger.next_edit()
        with self.journal.recording(
            KIND, title, {"edit": edit, "generation": self.store.memory.generation}, who=who
        ):
            made = change()
            if made != edit:
                raise RuntimeError(f"edit {made} was made in place of {edit}: another process writes")


def _slots(count: int) -> str:
    return f"{count:,} slot{'' if count == 1 else 's'}"


def _named(ids: Ids) -> str:
    shown = ", ".join(str(int(i)) for i in list(ids)[:5])
    return shown if len(ids) <= 5 else f"{shown} and {len(ids) - 5:,} more"
