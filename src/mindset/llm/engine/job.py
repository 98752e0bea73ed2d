"""What an engine is asked: tokens to go on from, how, and whom to tell.

Plain data, and a ticket for whoever asked. `deliver` is called on the engine's thread, piece by piece, and last with a
`Finished` or an error; it must not block, and what it raises counts as a cancellation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from mindset.llm.engine.grammar import Guide
from mindset.llm.events import Finished, TextPiece
from mindset.llm.request import Options

__all__ = ["Deliver", "Job", "Ticket"]

Deliver = Callable[[TextPiece | Finished | Exception], None]


@dataclass(eq=False)
class Ticket:
    """A job that was taken."""

    seconds: float = 0.0
    """Of computing that were its own; a pass that several shared counts in equal parts."""
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """End it before the next step; what was said stays said. Any thread may ask, more than once."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked for its end."""
        return self._cancelled.is_set()


@dataclass(frozen=True, eq=False)
class Job:
    """A text to be continued."""

    ids: tuple[int, ...]
    """Its tokens, one at least."""
    deliver: Deliver
    options: Options = field(default_factory=Options)
    """Nothing is looked up for what is None: temperature 0, no cuts, a new seed, to the end of the context."""
    guide: Guide | None = None
    """What the answer is held to; in place of `schema` and `regex` of the options."""
    ticket: Ticket = field(default_factory=Ticket)
