"""A row of the table of endpoints: the path, what is asked there, and who answers.

The one table of them (table.py) makes the routes, checks the bodies and writes /openapi.json. Knows no endpoint.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mindset.llm.serve.body import Body
from mindset.llm.serve.desk import Desk
from mindset.llm.serve.sse import Events, Reply

__all__ = ["Asked", "Endpoint", "Handle"]


@dataclass(frozen=True)
class Asked:
    """A request as an endpoint sees it."""

    desk: Desk
    body: Any = None
    """What the endpoint's kind of body was made of; None where it has none."""
    path: Mapping[str, str] = field(default_factory=dict)
    """The named parts of the path."""
    accept: str = ""
    """The media types that are wanted."""
    way: str = ""
    """The endpoint, for counting."""
    seconds: float | None = None
    """How long whoever asked waits; None: nobody said."""
    at: float = field(default_factory=time.time)
    """When it came."""

    @property
    def timeout(self) -> float | None:
        """How long the answer may take."""
        given = [one for one in (self.seconds, self.desk.limits.answer_seconds) if one is not None]
        return min(given, default=None)


Handle = Callable[[Asked], Awaitable[Reply | Events]]


@dataclass(frozen=True)
class Endpoint:
    """One path and method."""

    method: Literal["GET", "POST"]
    path: str
    summary: str
    handle: Handle
    body: type[Body] | None = None
    """None: nothing is read."""
    reply: str = "application/json"
    """Media type of what comes back."""
    streams: bool = False
    """Whether `stream: true` gives server-sent events."""
    open: bool = False
    """Whether no token is asked for."""
    place: bool = True
    """Whether a model is asked, which takes a place."""
