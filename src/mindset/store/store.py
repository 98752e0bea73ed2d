"""What every store does, wherever its vectors lie: put slots in, change them, take them out, look at them, check them.

A change writes its vectors into rows that no record names and then commits the records that name them; so after a
kill at any moment what was acknowledged is there, whole, and nothing else is.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, Shaped

from mindset.database.engine import Durability
from mindset.errors import MissingError, ReadOnlyError, UsageError
from mindset.store import scan as scanning
from mindset.store.edit import Edit, NewShard
from mindset.store.ledger import Ledger, LiveRows, Source
from mindset.store.memory_dir import Damage
from mindset.store.scan import ShardCount, Where
from mindset.store.shard_info import ShardInfo
from mindset.store.slots import Change, Ids, NewSlot, SlotRecord

__all__ = [
    "Arrays",
    "Incoming",
    "IncomingSlots",
    "Replacement",
    "Store",
    "Vectors",
    "WrongSlot",
    "check_fields",
    "checksums",
]

Arrays = Mapping[str, Shaped[np.ndarray, "n d"]]
"""By field: one row for each slot, as it is stored (bfloat16 as uint16 bits)."""


@runtime_checkable
class Vectors(Protocol):
    """Where the vectors of slots lie."""

    def put(self, edit: Edit, shard: ShardInfo, rows: Int64[np.ndarray, " n"], arrays: Arrays) -> None:
        """Write slots' rows, which are the edit's own; they count once it is committed."""

    def get(self, shard: ShardInfo, field: str, rows: Int64[np.ndarray, " n"]) -> Shaped[np.ndarray, "n d"]:
        """A copy of some slots' rows of one field."""

    def parts(self, shard: ShardInfo, field: str) -> list[Shaped[np.ndarray, "n d"]]:
        """All rows of a field up to the shard's top, living or not: maps where there are files, else a copy."""

    def sync(self) -> None:
        """Make what was written survive a power cut."""


@dataclass(frozen=True)
class WrongSlot:
    """A slot whose vectors are not those that were written."""

    id: int
    layer: int
    shard: str
    row: int


@dataclass(frozen=True, eq=False)
class IncomingSlots:
    """Slots for one shard; their citations' sources are places in `Incoming.sources`."""

    shard: ShardInfo | NewShard
    """Where they go; a new shard is made in the same edit."""
    new: list[NewSlot]
    arrays: Arrays


@dataclass(frozen=True, eq=False)
class Incoming:
    """Slots of several shards with the texts that they cite, to be taken in at once."""

    sources: list[tuple[str, str]]
    """Name and text."""
    parts: list[IncomingSlots]
    replaced: tuple[int, ...] = ()
    """Slots that go in the same edit, since the incoming ones say what they said."""


@dataclass(frozen=True, eq=False)
class Replacement:
    """New slots of one shard in place of several each; their citations' sources are places in `sources`."""

    shard: ShardInfo
    old: Int64[np.ndarray, " old"]
    """Slots that go."""
    old_rows: Int64[np.ndarray, " old"]
    heirs: Int64[np.ndarray, " old"]
    """Which of the new slots each goes into."""
    new: list[NewSlot]
    sources: list[tuple[str, str]]
    """Name and text."""
    arrays: Arrays


