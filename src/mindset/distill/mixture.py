"""Batches from several sources, each by its weight, from any point on.

Row by row, the source that is furthest behind its share gives the next one; so the shares hold over time, whatever
the batch, and nothing about them is random. Saved and loaded, a mixture gives the batches it would have given.
Knows nothing of models.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from mindset.errors import RunMismatchError, UsageError

__all__ = ["DataItem", "Mixture", "SourceUse", "Stream"]

SELF = "self"
_VERSION = 1


@runtime_checkable
class Stream(Protocol):
    """An endless source of rows that can say and resume where it stands."""

    name: str
    digest: str
    seq_len: int
    skipped: tuple[str, ...]

    @property
    def n_tokens(self) -> int | None: ...
    @property
    def tokens_seen(self) -> int: ...
    @property
    def distinct_tokens(self) -> int: ...
    @property
    def passes(self) -> float: ...
    def take(self, n_rows: int) -> Int64[np.ndarray, "rows pos"]: ...
    def state(self) -> dict[str, int]: ...
    def restore(self, state: dict[str, int]) -> None: ...


@dataclass(frozen=True)
class DataItem:
    """One thing to train on, as a person writes it: `self`, `stdlib=2`, `book.txt:60000-=0.5`."""

    source: str
    """`self` for the teacher's own samples, else what TextSource reads."""
    weight: float = 1.0
    """Its share of the rows, relative to the other items' weights."""

    def __post_init__(self) -> None:
        if not self.source:
            raise UsageError(
                "data: an empty name; give self, stdlib, a file or a folder, each with =WEIGHT or not"
            )
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise UsageError(
                f"data: {self.source}={self.weight:g}: a weight must be above 0; leave the item out instead"
            )

    @classmethod
    def parse(cls, given: str) -> DataItem:
        """Read `NAME` or `NAME=WEIGHT`; what exists under the whole name is that file."""
        name, equals, weight = given.rpartition("=")
        if not equals or Path(given).exists():
            return cls(given)
        try:
            return cls(name, float(weight))
        except ValueError as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(
                f"data: {given}: {weight!r} is no weight; write NAME=NUMBER, e.g. self=1"
            ) from None


@dataclass(frozen=True)
class SourceUse:
    """How much of a source training has read."""

    name: str
    """The source as it was given."""
    weight: float
    """Its share of all rows, from 0 to 1."""
    tokens_seen: int
    """Tokens read, repeats included."""
    distinct_tokens: int
    """Tokens read, without repeats."""
    n_tokens: int | None
    """Tokens there are; None where fresh ones are drawn without end."""
    passes: float
    """How often it was gone through."""
    skipped: tuple[str, ...] = ()
    """Files of a folder that were left out because they are no UTF-8 text."""


class Mixture:
    """Batches `[batch, seq_len]` of rows from weighted streams."""

    def __init__(self, streams: Sequence[tuple[Stream, float]], *, batch: int) -> None:
        if not streams:
            raise UsageError("data: nothing to train on; give self, stdlib, a file or a folder")
        if batch < 1:
            raise UsageError(f"batch {batch}: at least one row")
        self._streams = [stream for stream, _ in streams]
        twice = [name for name, n in Counter(stream.name for stream in self._streams).items() if n > 1]
        if twice:
            raise UsageError(
                f"data: {', '.join(twice)} given more than once; give it once with a larger weight"
            )
        if len({stream.seq_len for stream in self._streams}) > 1:
            raise UsageError("data: all sources must give windows of the same length")
        total = sum(weight for _, weight in streams)
        self._shares = np.array([weight / total for _, weight in streams])
        self._rows = np.zeros(len(streams), dtype=np.int64)
        self.batch = batch
        self.seq_len = self._streams[0].seq_len

    @property
    def tokens_seen(self) -> int:
        """Tokens in all batches given so far."""
        return int(self._rows.sum()) * self.seq_len

    def next_batch(self) -> Int64[Tensor, "batch pos"]:
        """Return the next batch; rows stand in the order in which their sources' turns came."""
        turns = self._turns()
        rows = np.empty((self.batch, self.seq_len), dtype=np.int64)
        for index, stream in enumerate(self._streams):
            chosen = turns == index
            if chosen.any():
                rows[chosen] = stream.take(int(chosen.sum()))
        self._rows += np.bincount(turns, minlength=len(self._rows))
        return torch.from_numpy(rows)

    def describe(self) -> list[SourceUse]:
        """Return what each source gave, in the order in which they were given."""
        return [
            SourceUse(
                name=stream.name,
                weight=float(share),
                tokens_seen=stream.tokens_seen,
                distinct_tokens=stream.distinct_tokens,
                n_tokens=stream.n_tokens,
                passes=stream.passes,
                skipped=stream.skipped,
            )
            for stream, share in zip(self._streams, self._shares, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return where everything stands; JSON."""
        return {
            "identity": self._identity(),
            "rows": self._rows.tolist(),
            "streams": [stream.state() for stream in self._streams],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; the data must be the same."""
        mine, saved = self._identity(), state.get("identity")
        if _without_names(saved) != _without_names(mine):
            raise RunMismatchError(
                f"the run read {_spelled(saved)}, this is {_spelled(mine)}; "
                "resume with the data, weights, batch and window that the run began with, unchanged"
            )
        for stream, stream_state in zip(self._streams, state["streams"], strict=True):
            stream.restore(stream_state)
        self._rows = np.array(state["rows"], dtype=np.int64)

    def _turns(self) -> Int64[np.ndarray, " batch"]:
        """Return which stream gives each row of the next batch."""
        given = self._rows.copy()
        turns = np.empty(self.batch, dtype=np.int64)
        for row in range(self.batch):
            behind = self._shares * (given.sum() + 1) - given
            turns[row] = behind.argmax()
            given[turns[row]] += 1
        return turns

    def _identity(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "batch": self.batch,
            "seq_len": self.seq_len,
            "sources": [
                {"name": stream.name, "digest": stream.digest, "share": float(share)}
                for stream, share in zip(self._streams, self._shares, strict=True)
            ],
        }


def _without_names(identity: Any) -> Any:
    """Drop what a file was called: a text that was moved is still the same data."""
    if not isinstance(identity, dict):
        return identity
    return identity | {"sources": [(source["digest"], source["share"]) for source in identity["sources"]]}


def _spelled(identity: Any) -> str:
    if not isinstance(identity, dict):
        return "nothing that this release knows"
    sources = ", ".join(f"{s['name']} ({s['digest'][:8]}) {s['share']:.0%}" for s in identity["sources"])
    return f"{sources} in batches of {identity['batch']} x {identity['seq_len']}"
