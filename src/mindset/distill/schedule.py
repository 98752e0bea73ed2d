"""What changes as a stage goes on: the learning rate and k, as functions of progress in [0, 1].

Progress is steps done over steps planned or, for a run limited by minutes, time spent over time given; the time spent
is part of a checkpoint, so that a resumed run goes on where it was.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

__all__ = ["Clock", "k_at", "lr_at"]


def lr_at(progress: float, warmup: float, floor: float = 0.02) -> float:
    """The share of the peak learning rate: linear warm-up, then half a cosine down to `floor`."""
    if progress < warmup:
        return max(progress / warmup, floor)
    rest = min(1.0, (progress - warmup) / max(1e-9, 1 - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * rest))


def k_at(progress: float, anneal: float, n_slots: int, target: int | None) -> int | None:
    """How many slots to read: k falls geometrically from all to the target over the first `anneal` of a stage."""
    if target is None or progress >= anneal:
        return target
    share = progress / anneal
    falling = round(n_slots * math.exp(share * math.log(target / n_slots)))
    return min(n_slots, max(target, falling))


@dataclass
class Clock:
    """How far a stage is."""

    steps: int | None
    """Steps planned; None: limited by `seconds`."""
    seconds: float | None
    """Seconds given; None: limited by `steps`."""
    done: int = 0
    """Steps taken."""
    spent: float = 0.0
    """Seconds spent in steps before the current run of the program."""
    _started: float | None = None

    def start(self) -> None:
        """Count time from now."""
        self._started = time.monotonic()

    def stop(self) -> None:
        """Count no more time."""
        self.spent, self._started = self.elapsed, None

    @property
    def elapsed(self) -> float:
        """Seconds spent so far."""
        return self.spent + (0.0 if self._started is None else time.monotonic() - self._started)

    @property
    def progress(self) -> float:
        """Share of the stage that is done, at most 1."""
        if self.steps is not None:
            return min(1.0, self.done / self.steps)
        return min(1.0, self.elapsed / (self.seconds or 1.0))

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"done": self.done, "spent": self.elapsed}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint."""
        self.done, self.spent = int(state["done"]), float(state["spent"])
