"""Caches of texts that are over, for texts that begin like them: a dialog goes on without being read again.

Kept up to a number of bytes; the one that was longest of no use goes first. What a kept cache gives is what reading the
same tokens gives, to rounding. Knows no model. Invariant: at most the bytes allowed are held.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from mindset.llm.engine.columns import Kept

__all__ = ["Prefixes"]

SHORTEST = 8
"""Tokens below which reading again is no slower."""


class Prefixes:
    """What is kept, the last used last."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes at most; 0 keeps nothing."""
        self.limit, self.nbytes = limit, 0
        self._held: OrderedDict[tuple[int, ...], tuple[Kept, Int64[np.ndarray, " tokens"]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def keep(self, kept: Kept) -> None:
        """Hold a cache; those of beginnings of its text are not needed any more."""
        if kept.nbytes > self.limit or len(kept.ids) < SHORTEST:
            return
        ids = np.asarray(kept.ids, dtype=np.int64)
        for other, (_, known) in list(self._held.items()):
            if _common(known, ids) == len(known):
                self._drop(other)
            elif _common(known, ids) == len(ids):
                self._held.move_to_end(other)
                return
        self._held[kept.ids] = kept, ids
        self.nbytes += kept.nbytes
        while self.nbytes > self.limit:
            self._drop(next(iter(self._held)))

    def find(self, ids: Sequence[int]) -> Kept | None:
        """The cache of the longest known beginning of a text; its last token is always left to be read."""
        wanted = np.asarray(ids[:-1], dtype=np.int64)
        best, found = SHORTEST - 1, None
        for key, (_, known) in self._held.items():
            if (common := _common(known, wanted)) > best:
                best, found = common, key
        if found is None:
            return None
        self._held.move_to_end(found)
        return self._held[found][0].first(best)

    def clear(self) -> None:
        """Hold nothing."""
        self._held.clear()
        self.nbytes = 0

    def _drop(self, key: tuple[int, ...]) -> None:
        kept, _ = self._held.pop(key)
        self.nbytes -= kept.nbytes


def _common(one: Int64[np.ndarray, " tokens"], other: Int64[np.ndarray, " others"]) -> int:
    """How many tokens two texts have in common before they part."""
    shorter = min(len(one), len(other))
    parted = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(parted[0]) if len(parted) else shorter
