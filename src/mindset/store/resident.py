"""How much of a memory's mapped files is in RAM, and how it is given back to the system.

What a map reads stays in this process until something takes it out, which a system short of memory does in its own time
and at others' cost. `Resident` watches the maps that it is shown: where what is about to be read would pass its limit,
it gives back all that has come in. Nothing is lost: the pages are the files', and what is read again comes from the
system's cache.

What is counted is what the process has of all files: other maps that come in count too, which gives back too early, and
only one that goes away hides as much. Linux only: nowhere else does a process learn so cheaply what of it is resident.
Knows no banks.
"""

from __future__ import annotations

import mmap
import weakref
from pathlib import Path

import numpy as np

from mindset.errors import UsageError

__all__ = ["FAULT_BYTES", "Resident"]

FAULT_BYTES = 64 << 10
"""What the system may bring in around one row that is read."""
_STATUS = Path("/proc/self/statm")
_SHARED = 2
"""Place of the resident pages of files in it."""


class Resident:
    """Maps that share a limit. Not thread-safe: one thread reads."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes."""
        if not (_STATUS.exists() and hasattr(mmap, "MADV_DONTNEED")):
            raise UsageError("only Linux says how much of a map is in RAM; leave the limit (--ram) out here")
        self.limit = limit
        self.given_back = 0
        """How often."""
        self._maps: list[mmap.mmap] = []
        self._base = self._files()
        _all.add(self)

    def watch(self, rows: np.ndarray) -> bool:
        """Count these rows from now on; False where they lie in RAM, not in a map."""
        held: object = rows
        while isinstance(held, np.ndarray):
            held = held.base
        if not isinstance(held, mmap.mmap):
            return False
        if not any(held is one for one in self._maps):
            self._maps.append(held)
        return True

    @property
    def nbytes(self) -> int:
        """Bytes of files that have come in since everything was given back."""
        return max(0, self._files() - self._base)

    def make_room(self, nbytes: int) -> None:
        """Be told before so much is read."""
        if self.nbytes + nbytes > self.limit:
            self.give_back()

    def give_back(self) -> None:
        """Take all rows out of RAM."""
        before = self._files()
        for one in self._maps:
            one.madvise(mmap.MADV_DONTNEED)
        self.given_back += 1
        self._base = self._files()
        for other in _all:  # what went was not theirs
            if other is not self:
                other._base -= before - self._base  # noqa: SLF001

    @staticmethod
    def _files() -> int:
        return int(_STATUS.read_bytes().split()[_SHARED]) * mmap.PAGESIZE


_all: weakref.WeakSet[Resident] = weakref.WeakSet()
