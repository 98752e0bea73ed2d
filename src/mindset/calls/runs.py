"""A run: the calls that were made for one purpose, under a name by which they are found, counted and replayed.

    with run("experiment 3"):
        ...                      # every call in here, in tasks begun in here too

A call made outside any run belongs to the run of its process. A run is a row of the log only once it has a call.
Does not know the log. Threads begun inside a run are outside of it, unless they get its context (`asyncio.to_thread`
gives it).
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from mindset.calls.schema import now
from mindset.errors import UsageError

__all__ = ["REPLAY", "Run", "current", "replayed", "run"]

REPLAY = "MINDSET_REPLAY"
"""Environment variable: id or name of a run that answers every call of this process in the models' place."""


def replayed() -> str | None:
    """The run that answers in the models' place; None: the models answer."""
    return os.environ.get(REPLAY) or None


def _new_id() -> str:
    stamp = now()[:19].replace("-", "").replace(":", "").replace("T", "-")
    return f"{stamp}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class Run:
    """One run."""

    name: str
    id: str = field(default_factory=_new_id)
    """The moment it began and some letters: never given twice, and in order."""
    began: str = field(default_factory=now)
    replays: str | None = field(default_factory=replayed)
    """The run that answers in the models' place."""

    def __post_init__(self) -> None:
        """Refuse a name that nobody can type."""
        if not self.name.strip() or not self.name.isprintable():
            raise UsageError(f"{self.name!r} is no name for a run: give some printable text")


_current: ContextVar[Run | None] = ContextVar("mindset_run", default=None)


@contextmanager
def run(name: str) -> Iterator[Run]:
    """Calls inside the block belong to a new run of this name; runs do not nest: the innermost counts."""
    begun = Run(name)
    token = _current.set(begun)
    try:
        yield begun
    finally:
        _current.reset(token)


def current() -> Run:
    """The run that a call made now belongs to."""
    return _current.get() or _of_process()


@cache
def _of_process() -> Run:
    script = Path(sys.argv[0]).name if sys.argv and sys.argv[0] not in ("", "-c") else "interactive"
    return Run("".join(letter for letter in f"python: {script}" if letter.isprintable()))
