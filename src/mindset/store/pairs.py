"""Pairs that keep coming back together, in bounded room: a sketch of which were seen most often.

Misra and Gries 1982 (equivalent to space-saving; merged as in Agarwal et al. 2012): of all pairs that come, the most
frequent `ROOM` are kept, and none is counted more often than it came. It is counted less often by at most
total / (ROOM + 1): at two pairs a read, as `tally` tells them, those pairs of a bank of n slots are found that come
back in a share of 2 n / ROOM of an average slot's reads. Advice, like all counters: a file that was lost or damaged is
begun anew.

    bytes 0-31    magic, version, pairs
    bytes 32-     first i8, second i8, count i8; the smaller slot is the first
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from mindset.atomic_file import replacing

__all__ = ["ROOM", "Pairs"]

ROOM = 1 << 15
_HEADER = struct.Struct("<8sIQ12x")
_MAGIC, _VERSION = b"MINDPAIR", 1


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs and how often each came at least."""

    pairs: Int64[np.ndarray, "n 2"]
    counts: Int64[np.ndarray, " n"]

    @classmethod
    def none(cls) -> Pairs:
        """No pair yet."""
        return cls(np.empty((0, 2), np.int64), np.empty(0, np.int64))

    @classmethod
    def of(cls, first: Int64[np.ndarray, " seen"], second: Int64[np.ndarray, " seen"]) -> Pairs:
        """From one entry for every time a pair came."""
        low, high = np.minimum(first, second), np.maximum(first, second)
        return _summed(low << 32 | high, np.ones(len(low), np.int64), len(low))

    def plus(self, other: Pairs, room: int = ROOM) -> Pairs:
        """Both together, again in bounded room."""
        keys = np.concatenate([self.pairs, other.pairs])
        return _summed(keys[:, 0] << 32 | keys[:, 1], np.concatenate([self.counts, other.counts]), room)

    def renamed(self, names: Int64[np.ndarray, " places"]) -> Pairs:
        """Pairs of places as pairs of what is there; 0 is nothing, and a pair with it is left out."""
        named = np.sort(names[self.pairs], axis=1)
        there = named[:, 0] > 0
        return Pairs(named[there], self.counts[there])

    @classmethod
    def load(cls, path: Path) -> Pairs:
        """What the file holds, nothing where it is of no use."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return cls.none()
        if len(content) < _HEADER.size:
            return cls.none()
        magic, version, count = _HEADER.unpack_from(content)
        if (magic, version) != (_MAGIC, _VERSION) or len(content) != _HEADER.size + 24 * count:
            return cls.none()
        table = np.frombuffer(content, "<i8", offset=_HEADER.size).reshape(-1, 3).astype(np.int64)
        return cls(table[:, :2].copy(), table[:, 2].copy())

    def save(self, path: Path) -> None:
        """Put them in place of what the file holds."""
        table = np.concatenate([self.pairs, self.counts[:, None]], axis=1).astype("<i8")
        with replacing(path) as file:
            file.write(_HEADER.pack(_MAGIC, _VERSION, len(table)) + table.tobytes())


def _summed(keys: Int64[np.ndarray, " n"], counts: Int64[np.ndarray, " n"], room: int) -> Pairs:
    unique, place = np.unique(keys, return_inverse=True)
    summed = np.bincount(place, counts, len(unique)).astype(np.int64)
    if len(unique) > room:
        summed -= np.partition(summed, len(summed) - room - 1)[len(summed) - room - 1]
        unique, summed = unique[summed > 0], summed[summed > 0]
    return Pairs(np.stack([unique >> 32, unique & 0xFFFFFFFF], axis=1), summed)
