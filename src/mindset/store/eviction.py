"""Which slots a full memory lets go of first, by what was read when.

Every policy gives every slot a worth; the least worth goes. Worths are arrays that a batch of reads updates at once:

* `lrfu`: combined recency and frequency (Lee et al. 2001, IEEE ToC 50:12): a read at time t counts
  2^-(lambda (now - t)). Kept as L = log2(CRF) + lambda t, whose order does not change as time passes, so that nothing
  has to decay. lambda -> 0 is LFU, lambda = 1 is LRU.
* `lru`, `lfu`, `fifo`: the last read, the number of reads, the time of birth.
* `s3fifo`: FIFO queues with a small one for newcomers and a ghost of who left it (Yang et al. 2023, SOSP).
* `influence`: what a slot added to the outputs that it was read for, in all.
* `random`: the control.

Two ways to the same choice: a `Policy` follows a trace in RAM; `worth_of` reads what `counters` kept of it (S3-FIFO:
`s3fifo`). They are tested against each other. Knows no files, no records and no clock: `now` is the step that the
caller counts. Invariant: a worth depends on the reads alone, never on how they were batched within a step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, cast, get_args, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mindset.errors import UsageError

__all__ = ["POLICIES", "Policy", "PolicyName", "least", "make_policy", "worth_of"]

PolicyName = Literal["lrfu", "lru", "lfu", "fifo", "s3fifo", "influence", "random"]
POLICIES = get_args(PolicyName)

Rows = Int64[np.ndarray, " n"]


@runtime_checkable
class Policy(Protocol):
    """What a memory asks of a policy; rows are places of slots, below the capacity."""

    def born(self, rows: Rows, now: int) -> None:
        """Slots were put there; what was known of the rows before is forgotten."""

    def read(self, rows: Rows, counts: Rows, influence: Float64[np.ndarray, " n"], now: int) -> None:
        """Slots (each once) were read so many times and added so much."""

    def inherit(self, rows: Rows, heirs: Rows) -> None:
        """Slots moved: what is known of `rows` is known of `heirs`."""

    def victims(self, alive: Bool[np.ndarray, " capacity"], count: int, now: int) -> Rows:
        """The `count` living rows that go first."""


def make_policy(name: str, capacity: int, *, decay: float = 0.01, seed: int = 0) -> Policy:
    """A policy over `capacity` rows; `decay` is lambda of `lrfu`, from 0 to 1."""
    if name not in POLICIES:
        raise UsageError(f"'{name}' is no eviction policy; allowed: {', '.join(POLICIES)}")
    if not 0 <= decay <= 1:
        raise UsageError(f"decay = {decay}; give 0 (as LFU) to 1 (as LRU)")
    if name == "s3fifo":
        return S3Fifo(capacity)
    return Worth(cast(PolicyName, name), capacity, decay, np.random.default_rng(seed))


def worth_of(name: PolicyName, counts: np.ndarray, rng: np.random.Generator) -> Float64[np.ndarray, " n"]:
    """What slots are worth by their counters (rows of `counters.COUNTS`); a tie goes to who was put there first."""
    column = {"lrfu": "log_crf", "lru": "last", "lfu": "hits", "influence": "influence"}
    if name in column:
        return np.array(counts[column[name]], np.float64)
    if name == "s3fifo":
        raise UsageError("s3fifo is queues, not a worth")
    return rng.random(len(counts)) if name == "random" else np.zeros(len(counts))


def least(worth: Float64[np.ndarray, " n"], birth: Rows, count: int) -> Int64[np.ndarray, " count"]:
    """Places of the `count` least worth, of those that tie the first by birth; not sorted."""
    if count >= len(worth):
        return np.arange(len(worth))
    if count == 0:
        return np.empty(0, np.int64)
    bound = np.partition(worth, count - 1)[count - 1]
    below, tied = np.flatnonzero(worth < bound), np.flatnonzero(worth == bound)
    missing = count - len(below)
    if missing < len(tied):
        tied = tied[np.argpartition(birth[tied], missing - 1)[:missing]] if missing else tied[:0]
    return np.concatenate([below, tied])


class Worth:
    """The policies that are one number a slot."""

    def __init__(self, name: PolicyName, capacity: int, decay: float, rng: np.random.Generator) -> None:
        self.name, self.decay, self.rng = name, decay, rng
        self.worth = np.full(capacity, -np.inf)
        """The lowest goes first; a tie goes to the row that was put there first."""
        self.birth = np.zeros(capacity, np.int64)
        self._births = 0

    def born(self, rows: Rows, now: int) -> None:
        start = {"lrfu": self.decay * now, "lru": float(now), "lfu": 1.0, "fifo": float(now)}.get(
            self.name, 0.0
        )
        self.worth[rows] = self.rng.random(len(rows)) if self.name == "random" else start
        self.birth[rows] = np.arange(self._births, self._births + len(rows))
        self._births += len(rows)

    def read(self, rows: Rows, counts: Rows, influence: Float64[np.ndarray, " n"], now: int) -> None:
        if self.name == "lrfu":
            self.worth[rows] = np.logaddexp2(self.worth[rows], self.decay * now + np.log2(counts))
        elif self.name == "lru":
            self.worth[rows] = now
        elif self.name == "lfu":
            self.worth[rows] += counts
        elif self.name == "influence":
            self.worth[rows] += influence

    def inherit(self, rows: Rows, heirs: Rows) -> None:
        self.worth[heirs], self.birth[heirs] = self.worth[rows], self.birth[rows]

    def victims(self, alive: Bool[np.ndarray, " capacity"], count: int, now: int) -> Rows:  # noqa: ARG002
        rows = np.flatnonzero(alive)
        first: Rows = rows[least(self.worth[rows], self.birth[rows], count)]
        return first


@dataclass
class _Queued:
    reads: int = 0
    """Since it was put in its queue, at most 3."""


class S3Fifo:
    """Newcomers pass a small queue; who is read twice there moves on, the others leave a ghost."""

    def __init__(self, capacity: int, small_share: float = 0.1) -> None:
        self.small: OrderedDict[int, _Queued] = OrderedDict()
        self.main: OrderedDict[int, _Queued] = OrderedDict()
        self.ghost: OrderedDict[int, None] = OrderedDict()
        self.capacity, self.small_share = capacity, small_share

    def born(self, rows: Rows, now: int) -> None:  # noqa: ARG002
        for row in rows.tolist():
            self.small.pop(row, None)
            self.main.pop(row, None)
            self.small[row] = _Queued()

    def returned(self, rows: Iterable[int]) -> None:
        """Rows of slots that were evicted lately and were put in again: they skip the small queue."""
        for row in rows:
            self.main[row] = self.small.pop(row, _Queued())

    def read(self, rows: Rows, counts: Rows, influence: Float64[np.ndarray, " n"], now: int) -> None:  # noqa: ARG002
        for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
            held = self.small.get(row) or self.main.get(row)
            if held is not None:
                held.reads = min(3, held.reads + count)

    def inherit(self, rows: Rows, heirs: Rows) -> None:
        for row, heir in zip(rows.tolist(), heirs.tolist(), strict=True):
            for queue in (self.small, self.main):
                if row in queue:
                    queue[heir] = queue.pop(row)

    def victims(self, alive: Bool[np.ndarray, " capacity"], count: int, now: int) -> Rows:  # noqa: ARG002
        for queue in (self.small, self.main):
            for row in [row for row in queue if not alive[row]]:
                del queue[row]
        gone: list[int] = []
        while len(gone) < count and (self.small or self.main):
            many = len(self.small) > self.small_share * self.capacity or not self.main
            leaver = self._from_small() if many and self.small else self._from_main()
            if leaver is not None:
                gone.append(leaver)
        return np.array(gone, np.int64)

    def _from_small(self) -> int | None:
        row, held = self.small.popitem(last=False)
        if held.reads > 1:
            self.main[row] = _Queued()
            return None
        return row

    def _from_main(self) -> int | None:
        row, held = self.main.popitem(last=False)
        if held.reads:
            self.main[row] = _Queued(held.reads - 1)
            return None
        return row
