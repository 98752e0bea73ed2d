"""Vectors of slots in files: the sealed slabs that came with the model, then rows that grow beside them.

Row r of a shard is row r of its sealed slab, or row r - sealed of its grown file. Sealed rows are never written to.
Knows no records: which rows mean anything is the ledger's to say.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64, Shaped

from mindset.errors import UsageError
from mindset.store.grown import GrownRows
from mindset.store.ledger import ShardInfo
from mindset.store.memory_dir import MemoryDir

__all__ = ["Arrays", "SlabVectors", "checksums"]

Arrays = Mapping[str, Shaped[np.ndarray, "n d"]]
"""By field: one row for each slot, as it is stored (bfloat16 as uint16 bits)."""


def checksums(arrays: Arrays) -> Int64[np.ndarray, " n"]:
    """crc32 of each slot's rows, fields in the order of their names."""
    columns = [np.ascontiguousarray(arrays[name]) for name in sorted(arrays)]
    rows = zip(*columns, strict=True)
    return np.array([_crc(row) for row in rows], np.int64)


def _crc(row: tuple[np.ndarray, ...]) -> int:
    crc = 0
    for part in row:
        crc = zlib.crc32(part.data, crc)
    return crc


class SlabVectors:
    """The vectors of one memory folder."""

    def __init__(self, memory: MemoryDir, *, read_only: bool = False) -> None:
        self.memory, self.read_only = memory, read_only
        self._grown: dict[tuple[int, str], GrownRows] = {}

    def put(self, shard: ShardInfo, rows: Int64[np.ndarray, " n"], arrays: Arrays) -> None:
        """Write slots' rows, which must be the caller's (`Edit.take_rows`)."""
        if missing := shard.fields.keys() ^ arrays.keys():
            raise UsageError(
                f"layer {shard.layer}, {shard.name!r}: slots have the fields {', '.join(shard.fields)}; "
                f"{', '.join(sorted(missing))} is missing or too many"
            )
        if len(rows) and rows.min() < shard.sealed:
            raise UsageError(f"row {rows.min()} of layer {shard.layer}, {shard.name!r} is sealed")
        for field, array in arrays.items():
            self._rows(shard, field).write(rows - shard.sealed, array)

    def get(self, shard: ShardInfo, field: str, rows: Int64[np.ndarray, " n"]) -> Shaped[np.ndarray, "n d"]:
        """A copy of some slots' rows of one field."""
        grown = rows >= shard.sealed
        if not grown.any():
            return np.asarray(self._sealed(shard, field)[rows])
        late = self._rows(shard, field).read(rows[grown] - shard.sealed)
        if grown.all():
            return late
        out = np.empty((len(rows), late.shape[1]), late.dtype)
        out[grown] = late
        out[~grown] = self._sealed(shard, field)[rows[~grown]]
        return out

    def parts(self, shard: ShardInfo, field: str) -> list[Shaped[np.ndarray, "n d"]]:
        """All rows of a field, living or not, as maps: the sealed ones, and the grown ones where there are any."""
        sealed = [self._sealed(shard, field)] if shard.sealed else []
        more = shard.top - shard.sealed
        return [*sealed, self._rows(shard, field).mapped(more)] if more else sealed

    def sync(self) -> None:
        """Make what was written survive a power cut."""
        for grown in self._grown.values():
            grown.sync()

    def _sealed(self, shard: ShardInfo, field: str) -> Shaped[np.ndarray, "n d"]:
        return self.memory.rows(shard.layer, shard.name, field)

    def _rows(self, shard: ShardInfo, field: str) -> GrownRows:
        key = (shard.id, field)
        if key not in self._grown:
            name, what = f"layer-{shard.layer:02d}.{shard.name}.{field}", shard.fields[field]
            path = self.memory.folder / f"{name}.g{self.memory.generation}.grown"
            self._grown[key] = GrownRows(
                path, name=name, dtype=what["dtype"], row_length=what["d"], read_only=self.read_only
            )
        return self._grown[key]
