"""How patient a client is: seconds, attempts, and what an endpoint bears. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

from mindset.errors import UsageError
from mindset.llm.limits import Limits

__all__ = ["Policy"]


@dataclass(frozen=True)
class Policy:
    """Holds for every call of a client; a call's own `timeout` comes before the one here."""

    timeout: float = 600.0
    """Seconds that a call may wait for its model in all, the line and further attempts included. What the caller
    does between two pieces does not count."""
    first_event: float | None = None
    """Seconds until the first event of each attempt; None: as long as the whole call may wait."""
    attempts: int = 4
    """How often a request is made in all, if it fails before anything was said and may succeed later."""
    backoff: float = 0.5
    """Seconds, at most, before the second attempt; doubles with each further one. The real wait is drawn from 0
    to this, or is what the endpoint asked for."""
    longest_wait: float = 60.0
    """Seconds between two attempts at most; an endpoint that asks for more is not asked again."""
    limits: Limits = Limits()  # noqa: RUF009 - frozen
    kept_arrays: int = 1 << 20
    """Bytes of vectors or logits that a call keeps in the log, for replays; of larger ones only the shapes."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("timeout", "first_event"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{name}={value} leaves no time: give seconds above 0")
        if self.attempts < 1:
            raise UsageError(f"attempts={self.attempts} makes no request: give 1 or more")
        for name in ("backoff", "longest_wait", "kept_arrays"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name}={getattr(self, name)} cannot be: give 0 or more")
