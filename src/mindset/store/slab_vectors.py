"""Vectors of slots in files: the sealed slabs that came with the model, then rows that grow beside them.

Row r of a shard is row r of its sealed slab, or row r - sealed of its grown file. Sealed rows are never written to.
Knows no records: which rows mean anything is the ledger's to say.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, Shaped

from mindset.errors import UsageError
from mindset.store.edit import Edit
from mindset.store.grown import GrownRows
from mindset.store.memory_dir import MemoryDir
from mindset.store.shard_info import ShardInfo
from mindset.store.store import Arrays, check_fields

__all__ = ["SlabVectors"]


class SlabVectors:
    """The vectors of one memory folder."""

    def __init__(self, memory: MemoryDir, *, read_only: bool = False) -> None:
        self.memory, self.read_only = memory, read_only
        self._grown: dict[tuple[int, str], GrownRows] = {}

    def put(self, edit: Edit, shard: ShardInfo, rows: Int64[np.ndarray, " n"], arrays: Arrays) -> None:  # noqa: ARG002  the files need no transaction
        """Write slots' rows, which must be the caller's (`Edit.take_rows`)."""
        check_fields(shard, arrays)
        if len(rows) and rows.min() < shard.sealed:
            raise UsageError(f"row {rows.min()} of layer {shard.layer}, {shard.name!r} is sealed")
        for field, array in arrays.items():
            self._rows(shard, field).write(rows - shard.sealed, array)

    def get(self, shard: ShardInfo, field: str, rows: Int64[np.ndarray, " n"]) -> Shaped[np.ndarray, "n d"]:
        """A copy of some slots' rows of one field."""
        if not len(rows) or rows.max() < shard.sealed:
            return self._sealed(shard, field).take(rows, axis=0)
        grown = rows >= shard.sealed
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
