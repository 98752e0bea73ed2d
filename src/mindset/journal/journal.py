"""The journal of one folder: every edit with how to take it back, one line of history with a place in it.

An edit is written down before it is made, and once more when it is made. So after a kill at any moment the journal
knows which edit may be half known, and asks its kind, whose own data says whether it happened (`Kind.happened`); no
edit is lost to `undo`, and none is listed that was not made. A new edit after an undo drops what was undone.

A snapshot is a name for a place in that line: after an edit, or before all of them. Going back to one undoes what came
later and going forward makes it again; a snapshot whose edit is dropped is gone with it.

Lines say begin, done, failed, undo, undone, redo, redone, drop, dropped, snapshot or unsnapshot; the state is what they
add up to.
"""

from __future__ import annotations

import getpass
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from mindset.errors import FormatError, MissingError, UsageError
from mindset.journal import lines

__all__ = ["Entry", "Journal", "Kind", "State"]

State = Literal["done", "undone", "unsettled"]

_VERSION = 1
_AFTER = {"undo": "undone", "redo": "redone"}
"""What ends an operation."""


@runtime_checkable
class Kind(Protocol):
    """How edits of one kind are taken back; registered by the package that makes them."""

    def undo(self, payload: dict[str, Any]) -> None:
        """Take the edit back; wholly or not at all."""

    def redo(self, payload: dict[str, Any]) -> None:
        """Make it again; wholly or not at all."""

    def happened(self, payload: dict[str, Any]) -> bool:
        """Whether the folder is now as after the edit."""

    def forget(self, payload: dict[str, Any]) -> None:
        """Nobody will ask to undo or redo it any more: what was kept for that may go. May be called again."""


@dataclass(frozen=True)
class Entry:
    """One edit."""

    id: str
    """Its name, never used twice."""
    kind: str
    """Who knows how to take it back."""
    title: str
    """What was done, in one line."""
    when: str
    """ISO 8601, UTC."""
    who: str
    """The user, or the program on a user's behalf."""
    payload: dict[str, Any]
    """What the kind needs to undo and redo; JSON."""
    state: State = "unsettled"
    """`unsettled`: its process ended before saying whether it was made."""


