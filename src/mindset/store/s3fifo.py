"""S3-FIFO over counters: the queues of a shard's head as arrays, turned only when something is evicted.

Yang et al. 2023 (SOSP) move slots between queues only when they evict, and count reads in between up to 3. So it is
enough to keep, between two evictions, the main queue in its order with each slot's reads at that time; all others are
newcomers, in the order of their ids. What is missing is the ghost queue: a slot that was evicted and learned again is a
new slot here, with another id; and one that an undo brings back is a newcomer again. In a memory where S3-FIFO never
evicted, all slots are newcomers: then it lets go first of those that were read once or never, oldest first.

    bytes 0-31    magic, version, slots
    bytes 32-     slot i8, reads that it had left u4, its hits then u4; those next to go first

Invariant: victims are those of `eviction.S3Fifo` on the same trace (tested). A file of no use is begun anew.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from mindset.atomic_file import replacing

__all__ = ["MainQueue", "evict"]

SMALL_SHARE = 0.1
_READS = 3
"""Most that is counted of the reads between two turns."""
_HEADER = struct.Struct("<8sIQ12x")
_MAGIC, _VERSION = b"MINDS3FQ", 1
_ENTRY = np.dtype([("slot", "<i8"), ("left", "<u4"), ("hits", "<u4")])

Slots = Int64[np.ndarray, " n"]
Gone = Int64[np.ndarray, " gone"]
Kept = Int64[np.ndarray, " kept"]


@dataclass(frozen=True, eq=False)
class MainQueue:
    """The main queue, its head first, as it was left."""

    slots: Slots
    left: Slots
    """Reads that each had left, 0 to 3."""
    hits: Slots
    """Its hits at that time."""

    @classmethod
    def load(cls, path: Path) -> MainQueue:
        """What the file holds; an empty queue where it is of no use."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        table = np.empty(0, _ENTRY)
        if len(content) >= _HEADER.size:
            magic, version, count = _HEADER.unpack_from(content)
            if (magic, version) == (_MAGIC, _VERSION) and len(content) == _HEADER.size + 16 * count:
                table = np.frombuffer(content, _ENTRY, offset=_HEADER.size)
        return cls(*(table[name].astype(np.int64) for name in ("slot", "left", "hits")))

    def save(self, path: Path) -> None:
        """Put it in place of what the file holds."""
        table = np.empty(len(self.slots), _ENTRY)
        table["slot"], table["left"], table["hits"] = self.slots, self.left, self.hits
        with replacing(path) as file:
            file.write(_HEADER.pack(_MAGIC, _VERSION, len(table)) + table.tobytes())

    def of(self, slots: Slots) -> MainQueue:
        """Those of these slots, in its order."""
        some = np.isin(self.slots, slots)
        return MainQueue(self.slots[some], self.left[some], self.hits[some])


def evict(queue: MainQueue, slots: Slots, hits: Slots, count: int, capacity: int) -> tuple[Gone, MainQueue]:
    """Which `count` of the living `slots` go first, in that order, and the main queue after that.

    `hits` are theirs; the small queue's share is of `capacity`.
    """
    order = np.argsort(slots)
    slots, hits = slots[order], hits[order]
    kept = queue.of(slots)
    now = hits[np.searchsorted(slots, kept.slots)]
    left = np.minimum(kept.left + np.maximum(now - kept.hits, 0), _READS)
    newcomers = ~np.isin(slots, kept.slots)
    small, reads = slots[newcomers], hits[newcomers]
    # Newcomers leave while they have more than their share: out, or into the main queue if they were read again.
    passing = max(0, len(small) - int(SMALL_SHARE * capacity))
    out = np.flatnonzero(reads[:passing] <= 1)
    if len(out) >= count:
        passing = int(out[count - 1]) + 1 if count else 0
        out = out[:count]
    on = np.setdiff1d(np.arange(passing), out, assume_unique=True)
    main, left = np.concatenate([kept.slots, small[on]]), np.concatenate([left, np.zeros(len(on), np.int64)])
    gone = [small[out]]
    while len(main) and (missing := count - sum(map(len, gone))) > 0:
        main, left, out = _turn(main, left, missing)
        gone.append(out)
    gone.append(small[passing:][: count - sum(map(len, gone))])  # nobody else is left
    places = np.searchsorted(slots, main)
    return np.concatenate(gone), MainQueue(main, left, hits[places])


def _turn(main: Slots, left: Slots, count: int) -> tuple[Kept, Kept, Gone]:
    """Go round the main queue once, until `count` are out: who was read goes to its end with one read less."""
    out = np.flatnonzero(left == 0)[:count]
    passed = int(out[-1]) + 1 if len(out) == count else len(main)
    again = np.flatnonzero(left[:passed] > 0)
    turned = np.concatenate([main[passed:], main[again]])
    return turned, np.concatenate([left[passed:], left[again] - 1]), main[out]
