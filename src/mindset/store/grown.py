"""A file of rows that grows: where the vectors of edited and inserted slots lie.

    bytes 0-4095   header: magic, version, dtype, row length, name, own checksum
    bytes 4096-    rows, little-endian, as many as the file has room for

Any row may be written at any time by the one writer: a row that no record names means nothing, so a torn one does no
harm, and the checksums of those that mean something are in their records. Rows are written through the file, not
through a map: readers' maps see them, and a full disk is an error, not a signal. The file grows in large steps, with
holes that take no space until they are written.
"""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped

from mindset.atomic_file import naming_a_full_disk, replacing
from mindset.errors import FormatError, ReadOnlyError, UsageError
from mindset.store.slab import HEADER_BYTES, STORAGE, storage_of

__all__ = ["GrownRows"]

_MAGIC = b"MINDGROW"
_VERSION = 1
_FIELDS = struct.Struct("<8sI16sQ256s")  # magic, version, dtype, row length, name
_OWN_CHECKSUM = struct.Struct("<I")
_STEP_BYTES = 1 << 20
_LARGEST_STEP_BYTES = 64 << 20
_REMEDY = "restore it from a copy, or undo what was learned"


class GrownRows:
    """An open file of rows."""

    def __init__(
        self, path: Path, *, name: str, dtype: str, row_length: int, read_only: bool = False
    ) -> None:
        """Open `path`; it is made where there is none, at the first writing."""
        self.path, self.name, self.dtype, self.row_length = Path(path), name, dtype, row_length
        self.read_only = read_only
        self._map: Shaped[np.ndarray, "capacity row_length"] | None = None
        if self.path.exists():
            self._check()

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.row_length * STORAGE[self.dtype].itemsize

    @property
    def capacity(self) -> int:
        """Rows the file has room for."""
        return max(0, self.path.stat().st_size - HEADER_BYTES) // self.row_bytes if self.path.exists() else 0

    def write(self, rows: Int64[np.ndarray, " n"], array: Shaped[np.ndarray, "n row_length"]) -> None:
        """Write row i of `array` to row `rows[i]`."""
        if self.read_only:
            raise ReadOnlyError(f"{self.path} was opened for reading")
        storage = storage_of(array, self.dtype)
        if array.shape != (len(rows), self.row_length):
            raise UsageError(
                f"{self.name}: an array of shape {list(array.shape)} for {len(rows)} rows of {self.row_length}"
            )
        if not len(rows):
            return
        with naming_a_full_disk(self.path):
            self._make_room(int(rows.max()) + 1)
            with self.path.open("r+b", buffering=0) as file:
                for first, run in _runs(rows, np.ascontiguousarray(array, dtype=storage)):
                    _write_at(file.fileno(), run, HEADER_BYTES + first * self.row_bytes)

    def read(self, rows: Int64[np.ndarray, " n"]) -> Shaped[np.ndarray, "n row_length"]:
        """A copy of some rows."""
        return np.asarray(self.mapped(int(rows.max()) + 1 if len(rows) else 0)[rows])

    def mapped(self, count: int) -> Shaped[np.ndarray, "count row_length"]:
        """The first `count` rows: a read-only map, no copy."""
        if count == 0:
            return np.empty((0, self.row_length), STORAGE[self.dtype])
        mapped = self._map  # a daemon's threads read at once: whoever maps anew returns its own map
        if mapped is None or len(mapped) < count:
            capacity = self.capacity
            if capacity < count:
                raise FormatError(f"{self.path}: has {capacity} rows, records name {count}; {_REMEDY}")
            shape = (capacity, self.row_length)
            mapped = self._map = np.memmap(self.path, STORAGE[self.dtype], "r", HEADER_BYTES, shape)
        return mapped[:count]

    def sync(self) -> None:
        """Make what was written survive a power cut."""
        if self.path.exists() and not self.read_only:
            descriptor = os.open(self.path, os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _make_room(self, count: int) -> None:
        if not self.path.exists():
            with replacing(self.path) as file:
                file.write(self._header())
        if self.capacity >= count:
            return
        size = self.path.stat().st_size - HEADER_BYTES
        step = min(max(size, _STEP_BYTES), _LARGEST_STEP_BYTES)
        wanted = max(count * self.row_bytes, size + step)
        os.truncate(self.path, HEADER_BYTES + wanted)

    def _header(self) -> bytes:
        page = bytearray(HEADER_BYTES)
        _FIELDS.pack_into(page, 0, _MAGIC, _VERSION, self.dtype.encode(), self.row_length, self.name.encode())
        _OWN_CHECKSUM.pack_into(page, HEADER_BYTES - 4, zlib.crc32(page[: HEADER_BYTES - 4]))
        return bytes(page)

    def _check(self) -> None:
        with self.path.open("rb") as file:
            page = file.read(HEADER_BYTES)
        if page[:8] != _MAGIC:
            raise FormatError(f"{self.path}: is no file of rows; {_REMEDY}")
        if (
            len(page) < HEADER_BYTES
            or zlib.crc32(page[:-4]) != _OWN_CHECKSUM.unpack_from(page, HEADER_BYTES - 4)[0]
        ):
            raise FormatError(f"{self.path}: its header is damaged; {_REMEDY}")
        _, version, dtype, row_length, name = _FIELDS.unpack_from(page)
        if version != _VERSION:
            raise FormatError(f"{self.path}: has version {version}, this release reads {_VERSION}")
        found = (name.rstrip(b"\0").decode(), dtype.rstrip(b"\0").decode(), row_length)
        if found != (self.name, self.dtype, self.row_length):
            raise FormatError(
                f"{self.path}: holds {found[0]!r} of {found[2]} x {found[1]} in place of {self.name!r} of "
                f"{self.row_length} x {self.dtype}; {_REMEDY}"
            )


def _runs(rows: Int64[np.ndarray, " n"], array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """First row and contents of each run of rows that lie side by side."""
    steps = np.diff(rows)
    if (steps < 0).any():
        order = np.argsort(rows, kind="stable")
        rows, array = rows[order], array[order]
        steps = np.diff(rows)
    starts = [0, *(np.flatnonzero(steps != 1) + 1).tolist(), len(rows)]
    for start, stop in itertools.pairwise(starts):
        yield int(rows[start]), array[start:stop]


def _write_at(descriptor: int, array: np.ndarray, offset: int) -> None:
    """All of it: the system may write less than it is asked to."""
    left = array.data.cast("B")
    while left:
        done = os.pwrite(descriptor, left, offset)
        left, offset = left[done:], offset + done
