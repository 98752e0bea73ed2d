"""How often and how late each row of a shard was read: a mapped array, not SQL.

Updating thousands of counters a token in SQL would cost a hundred times as much. The map is shared: what was counted
survives a kill -9 as the system's own pages, readers see it at once, and it is only ever advice, so that a file that
was lost or damaged is begun anew. Rows that a slot leaves are set back before the next one gets them.

    bytes 0-63     magic, version, rows
    bytes 64-      rows of (hits u4, last u4, log2 of the decayed count f8, influence f8)
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from mindset.errors import ReadOnlyError

__all__ = ["COUNTS", "Counters", "Reads"]

COUNTS = np.dtype([("hits", "<u4"), ("last", "<u4"), ("log_crf", "<f8"), ("influence", "<f8")])
"""One row; `log_crf` is what `eviction` calls L."""

_HEADER = struct.Struct("<8sI52x")
_MAGIC = b"MINDCNTS"
_VERSION = 1
_STEP = 1 << 14
"""Rows by which a file grows at least."""


@dataclass(frozen=True, eq=False)
class Reads:
    """Reads of one step, each row once."""

    rows: Int64[np.ndarray, " n"]
    counts: Int64[np.ndarray, " n"]
    influence: Float64[np.ndarray, " n"]
    """Sum of what each row added, over its reads."""

    @classmethod
    def of(cls, rows: Int64[np.ndarray, " reads"], influence: Float64[np.ndarray, " reads"]) -> Reads:
        """From one entry for every read."""
        unique, place, counts = np.unique(rows, return_inverse=True, return_counts=True)
        return cls(
            unique, counts.astype(np.int64), np.bincount(place, influence, len(unique)).astype(np.float64)
        )


class Counters:
    """The counters of one shard."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open `path`; where there is none, or none that can be used, all counters are zero."""
        self.path, self.read_only = Path(path), read_only
        self._map: np.ndarray | None = None

    def add(self, reads: Reads, step: int, decay: float) -> None:
        """Count reads at `step`; `decay` is the lambda that `log_crf` goes by, the same one always."""
        if self.read_only:
            raise ReadOnlyError(f"{self.path} was opened for reading")
        if not len(reads.rows):
            return
        table = self._writable(int(reads.rows.max()) + 1)
        some = table[reads.rows]
        some["hits"] += reads.counts.astype(np.uint32)
        some["last"] = step
        some["log_crf"] = np.logaddexp2(some["log_crf"], decay * step + np.log2(reads.counts))
        some["influence"] += reads.influence
        table[reads.rows] = some

    def reset(self, rows: Int64[np.ndarray, " n"], step: int = 0, decay: float = 0.0) -> None:
        """New slots are in these rows: nothing was read, and each has the trial that two reads now would give."""
        if not len(rows):
            return
        table = self._writable(int(rows.max()) + 1)
        table[rows] = np.array((0, 0, decay * step + 1.0, 0.0), COUNTS)

    def inherit(self, rows: Int64[np.ndarray, " n"], heirs: Int64[np.ndarray, " n"]) -> None:
        """Slots moved to other rows and keep what was counted."""
        if len(rows):
            table = self._writable(int(max(rows.max(), heirs.max())) + 1)
            table[heirs] = table[rows]

    def read(self, count: int) -> np.ndarray:
        """A copy of the first `count` rows."""
        out = np.zeros(count, COUNTS)
        out["log_crf"] = -np.inf
        there = self._mapped("r")
        if there is not None:
            some = min(count, len(there))
            out[:some] = there[:some]
        return out

    def _writable(self, count: int) -> np.ndarray:
        table = self._map
        if table is None or len(table) < count:
            self._make_room(count)
            table = self._map = self._mapped("r+")
        if table is None:
            raise RuntimeError(f"{self.path} was made and cannot be opened")
        return table

    def _make_room(self, count: int) -> None:
        there = self._mapped("r")
        have = 0 if there is None else len(there)
        if have >= count:
            return
        more = np.zeros(max(count - have, have, _STEP), COUNTS)
        more["log_crf"] = -np.inf
        with self.path.open("r+b" if have else "wb") as file:
            if not have:
                file.write(_HEADER.pack(_MAGIC, _VERSION))
            file.truncate(_HEADER.size + have * COUNTS.itemsize)
            file.seek(0, os.SEEK_END)
            file.write(more.tobytes())

    def _mapped(self, mode: str) -> np.ndarray | None:
        try:
            with self.path.open("rb") as file:
                header = file.read(_HEADER.size)
            rows = (self.path.stat().st_size - _HEADER.size) // COUNTS.itemsize
            if len(header) < _HEADER.size or _HEADER.unpack(header) != (_MAGIC, _VERSION) or rows < 1:
                return None
        except FileNotFoundError:
            return None
        return np.memmap(self.path, COUNTS, mode, _HEADER.size, (rows,))  # type: ignore[call-overload,no-any-return]
