"""Vectors of slots in the database that holds their records: the reference on SQLite, the scale-out on PostgreSQL.

Bytes are kept as they are given, whatever their dtype, so that what is read is what was written to the bit. On
PostgreSQL every shard has a partition of its own, and keys of float32 and float16 stand beside the bytes once more as a
pgvector, for a search in SQL. A row of a slot that is gone is written over when its row is used again.
"""

from __future__ import annotations

import numpy as np
import sqlalchemy as sa
from jaxtyping import Int64, Shaped

from mindset.database.engine import dialect_of, reading
from mindset.database.migrations import Migration, Schema
from mindset.errors import FormatError, UsageError
from mindset.store.edit import Edit
from mindset.store.ledger import CHUNK
from mindset.store.shard_info import ShardInfo
from mindset.store.slab import STORAGE, storage_of
from mindset.store.store import Arrays, check_fields

__all__ = ["VECTORS_SCHEMA", "SqlVectors"]

_ON_SQLITE = """
CREATE TABLE vectors (
  shard INTEGER NOT NULL, field TEXT NOT NULL, row INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (shard, field, row)
) WITHOUT ROWID
"""
_ON_POSTGRESQL = """
CREATE TABLE vectors (
  shard BIGINT NOT NULL, field TEXT NOT NULL, row BIGINT NOT NULL, data BYTEA NOT NULL, key vector,
  PRIMARY KEY (shard, field, row)
) PARTITION BY LIST (shard)
"""

VECTORS_SCHEMA = Schema(
    "store vectors",
    (
        Migration(
            1,
            "vectors",
            (),
            sqlite=(_ON_SQLITE,),
            postgresql=("CREATE EXTENSION IF NOT EXISTS vector", _ON_POSTGRESQL),
        ),
    ),
)

_VECTORS = sa.table("vectors", *(sa.column(name) for name in ("shard", "field", "row", "data")))
_SEARCHED = ("float32", "float16")


class SqlVectors:
    """The vectors of one database."""

    def __init__(self, engine: sa.Engine, *, read_only: bool = False) -> None:
        """Use `engine`'s database, made or migrated unless `read_only`."""
        self.engine = engine
        if read_only:
            VECTORS_SCHEMA.check(engine)
        else:
            VECTORS_SCHEMA.migrate(engine)

    def put(self, edit: Edit, shard: ShardInfo, rows: Int64[np.ndarray, " n"], arrays: Arrays) -> None:
        """Write slots' rows in the edit's own transaction."""
        check_fields(shard, arrays)
        for field, array in arrays.items():
            what = shard.fields[field]
            storage = storage_of(array, what["dtype"])
            if array.shape != (len(rows), what["d"]):
                raise UsageError(
                    f"{field}: an array of shape {list(array.shape)} for {len(rows)} rows of {what['d']}"
                )
            stored = np.ascontiguousarray(array, dtype=storage)
            self._write(edit.connection, shard, field, rows, stored)

    def get(self, shard: ShardInfo, field: str, rows: Int64[np.ndarray, " n"]) -> Shaped[np.ndarray, "n d"]:
        """A copy of some slots' rows of one field."""
        what = shard.fields[field]
        found: dict[int, bytes] = {}
        here = sa.and_(_VECTORS.c.shard == shard.id, _VECTORS.c.field == field)
        with reading(self.engine) as connection:
            for start in range(0, len(rows), CHUNK):
                some = _VECTORS.c.row.in_(rows[start : start + CHUNK].tolist())
                query = sa.select(_VECTORS.c.row, _VECTORS.c.data).where(here, some)
                found |= {int(row): bytes(data) for row, data in connection.execute(query)}
        size = what["d"] * STORAGE[what["dtype"]].itemsize
        for row in rows.tolist():
            if len(found.get(row, b"")) != size:
                raise FormatError(
                    f"{self.engine.url.render_as_string()}: row {row} of layer {shard.layer}, {shard.name!r}, "
                    f"{field} is lost; restore a copy"
                )
        joined = b"".join(found[row] for row in rows.tolist())
        return np.frombuffer(joined, STORAGE[what["dtype"]]).reshape(len(rows), what["d"]).copy()

    def parts(self, shard: ShardInfo, field: str) -> list[Shaped[np.ndarray, "n d"]]:
        """All rows of a field up to the shard's top, zero where none was written: a copy, in one piece."""
        what = shard.fields[field]
        out = np.zeros((shard.top, what["d"]), STORAGE[what["dtype"]])
        here = sa.and_(_VECTORS.c.shard == shard.id, _VECTORS.c.field == field)
        with reading(self.engine) as connection:
            for row, data in connection.execute(sa.select(_VECTORS.c.row, _VECTORS.c.data).where(here)):
                if row < shard.top and len(data) == out[0].nbytes:
                    out[row] = np.frombuffer(data, out.dtype)
        return [out]

    def sync(self) -> None:
        """The database's commit does it."""

    def _write(
        self,
        connection: sa.Connection,
        shard: ShardInfo,
        field: str,
        rows: Int64[np.ndarray, " n"],
        array: np.ndarray,
    ) -> None:
        values = [
            {"shard": shard.id, "field": field, "row": int(row), "data": one.tobytes()}
            for row, one in zip(rows, array, strict=True)
        ]
        if not values:
            return
        if dialect_of(connection) == "sqlite":
            put = sa.text("INSERT OR REPLACE INTO vectors VALUES (:shard, :field, :row, :data)")
            connection.execute(put, values)
            return
        partition = f"vectors_{shard.id}"
        connection.exec_driver_sql(
            f"CREATE TABLE IF NOT EXISTS {partition} PARTITION OF vectors FOR VALUES IN ({shard.id})"
        )
        searched = field == "key" and shard.fields[field]["dtype"] in _SEARCHED
        for value, one in zip(values, array, strict=True):
            finite = searched and bool(np.isfinite(one).all())
            value["key"] = f"[{','.join(repr(float(x)) for x in one)}]" if finite else None
        connection.execute(
            sa.text(
                "INSERT INTO vectors (shard, field, row, data, key) "
                "VALUES (:shard, :field, :row, :data, CAST(:key AS vector)) "
                "ON CONFLICT (shard, field, row) DO UPDATE SET data = excluded.data, key = excluded.key"
            ),
            values,
        )
