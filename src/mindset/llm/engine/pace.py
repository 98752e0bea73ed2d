"""How fast texts are finished, so that who is refused can be told when to come again."""

from __future__ import annotations

import time
from collections import deque

__all__ = ["Pace"]

_LONGEST, _SHORTEST, _UNKNOWN = 60.0, 0.5, 2.0


class Pace:
    """The times at which the last texts were over."""

    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=32)

    def ended(self) -> None:
        """One more is over."""
        self._ends.append(time.monotonic())

    def wait(self, waiting: int) -> float:
        """Seconds in which a place is likely to be free, when so many wait."""
        if len(self._ends) < 2:
            return _UNKNOWN
        each = (time.monotonic() - self._ends[0]) / len(self._ends)
        return min(_LONGEST, max(_SHORTEST, each * max(1, waiting // 4)))