class Journal:
    """The journal file of a folder; one process at a time writes."""

    def __init__(self, path: Path, kinds: Mapping[str, Kind], *, read_only: bool = False) -> None:
        """Open `path`, which need not exist yet; unless `read_only`, settle what a killed process left."""
        self.path, self.kinds, self.read_only = Path(path), dict(kinds), read_only
        self._entries: dict[str, Entry] = {}
        self._pending: tuple[str, str] | None = None
        self._snapshots: dict[str, str | None] = {}
        for line in lines.read(self.path):
            self._follow(line)
        if not read_only:
            self._settle()

    # ---- looking ----------------------------------------------------------------------------------------------

    @property
    def entries(self) -> list[Entry]:
        """Every edit, oldest first; the undone ones last."""
        return list(self._entries.values())

    @property
    def done(self) -> list[Entry]:
        """The edits that hold, oldest first."""
        return [entry for entry in self.entries if entry.state == "done"]

    @property
    def undone(self) -> list[Entry]:
        """The edits that `redo` would make again, the next one first."""
        return [entry for entry in self.entries if entry.state == "undone"]

    @property
    def snapshots(self) -> dict[str, str | None]:
        """By name: the id of the edit that a snapshot was taken after, or None where it was before all."""
        return dict(self._snapshots)

    def until(self, snapshot: str) -> list[Entry]:
        """The edits that hold at a snapshot, oldest first."""
        after = self._place(snapshot)
        line = [*self.done, *self.undone]
        return line[: 1 + [entry.id for entry in line].index(after)] if after else []

    # ---- changing ---------------------------------------------------------------------------------------------

    def snapshot(self, name: str) -> None:
        """Name the place where the history stands."""
        if not _NAME.fullmatch(name):
            raise UsageError(f"snapshot {name!r}: use 1-64 lower-case letters, digits, '.', '-' and '_'")
        if name in self._snapshots:
            raise UsageError(f"there is a snapshot {name!r} already; take another name, or drop it")
        self._write({"op": "snapshot", "id": name, "after": self.done[-1].id if self.done else None})

    def unsnapshot(self, name: str) -> None:
        """Let go of a snapshot's name; the history stays as it is."""
        self._place(name)
        self._write({"op": "unsnapshot", "id": name})

    def restore(self, snapshot: str) -> list[Entry]:
        """Undo or redo until the history stands where the snapshot was taken; returns what was turned."""
        wanted = self.until(snapshot)
        back, forth = len(self.done) - len(wanted), len(wanted) - len(self.done)
        return self.undo(back) if back > 0 else self.redo(forth) if forth > 0 else []

    @contextmanager
    def recording(
        self, kind: str, title: str, payload: dict[str, Any], *, who: str | None = None
    ) -> Iterator[Entry]:
        """Make an edit inside the block; one that fails is not in the history."""
        self._kind(kind)
        entry = Entry(
            secrets.token_hex(8), kind, title, datetime.now(UTC).isoformat(), who or _user(), payload
        )
        self._write({"op": "begin", **{name: getattr(entry, name) for name in _SAVED}})
        try:
            yield entry
        except BaseException:
            self._settle()
            raise
        self._write({"op": "done", "id": entry.id})
        self._drop_overtaken()

    def undo(self, count: int = 1) -> list[Entry]:
        """Take back the last `count` edits; returns them, the last one first."""
        return [self._turn("undo", entry) for entry in self._some(self.done[::-1], count, "undo")]

    def redo(self, count: int = 1) -> list[Entry]:
        """Make again what was undone last."""
        return [self._turn("redo", entry) for entry in self._some(self.undone, count, "redo")]

    def forget(self, keep: int) -> int:
        """Let go of all but the last `keep` edits, and of what is kept for undoing them; returns how many."""
        gone = self.done[: max(0, len(self.done) - keep)]
        for entry in gone:
            self._drop(entry)
        lines.rewrite(self.path, [*self._as_lines()])
        return len(gone)

    # ---- inside -----------------------------------------------------------------------------------------------

    def _turn(self, op: str, entry: Entry) -> Entry:
        kind = self._kind(entry.kind)
        self._write({"op": op, "id": entry.id})
        try:
            (kind.undo if op == "undo" else kind.redo)(entry.payload)
        except BaseException:
            self._settle()
            raise
        self._write({"op": _AFTER[op], "id": entry.id})
        return self._entries[entry.id]

    def _drop(self, entry: Entry) -> None:
        self._write({"op": "drop", "id": entry.id})
        self._kind(entry.kind).forget(entry.payload)
        self._write({"op": "dropped", "id": entry.id})

    def _drop_overtaken(self) -> None:
        """What was undone before the last edit that holds cannot be made again."""
        last = max((i for i, entry in enumerate(self.entries) if entry.state == "done"), default=0)
        for entry in self.entries[:last][::-1]:
            if entry.state == "undone":
                self._drop(entry)

    def _settle(self) -> None:
        """End what was begun and not ended as the folder itself says."""
        if self._pending is not None:
            self._end(*self._pending)
        self._drop_overtaken()

    def _end(self, op: str, name: str) -> None:
        entry = self._entries[name]
        if op == "drop":
            self._kind(entry.kind).forget(entry.payload)
            self._write({"op": "dropped", "id": name})
            return
        happened = self._kind(entry.kind).happened(entry.payload)
        if op == "begin":
            self._write({"op": "done" if happened else "failed", "id": name})
        elif happened == (op == "redo"):
            self._write({"op": _AFTER[op], "id": name})
        else:
            self._write({"op": {"undo": "redone", "redo": "undone"}[op], "id": name})

    def _some(self, entries: list[Entry], count: int, verb: str) -> list[Entry]:
        if count < 1:
            raise UsageError(f"{verb} {count}: give at least 1")
        if count > len(entries):
            there = f"only {len(entries)}" if entries else "nothing"
            raise MissingError(f"there is {there} to {verb} in {self.path.parent}")
        return entries[:count]

    def _place(self, snapshot: str) -> str | None:
        if snapshot not in self._snapshots:
            names = ", ".join(self._snapshots) or "none"
            raise MissingError(f"there is no snapshot {snapshot!r} in {self.path.parent}; there are: {names}")
        return self._snapshots[snapshot]

    def _kind(self, name: str) -> Kind:
        if name not in self.kinds:
            raise MissingError(f"this release does not know how to undo edits of kind {name!r}")
        return self.kinds[name]

    def _write(self, line: dict[str, Any]) -> None:
        if self.read_only:
            raise UsageError(f"{self.path} was opened for reading")
        first = [] if self.path.exists() else [{"op": "journal", "version": _VERSION}]
        for each in (*first, line):
            lines.append(self.path, each)
            self._follow(each)

    def _follow(self, line: dict[str, Any]) -> None:
        """What one line says."""
        op, name = line.get("op"), str(line.get("id"))
        if op == "journal":
            if line.get("version") != _VERSION:
                raise FormatError(
                    f"{self.path} has version {line.get('version')}; this release reads {_VERSION}"
                )
        elif op == "snapshot":
            self._snapshots[name] = line.get("after")
        elif op == "unsnapshot":
            self._snapshots.pop(name, None)
        elif op == "begin":
            self._entries[name] = Entry(**{field: line[field] for field in _SAVED})
            self._pending = ("begin", name)
        elif name not in self._entries:
            raise FormatError(f"{self.path} is damaged: {op} of an edit that it does not know")
        elif op in ("failed", "dropped"):
            self._move_snapshots(self._entries.pop(name))
            self._pending = None
        elif op in _AFTER or op == "drop":
            self._pending = (str(op), name)
        else:
            state: State = "undone" if op == "undone" else "done"
            self._entries[name] = replace(self._entries[name], state=state)
            self._pending = None

    def _move_snapshots(self, gone: Entry) -> None:
        """The first edit that held was let go of: the history begins after it. Others take their snapshots along."""
        for name, after in [*self._snapshots.items()]:
            if after == (None if gone.state == "done" else gone.id):
                del self._snapshots[name]
            elif after == gone.id:
                self._snapshots[name] = None

    def _as_lines(self) -> Iterator[dict[str, Any]]:
        yield {"op": "journal", "version": _VERSION}
        for name, after in self._snapshots.items():
            yield {"op": "snapshot", "id": name, "after": after}
        for entry in self.entries:
            yield {"op": "begin", **{name: getattr(entry, name) for name in _SAVED}}
            yield {"op": entry.state, "id": entry.id}


_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SAVED = ("id", "kind", "title", "when", "who", "payload")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