class Store:
    """Records and vectors together."""

    def __init__(
        self,
        place: str,
        ledger: Ledger,
        vectors: Vectors,
        *,
        read_only: bool = False,
        durability: Durability = "kill",
    ) -> None:
        """`place` is what messages call it."""
        self.place, self.ledger, self.vectors = place, ledger, vectors
        self.read_only, self.durability = read_only, durability

    def close(self) -> None:
        """Let go of files and connections."""
        self.ledger.engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- changing: each returns the number of its edit, for the journal ------------------------------------------

    def add_shard(self, new: NewShard) -> int:
        """Make an empty shard, such as an overlay's part in a layer."""
        with self._editing("add shard") as edit:
            edit.add_shard(new)
            return edit.id

    def insert(
        self, layer: int, shard: str, new: Sequence[NewSlot], arrays: Arrays
    ) -> tuple[int, Int64[np.ndarray, " n"]]:
        """New slots; returns the edit and their ids."""
        with self._editing("insert") as edit:
            info = _editable(self._named(edit.shards(), layer, shard))
            rows = self._write(edit, info, arrays, len(new))
            return edit.id, edit.insert(info.id, new, rows, checksums(arrays))

    def take_in(self, incoming: Incoming) -> tuple[int, Int64[np.ndarray, " n"]]:
        """New slots of several shards in one edit; returns it and their ids, part by part."""
        made = [np.empty(0, np.int64)]
        with self._editing("import") as edit:
            sources = [edit.add_source(name, text) for name, text in incoming.sources]
            if incoming.replaced:
                edit.delete(incoming.replaced)
            shards: dict[tuple[int, str], ShardInfo] = {}
            for part in incoming.parts:
                info = _editable(_shard_in(edit, part.shard, shards))
                rows = self._write(edit, info, part.arrays, len(part.new))
                cited = [_citing(one, sources) for one in part.new]
                made.append(edit.insert(info.id, cited, rows, checksums(part.arrays)))
            return edit.id, np.concatenate(made)

    def update(self, ids: Ids, arrays: Arrays) -> int:
        """Other vectors for slots of one shard; fields that are not given stay."""
        info, rows = self.locate(ids, [*arrays])
        _editable(info)
        whole = {
            field: arrays[field] if field in arrays else self.vectors.get(info, field, rows)
            for field in info.fields
        }
        with self._editing("update") as edit:
            heirs = self._write(edit, info, whole, len(rows))
            self.inherit_counts(info, rows, heirs)
            edit.move(ids, heirs, checksums(whole))
            return edit.id

    def change(self, ids: Ids, change: Change) -> int:
        """Other attributes for slots."""
        self._check(ids)
        with self._editing("change") as edit:
            edit.change(ids, change)
            return edit.id

    def delete(self, ids: Ids) -> int:
        """Take slots away; their rows are kept until the edit is forgotten."""
        self._check(ids)
        with self._editing("delete") as edit:
            edit.delete(ids)
            return edit.id

    def replace(self, replacements: Sequence[Replacement]) -> tuple[int, Int64[np.ndarray, " n"]]:
        """New slots in place of others, all in one edit; returns it and their ids."""
        made = [np.empty(0, np.int64)]
        with self._editing("replace") as edit:
            for one in replacements:
                _editable(one.shard)
                sources = [edit.add_source(name, text) for name, text in one.sources]
                rows = self._write(edit, one.shard, one.arrays, len(one.new))
                self.unite_counts(one.shard, one.old_rows, rows[one.heirs])
                edit.delete(one.old)
                cited = [_citing(new, sources) for new in one.new]
                made.append(edit.insert(one.shard.id, cited, rows, checksums(one.arrays)))
            return edit.id, np.concatenate(made)

    def turn(self, edit: int, holds: bool) -> None:
        """Undo an edit, or make it hold again; the caller keeps to the order of the journal."""
        self._check_writable()
        self.ledger.turn(edit, holds)

    def forget(self, edit: int) -> None:
        """Free what is kept for undoing (or redoing) an edit."""
        self._check_writable()
        self.ledger.forget(edit)

    # ---- looking ------------------------------------------------------------------------------------------------

    def shards(self) -> list[ShardInfo]:
        """All shards, by layer."""
        return self.ledger.shards()

    def shard(self, layer: int, name: str) -> ShardInfo:
        """One shard."""
        return self._named(self.shards(), layer, name)

    def records(self, ids: Ids) -> list[SlotRecord]:
        """The records of slots."""
        return self.ledger.records(ids)

    def counts(self) -> list[ShardCount]:
        """Every shard with how many slots live in it."""
        return scanning.counts(self.ledger)

    def count(self, where: Where | None = None, *, at_most: int | None = None) -> int:
        """How many slots live; of those that `where` names, where counting may stop at `at_most`."""
        return self.ledger.count() if where is None else scanning.count(self.ledger, where, at_most=at_most)

    def scan(
        self, where: Where, *, limit: int = 100, after: int = 0, newest: bool = False
    ) -> list[SlotRecord]:
        """A page of records by id, as `scan.scan` gives it."""
        return scanning.scan(self.ledger, where, limit=limit, after=after, newest=newest)

    def source(self, number: int) -> Source:
        """A text that slots cite."""
        return self.ledger.source(number)

    def generation(self) -> int:
        """A number that grows with every change."""
        return self.ledger.generation()

    def locate(
        self, ids: Ids, fields: Sequence[str] | None = None
    ) -> tuple[ShardInfo, Int64[np.ndarray, " n"]]:
        """The one shard of slots and the rows where their vectors lie; refuses fields that they do not have."""
        records = self.ledger.records(ids)
        info = self._shard_of(records)
        if unknown := set(fields or ()) - info.fields.keys():
            raise UsageError(f"slots of {info.name!r} have no {', '.join(sorted(unknown))}")
        return info, np.array([record.row for record in records], np.int64)

    def fetch(self, ids: Ids, fields: Sequence[str]) -> dict[str, Shaped[np.ndarray, "n d"]]:
        """The vectors of slots of one shard."""
        info, rows = self.locate(ids, fields)
        return {field: self.vectors.get(info, field, rows) for field in fields}

    def live(self, layer: int, shard: str) -> LiveRows:
        """The living slots of a shard, by row."""
        return self.ledger.live(self.shard(layer, shard).id)

    def verify(self) -> list[WrongSlot]:
        """Compare every living slot's vectors with its record; an empty list means all is well."""
        wrong = []
        for info in self.shards():
            live = self.ledger.live(info.id)
            for start in range(0, len(live.ids), 4096):
                some = slice(start, start + 4096)
                arrays = {field: self.vectors.get(info, field, live.rows[some]) for field in info.fields}
                for i in np.flatnonzero(checksums(arrays) != live.crcs[some]):
                    at = start + int(i)
                    wrong.append(WrongSlot(int(live.ids[at]), info.layer, info.name, int(live.rows[at])))
        return wrong

    # ---- what is counted of reads, where a store counts them ------------------------------------------------------

    def begin_counts(self, shard: ShardInfo, rows: Int64[np.ndarray, " n"]) -> None:
        """New slots are about to be in these rows."""

    def inherit_counts(
        self, shard: ShardInfo, rows: Int64[np.ndarray, " n"], heirs: Int64[np.ndarray, " n"]
    ) -> None:
        """Slots are about to move to other rows."""

    def unite_counts(
        self, shard: ShardInfo, rows: Int64[np.ndarray, " n"], heirs: Int64[np.ndarray, " n"]
    ) -> None:
        """Slots are about to go into those of other rows, several into one."""

    def damage(self) -> list[Damage]:
        """The files that came with the model and are not as they were written; a database has none."""
        return []

    # ---- inside -------------------------------------------------------------------------------------------------

    def _named(self, shards: Sequence[ShardInfo], layer: int, name: str) -> ShardInfo:
        for info in shards:
            if (info.layer, info.name) == (layer, name):
                return info
        raise MissingError(f"{self.place}: layer {layer} has no shard {name!r}")

    def _editing(self, kind: str) -> AbstractContextManager[Edit]:
        self._check_writable()
        return self.ledger.editing(kind)

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnlyError(f"{self.place} was opened for reading")

    def _check(self, ids: Ids) -> None:
        shards = {info.id: info for info in self.shards()}
        for number in self.ledger.shards_of(ids):
            _editable(shards[number])

    def _write(self, edit: Edit, info: ShardInfo, arrays: Arrays, count: int) -> Int64[np.ndarray, " n"]:
        for field, array in arrays.items():
            if len(array) != count:
                raise UsageError(f"{field}: {len(array)} rows for {count} slots")
        rows = edit.take_rows(info.id, count)
        self.begin_counts(info, rows)
        self.vectors.put(edit, info, rows, arrays)
        if self.durability == "power":
            self.vectors.sync()
        return rows

    def _shard_of(self, records: Sequence[SlotRecord]) -> ShardInfo:
        places = {(record.layer, record.shard) for record in records}
        if len(places) != 1:
            raise UsageError("slots of one shard at a time, and at least one")
        return self.shard(*places.pop())


