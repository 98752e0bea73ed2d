"""What a server grants those who ask it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mindset.errors import UsageError

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Sizes and times; what is beyond them is refused in one sentence."""

    places: int = 64
    """Requests that are answered or wait at the same time; the next one is told to come again."""
    body_bytes: int = 32 << 20
    """The largest request."""
    image_bytes: int = 8 << 20
    """The largest picture in one, decoded."""
    messages: int = 4096
    """Messages of a dialog."""
    texts: int = 2048
    """Texts to embed at once."""
    ids: int = 1 << 20
    """Tokens given as numbers."""
    tools: int = 256
    """Tools told of in one request."""
    depth: int = 48
    """How deep a request's JSON is nested."""
    reply_bytes: int = 512 << 20
    """The largest arrays of a pass that are written into one reply."""
    connections: int = 512
    """Open connections over HTTP; a connection that asks for nothing takes no place."""
    header_seconds: float = 30.0
    """How long a new connection may take to ask for something."""
    idle_seconds: float = 75.0
    """How long a connection is kept between requests: longer than clients do (5 s mostly), lest one asks as it ends."""
    body_seconds: float = 60.0
    """How long a request may take to come in."""
    send_seconds: float = 60.0
    """How long whoever asked may leave a piece of the answer unread."""
    answer_seconds: float | None = None
    """How long an answer may take; None: as long as its client allows."""
    grace_seconds: float = 60.0
    """How long answers under way may go on once the server is told to stop."""

    def __post_init__(self) -> None:
        """Refuse a server that could answer nothing."""
        for spec in fields(self):
            value = getattr(self, spec.name)
            if value is not None and not value > 0 and spec.name != "grace_seconds":
                raise UsageError(f"{spec.name}={value} would let nothing through: give more than 0")
