"""The threads that torch multiplies with, lent to compiled loops.

Between two products torch's OpenMP threads spin for a while, ready for the next one: threads that a loop brought itself
would have to wait for a core. So the loops run on those very threads, through the entry points that gcc emits for
`#pragma omp parallel` (libgomp's ABI, https://gcc.gnu.org/onlinedocs/libgomp/). Only where torch came with its libgomp,
which is a wheel on Linux; elsewhere `team` is None and loops run on the one thread that calls them.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

__all__ = ["Team", "team"]


_CALLED = ("omp_get_thread_num", "omp_get_num_threads", "GOMP_barrier")


@dataclass(frozen=True)
class Team:
    """Entry points of the OpenMP library that torch runs on."""

    parallel: Any
    """`GOMP_parallel(function, argument, threads, flags)`: returns when all threads have."""
    thread_number: int
    """Address of `omp_get_thread_num`."""
    thread_count: int
    """Address of `omp_get_num_threads`: OpenMP may give fewer than were asked for (OMP_THREAD_LIMIT, OMP_DYNAMIC)."""
    barrier: int
    """Address of `GOMP_barrier`."""

    def run(self, function: int, argument: int, threads: int) -> None:
        """Call the C function at an address on up to `threads` threads, with the same argument."""
        self.parallel(function, argument, threads, 0)


@cache
def team() -> Team | None:
    """Torch's threads, where they can be had."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        try:
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOW | os.RTLD_NOLOAD)
            parallel = library.GOMP_parallel
            numbers = [_address(library, name) for name in _CALLED]
        except (OSError, AttributeError):
            continue
        parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        return Team(parallel, *numbers)
    return None


def _address(library: ctypes.CDLL, name: str) -> int:
    found = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    if found is None:
        raise AttributeError(name)
    return found
