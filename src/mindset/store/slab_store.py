"""A memory on disk: records in SQL, vectors in slabs. The default store, and the reference for the others.

A change writes its vectors into rows that no record names and then commits the records that name them; so after a
kill at any moment what was acknowledged is there, whole, and nothing else is. One process writes, many read.

`slots.gN.sqlite` belongs to generation N of `memory.json`. It is made when a memory is first opened for writing; where
there is none yet, a reader makes its own in a temporary place, since opening for reading writes nothing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped

from mindset.database.engine import Durability, gather, open_engine, sqlite_url
from mindset.errors import MissingError, ReadOnlyError, UsageError
from mindset.store.edit import Edit, NewShard
from mindset.store.ledger import Ledger, LiveRows, ShardInfo
from mindset.store.memory_dir import MemoryDir
from mindset.store.records import BankRecord, ShardRecord
from mindset.store.slab_vectors import Arrays, SlabVectors, checksums
from mindset.store.slots import Change, Ids, NewSlot, SlotRecord

__all__ = ["SlabStore", "WrongSlot"]


@dataclass(frozen=True)
class WrongSlot:
    """A slot whose vectors are not those that were written."""

    id: int
    layer: int
    shard: str
    row: int


class SlabStore:
    """An open memory folder."""

    def __init__(self, folder: Path, *, read_only: bool = False, durability: Durability = "kill") -> None:
        """Open `folder`, a model's `memory/`."""
        self.folder, self.read_only, self.durability = Path(folder), read_only, durability
        self.memory = MemoryDir.open(self.folder)
        self.vectors = SlabVectors(self.memory, read_only=read_only)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        path = self._records_file()
        self._engine = open_engine(sqlite_url(path), read_only=read_only, durability=durability)
        self.ledger = Ledger(self._engine, read_only=read_only)

    def close(self) -> None:
        """Let go of the files."""
        self._engine.dispose()
        if self._scratch is not None:
            self._scratch.cleanup()

    def __enter__(self) -> SlabStore:
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
        info = _editable(self.shard(layer, shard))
        with self._editing("insert") as edit:
            rows = self._write(edit, info, arrays, len(new))
            return edit.id, edit.insert(info.id, new, rows, checksums(arrays))

    def update(self, ids: Ids, arrays: Arrays) -> int:
        """Other vectors for slots of one shard; fields that are not given stay."""
        records = self.ledger.records(ids)
        info = _editable(self._shard_of(records))
        rows = np.array([record.row for record in records], np.int64)
        whole = {
            field: arrays[field] if field in arrays else self.vectors.get(info, field, rows)
            for field in info.fields
        }
        if unknown := arrays.keys() - info.fields.keys():
            raise UsageError(f"slots of {info.name!r} have no {', '.join(sorted(unknown))}")
        with self._editing("update") as edit:
            edit.move(ids, self._write(edit, info, whole, len(rows)), checksums(whole))
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

    # ---- looking ------------------------------------------------------------------------------------------------

    def shards(self) -> list[ShardInfo]:
        """All shards, by layer."""
        return self.ledger.shards()

    def shard(self, layer: int, name: str) -> ShardInfo:
        """One shard."""
        for info in self.shards():
            if (info.layer, info.name) == (layer, name):
                return info
        raise MissingError(f"{self.folder}: layer {layer} has no shard {name!r}")

    def records(self, ids: Ids) -> list[SlotRecord]:
        """The records of slots."""
        return self.ledger.records(ids)

    def fetch(self, ids: Ids, fields: Sequence[str]) -> dict[str, Shaped[np.ndarray, "n d"]]:
        """The vectors of slots of one shard."""
        records = self.ledger.records(ids)
        info = self._shard_of(records)
        rows = np.array([record.row for record in records], np.int64)
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

    # ---- inside -------------------------------------------------------------------------------------------------

    def _editing(self, kind: str) -> AbstractContextManager[Edit]:
        if self.read_only:
            raise ReadOnlyError(f"{self.folder} was opened for reading")
        return self.ledger.editing(kind)

    def _check(self, ids: Ids) -> None:
        shards = {(info.layer, info.name): info for info in self.shards()}
        for place in {(record.layer, record.shard) for record in self.ledger.records(ids)}:
            _editable(shards[place])

    def _write(self, edit: Edit, info: ShardInfo, arrays: Arrays, count: int) -> Int64[np.ndarray, " n"]:
        for field, array in arrays.items():
            if len(array) != count:
                raise UsageError(f"{field}: {len(array)} rows for {count} slots")
        rows = edit.take_rows(info.id, count)
        self.vectors.put(info, rows, arrays)
        if self.durability == "power":
            self.vectors.sync()
        return rows

    def _shard_of(self, records: Sequence[SlotRecord]) -> ShardInfo:
        places = {(record.layer, record.shard) for record in records}
        if len(places) != 1:
            raise UsageError("slots of one shard at a time, and at least one")
        return self.shard(*places.pop())

    def _records_file(self) -> Path:
        path = self.folder / f"slots.g{self.memory.generation}.sqlite"
        if path.exists():
            return path
        if self.read_only:
            self._scratch = tempfile.TemporaryDirectory(prefix="mindset-")
            path = Path(self._scratch.name) / path.name
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            _import_records(self.memory, temporary)
            temporary.replace(path)
        finally:
            for left in path.parent.glob(f"{temporary.name}*"):
                left.unlink()
        return path


def _editable(info: ShardInfo) -> ShardInfo:
    if info.kind == "associative":
        raise UsageError(
            f"layer {info.layer} is an associative bank, which fills its own rows; its slots cannot be edited"
        )
    return info


def _import_records(memory: MemoryDir, path: Path) -> None:
    """Write records for every slot that came with the model."""
    engine = open_engine(sqlite_url(path))
    ledger = Ledger(engine)
    with ledger.editing("import") as edit:
        for bank in memory.banks():
            for shard in bank.shards:
                _import_shard(memory, edit, bank, shard)
    gather(engine)


def _import_shard(memory: MemoryDir, edit: Edit, bank: BankRecord, shard: ShardRecord) -> None:
    arrays = {field: memory.rows(bank.layer, shard.name, field) for field in shard.fields}
    fields = {
        field: {"dtype": shard.fields[field].dtype, "d": int(array.shape[1])}
        for field, array in arrays.items()
    }
    count = bank.heads * shard.n_slots
    number = edit.add_shard(
        NewShard(
            bank.layer, shard.name, bank.kind, bank.heads, shard.weight, shard.gated, fields, sealed=count
        )
    )
    new = [NewSlot(head=head) for head in range(bank.heads) for _ in range(shard.n_slots)]
    edit.insert(number, new, np.arange(count, dtype=np.int64), checksums(arrays))
