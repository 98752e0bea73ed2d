"""Rows of a slab that are read one by one from its file, not through a map of it: nothing of them stays in a process.

A map brings in more than the row that is touched, and how much is the system's affair: around 64 kB, or since Linux
6.18 all of the large page that the row lies in. Knows no banks and keeps no rows.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence

from mindset.errors import FormatError
from mindset.store.slab import HEADER_BYTES, Slab, SlabHeader

__all__ = ["RowFile"]


class RowFile:
    """The file of one slab, open for as long as somebody reads from it."""

    def __init__(self, slab: Slab) -> None:
        file = slab.path.open("rb", buffering=0)
        self._close = weakref.finalize(self, file.close)
        self.descriptor = file.fileno()
        found, known = SlabHeader.unpack(os.pread(self.descriptor, HEADER_BYTES, 0), slab.path), slab.header
        if (found.name, found.dtype, found.row_length) != (known.name, known.dtype, known.row_length):
            self._close()
            raise FormatError(f"{slab.path} was replaced while it was read; load the model again")
        self.first_byte = HEADER_BYTES
        self.dtype, self.row_bytes = known.dtype, known.row_bytes
        self.n_rows = known.n_rows

    def read(self, rows: Sequence[int], out: memoryview) -> None:
        """Fill `out`, which is as long as that many rows, with them in the order given; rows in use only."""
        if rows and not 0 <= min(rows) <= max(rows) < self.n_rows:
            raise IndexError(f"rows {min(rows)} to {max(rows)} of {self.n_rows}")
        size, file = self.row_bytes, self.descriptor
        read = b"".join([os.pread(file, size, self.first_byte + row * size) for row in rows])
        if len(read) != len(out):
            raise FormatError("a row of a slab is cut off: its file became shorter")
        out[:] = read
