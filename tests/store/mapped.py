"""Whether an array is a file's bytes or its own."""

from __future__ import annotations

import mmap

import numpy as np


def is_mapped(rows: np.ndarray) -> bool:
    """Whether the bytes are those of a file."""
    held: object = rows
    while isinstance(held, np.ndarray):
        held = held.base
    return isinstance(held, mmap.mmap)