def checksums(arrays: Arrays) -> Int64[np.ndarray, " n"]:
    """crc32 of each slot's rows, fields in the order of their names."""
    names = sorted(arrays)
    count = len(arrays[names[0]]) if names else 0
    chunk = 1 << 14
    found = [
        _crcs([arrays[name][start : start + chunk] for name in names]) for start in range(0, count, chunk)
    ]
    return np.fromiter(itertools.chain.from_iterable(found), np.int64, count)


def check_fields(shard: ShardInfo, arrays: Arrays) -> None:
    """Refuse slots that have other fields than their shard."""
    if missing := shard.fields.keys() ^ arrays.keys():
        raise UsageError(
            f"layer {shard.layer}, {shard.name!r}: slots have the fields {', '.join(shard.fields)}; "
            f"{', '.join(sorted(missing))} is missing or too many"
        )


def _crcs(columns: list[np.ndarray]) -> list[int]:
    """Of a chunk of slots, whose rows are laid side by side first."""
    count = len(columns[0])
    flat = [np.ascontiguousarray(column).reshape(count, -1).view(np.uint8) for column in columns]
    joined = np.concatenate(flat, axis=1)
    width, view = joined.shape[1], joined.reshape(-1).data
    return [zlib.crc32(view[start : start + width]) for start in range(0, count * width, width)]


def _shard_in(edit: Edit, shard: ShardInfo | NewShard, made: dict[tuple[int, str], ShardInfo]) -> ShardInfo:
    """The shard, made where it is a new one; its slots may come in several parts."""
    if not isinstance(shard, NewShard):
        return shard
    place = (shard.layer, shard.name)
    if place not in made:
        made[place] = edit.shard(edit.add_shard(shard))
    return made[place]


def _citing(new: NewSlot, sources: Sequence[int]) -> NewSlot:
    cites = new.cites
    return new if cites is None else replace(new, cites=replace(cites, source=sources[cites.source]))


def _editable(info: ShardInfo) -> ShardInfo:
    if info.kind == "associative":
        raise UsageError(
            f"layer {info.layer} is an associative bank, which fills its own rows; its slots cannot be edited"
        )
    return info
