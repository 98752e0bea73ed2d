"""A memory on disk: records in SQLite, vectors in slabs. The default store.

One process writes, many read. `slots.gN.sqlite` belongs to generation N of `memory.json`. It is made when a memory is
first opened for writing; where there is none yet, a reader makes its own in a temporary place, since opening for
reading writes nothing.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from mindset.database.engine import Durability, gather, open_engine, sqlite_url
from mindset.store.bulk import unindexed
from mindset.store.edit import Edit, NewShard
from mindset.store.ledger import Ledger
from mindset.store.memory_dir import Damage, MemoryDir
from mindset.store.records import BankRecord, ShardRecord
from mindset.store.shard_info import ShardInfo
from mindset.store.slab_vectors import SlabVectors
from mindset.store.store import Store, checksums
from mindset.store.usage import Usage

__all__ = ["SlabStore"]


class SlabStore(Store):
    """An open memory folder."""

    def __init__(self, folder: Path, *, read_only: bool = False, durability: Durability = "kill") -> None:
        """Open `folder`, a model's `memory/`."""
        self.folder = Path(folder)
        self.memory = MemoryDir.open(self.folder)
        self.usage = Usage(self.memory, read_only=read_only)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        path = self._records_file(read_only)
        engine = open_engine(sqlite_url(path), read_only=read_only, durability=durability)
        super().__init__(
            str(self.folder),
            Ledger(engine, read_only=read_only),
            SlabVectors(self.memory, read_only=read_only),
            read_only=read_only,
            durability=durability,
        )

    def close(self) -> None:
        super().close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def __enter__(self) -> SlabStore:
        return self

    def begin_counts(self, shard: ShardInfo, rows: Int64[np.ndarray, " n"]) -> None:
        stamp = self.usage.stamp
        if stamp is not None:
            self.usage.of(shard.layer, shard.name).reset(rows, *stamp)

    def inherit_counts(
        self, shard: ShardInfo, rows: Int64[np.ndarray, " n"], heirs: Int64[np.ndarray, " n"]
    ) -> None:
        self.usage.of(shard.layer, shard.name).inherit(rows, heirs)

    def unite_counts(
        self, shard: ShardInfo, rows: Int64[np.ndarray, " n"], heirs: Int64[np.ndarray, " n"]
    ) -> None:
        self.usage.of(shard.layer, shard.name).unite(rows, heirs)

    def damage(self) -> list[Damage]:
        """The slabs that are not as they were written."""
        return self.memory.verify()

    def _records_file(self, read_only: bool) -> Path:
        path = self.folder / f"slots.g{self.memory.generation}.sqlite"
        if path.exists():
            return path
        if read_only:
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


def _import_records(memory: MemoryDir, path: Path) -> None:
    """Write records for every slot that came with the model."""
    engine = open_engine(sqlite_url(path))
    ledger = Ledger(engine)
    with ledger.editing("import") as edit, unindexed(edit.connection):
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
    heads = np.repeat(np.arange(bank.heads, dtype=np.int64), shard.n_slots)
    edit.fill(number, heads, np.arange(count, dtype=np.int64), checksums(arrays))
