"""A memory in one database: records and vectors under one URL, SQLite or PostgreSQL.

For memories that many hosts share, or that are larger than a disk beside the model; a model reads it once into its own
arrays. `copy_from` fills an empty one with what came with a model.
"""

from __future__ import annotations

import numpy as np
import sqlalchemy as sa

from mindset.database.engine import Durability, open_engine
from mindset.errors import UsageError
from mindset.store.edit import NewShard
from mindset.store.ledger import Ledger
from mindset.store.memory_dir import MemoryDir
from mindset.store.sql_vectors import SqlVectors
from mindset.store.store import Store, checksums

__all__ = ["SqlStore"]


class SqlStore(Store):
    """An open database with a memory in it."""

    def __init__(
        self, url: str | sa.URL, *, read_only: bool = False, durability: Durability = "kill"
    ) -> None:
        """Open `url`, made or migrated unless `read_only`."""
        engine = open_engine(url, read_only=read_only, durability=durability)
        super().__init__(
            engine.url.render_as_string(),
            Ledger(engine, read_only=read_only),
            SqlVectors(engine, read_only=read_only),
            read_only=read_only,
            durability=durability,
        )

    def copy_from(self, memory: MemoryDir) -> None:
        """Take in every slot of a memory folder as it was saved, all or nothing; this store must be empty."""
        if self.shards():
            raise UsageError(f"{self.place} holds a memory already; give an empty database")
        with self._editing("import") as edit:
            for bank in memory.banks():
                for shard in bank.shards:
                    arrays = {field: memory.rows(bank.layer, shard.name, field) for field in shard.fields}
                    fields = {
                        field: {"dtype": shard.fields[field].dtype, "d": int(array.shape[1])}
                        for field, array in arrays.items()
                    }
                    number = edit.add_shard(
                        NewShard(
                            bank.layer, shard.name, bank.kind, bank.heads, shard.weight, shard.gated, fields
                        )
                    )
                    heads = np.repeat(np.arange(bank.heads, dtype=np.int64), shard.n_slots)
                    rows = edit.take_rows(number, len(heads))
                    self.vectors.put(
                        edit, edit.shard(number), rows, {f: np.asarray(a) for f, a in arrays.items()}
                    )
                    edit.fill(number, heads, rows, checksums(arrays))
