"""How often and how late each row of a shard was read: a mapped array, not SQL.

Updating thousands of counters a token in SQL would cost a hundred times as much. The map is shared: what was counted
survives a kill -9 as the system's own pages, readers see it at once, and it is only ever advice, so that a file that
was lost or damaged is begun anew. Rows that a slot leaves are set back before the next one gets them.

    bytes 0-63     magic, version, step (tokens counted so far), decay (the lambda of log2 CRF)
    bytes 64-      rows of (hits u4, last u4, born u4, log2 of the decayed count f8, influence f8), 32 bytes each

A step is a token that the model was given while reads were counted.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from mindset.atomic_file import naming_a_full_disk
from mindset.errors import ReadOnlyError, UsageError

__all__ = ["COUNTS", "Counters", "Reads"]

COUNTS = np.dtype(
    {
        "names": ["hits", "last", "born", "log_crf", "influence"],
        "formats": ["<u4", "<u4", "<u4", "<f8", "<f8"],
        "offsets": [0, 4, 8, 16, 24],
        "itemsize": 32,
    }
)
"""One row; `log_crf` is what `eviction` calls L, `last` is the birth of a slot that was never read."""

_HEADER = struct.Struct("<8sI4xQd32x")
_STAMP = struct.Struct("<Qd")
_STAMP_AT = 16
_MAGIC = b"MINDCNTS"
_VERSION = 2
_STEP = 1 << 11
"""Rows by which a file grows at least."""
_MOST = np.iinfo(np.uint32).max


@dataclass(frozen=True, eq=False)
class Reads:
    """Reads of some steps, each row once."""

    rows: Int64[np.ndarray, " n"]
    counts: Int64[np.ndarray, " n"]
    influence: Float64[np.ndarray, " n"]
    """Sum of what each row added, over its reads."""
    last: Int64[np.ndarray, " n"]
    """Step of its last read."""
    log_crf: Float64[np.ndarray, " n"]
    """log2 of the sum of 2^(lambda t) over its reads, t their steps."""

    @classmethod
    def of(
        cls,
        rows: Int64[np.ndarray, " reads"],
        influence: Float64[np.ndarray, " reads"],
        step: int,
        decay: float,
    ) -> Reads:
        """From one entry for every read of one step."""
        unique, place, counts = np.unique(rows, return_inverse=True, return_counts=True)
        added = np.bincount(place, influence, len(unique)).astype(np.float64)
        last = np.full(len(unique), step, np.int64)
        return cls(unique, counts.astype(np.int64), added, last, decay * step + np.log2(counts))


class Counters:
    """The counters of one shard."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open `path`; where there is none, or none that can be used, all counters are zero."""
        self.path, self.read_only = Path(path), read_only
        self._map: np.ndarray | None = None

    @property
    def stamp(self) -> tuple[int, float] | None:
        """Tokens counted so far, and lambda; None where nothing was counted yet."""
        try:
            with self.path.open("rb") as file:
                header = file.read(_HEADER.size)
        except FileNotFoundError:
            return None
        if len(header) < _HEADER.size or _HEADER.unpack(header)[:2] != (_MAGIC, _VERSION):
            return None
        _, _, step, decay = _HEADER.unpack(header)
        return int(step), float(decay)

    # ---- counting ---------------------------------------------------------------------------------------------

    def add(self, reads: Reads, step: int, decay: float) -> None:
        """Count reads up to `step`; `decay` is the lambda that `log_crf` goes by, the same one always."""
        stamp = self.stamp
        if stamp is not None and stamp[1] != decay:
            raise UsageError(f"{self.path.name} counts with lambda {stamp[1]:g}, not {decay:g}")
        table = self._writable(int(reads.rows.max(initial=0)) + 1, decay)
        some = table.take(reads.rows)
        some["hits"] = np.minimum(some["hits"] + reads.counts, _MOST)
        some["last"] = np.maximum(some["last"], reads.last)
        some["log_crf"] = np.logaddexp2(some["log_crf"], reads.log_crf)
        some["influence"] += reads.influence
        _plain(table)[reads.rows] = _plain(some)
        with self.path.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), _STAMP.pack(step, decay), _STAMP_AT)

    def reset(self, rows: Int64[np.ndarray, " n"], step: int = 0, decay: float = 0.0) -> None:
        """New slots are in these rows: nothing was read, and each has the trial that two reads now would give."""
        if len(rows):
            table = self._writable(int(rows.max()) + 1, decay)
            table[rows] = np.array((0, step, step, decay * step + 1.0, 0.0), COUNTS)

    def inherit(self, rows: Int64[np.ndarray, " n"], heirs: Int64[np.ndarray, " n"]) -> None:
        """Slots moved to other rows and keep what was counted."""
        stamp = self.stamp
        if len(rows) and stamp is not None:
            found = self.read(int(rows.max()) + 1)[rows]
            self._writable(int(heirs.max()) + 1, stamp[1])[heirs] = found

    def unite(self, rows: Int64[np.ndarray, " n"], heirs: Int64[np.ndarray, " n"]) -> None:
        """Slot of row i went into the one of row `heirs[i]`, which has the sum of all that did."""
        stamp = self.stamp
        if not len(rows) or stamp is None:
            return
        found = self.read(int(rows.max()) + 1)[rows]
        unique, place = np.unique(heirs, return_inverse=True)
        whole = np.zeros(len(unique), COUNTS)
        hits, crf = np.zeros(len(unique), np.int64), np.full(len(unique), -np.inf)
        whole["born"] = _MOST
        np.add.at(hits, place, found["hits"].astype(np.int64))
        np.add.at(whole["influence"], place, found["influence"])
        np.maximum.at(whole["last"], place, found["last"])
        np.minimum.at(whole["born"], place, found["born"])
        np.logaddexp2.at(crf, place, found["log_crf"])
        whole["hits"], whole["log_crf"] = np.minimum(hits, _MOST), crf
        self._writable(int(unique.max()) + 1, stamp[1])[unique] = whole

    # ---- looking ----------------------------------------------------------------------------------------------

    def read(self, count: int) -> np.ndarray:
        """A copy of the first `count` rows."""
        out = np.zeros(count, COUNTS)
        out["log_crf"] = -np.inf
        there = self._mapped("r")
        if there is not None:
            some = min(count, len(there))
            out[:some] = there[:some]
        return out

    # ---- inside -----------------------------------------------------------------------------------------------

    def _writable(self, count: int, decay: float) -> np.ndarray:
        if self.read_only:
            raise ReadOnlyError(f"{self.path} was opened for reading")
        table = self._map
        if table is None or len(table) < count:
            self._make_room(count, decay)
            table = self._map = self._mapped("r+")
        if table is None:
            raise RuntimeError(f"{self.path} was made and cannot be opened")
        return table

    def _make_room(self, count: int, decay: float) -> None:
        there = self._mapped("r")
        have = 0 if there is None else len(there)
        if have >= count:
            return
        more = np.zeros(max(count - have, have, _STEP), COUNTS)
        more["log_crf"] = -np.inf
        with naming_a_full_disk(self.path), self.path.open("r+b" if have else "wb") as file:
            if not have:
                file.write(_HEADER.pack(_MAGIC, _VERSION, 0, decay))
            file.truncate(_HEADER.size + have * COUNTS.itemsize)
            file.seek(0, os.SEEK_END)
            file.write(more.tobytes())

    def _mapped(self, mode: str) -> np.ndarray | None:
        if self.stamp is None:
            return None
        rows = (self.path.stat().st_size - _HEADER.size) // COUNTS.itemsize
        if rows < 1:
            return None
        mapped = np.memmap(self.path, COUNTS, mode, _HEADER.size, (rows,))  # type: ignore[call-overload]
        return np.asarray(mapped)  # each index into a memmap would make another


def _plain(table: np.ndarray) -> Float64[np.ndarray, "n 4"]:
    """The same bytes as rows of numbers: numpy puts structures one field at a time, ten times as slowly."""
    return table.view(np.float64).reshape(-1, COUNTS.itemsize // 8)
