"""How much an endpoint is asked at once and in a minute; who comes later waits in line.

Clients of one endpoint with equal limits share one line, in every thread and event loop of the process. Knows no
request and no network. Invariant: in any 60 seconds no more begins than is allowed, except that something larger
than the whole allowance begins alone.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mindset.errors import UsageError

__all__ = ["Limiter", "Limits", "Window", "limiter_of"]

MINUTE = 60.0


@dataclass(frozen=True)
class Limits:
    """What an endpoint bears; None: no limit."""

    concurrency: int | None = None
    """Requests under way at the same time."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Of prompts, and of answers as far as they may grow."""

    def __post_init__(self) -> None:
        """Refuse limits that let nothing through."""
        for name in ("concurrency", "requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}={value} would let nothing through: give 1 or more, or None")


class Window:
    """An allowance for any stretch of time of one length; places in it are taken in order."""

    def __init__(self, allowance: int, seconds: float = MINUTE) -> None:
        """So much in any `seconds`."""
        self.allowance, self.seconds = allowance, seconds
        self._taken: deque[tuple[float, int]] = deque()

    def take(self, now: float, amount: int) -> float:
        """Take the earliest place that fits, and return the seconds until then."""
        while self._taken and self._taken[0][0] <= now - self.seconds:
            self._taken.popleft()
        start = max(now, self._taken[-1][0]) if self._taken else now
        near = [(at, taken) for at, taken in self._taken if at > start - self.seconds]
        inside = sum(taken for _, taken in near)
        for at, taken in near:
            if inside + amount <= self.allowance:
                break
            inside -= taken
            start = at + self.seconds
        self._taken.append((start, amount))
        return start - now


class Limiter:
    """The line before one endpoint."""

    def __init__(
        self, concurrency: int | None = None, requests: Window | None = None, tokens: Window | None = None
    ) -> None:
        """Without a limit nobody waits."""
        self._free = concurrency
        self._requests, self._tokens = requests, tokens
        self._line: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        self._lock = threading.Lock()

    @asynccontextmanager
    async def turn(self, tokens: int) -> AsyncIterator[None]:
        """Wait for a turn, and keep a place while the block runs."""
        await self._enter()
        try:
            with self._lock:
                now = time.monotonic()
                waits = [
                    window.take(now, amount)
                    for window, amount in ((self._requests, 1), (self._tokens, tokens))
                    if window is not None
                ]
            if waits and max(waits) > 0:
                await asyncio.sleep(max(waits))
            yield
        finally:
            self._leave()

    async def _enter(self) -> None:
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._free is None:
                return
            if self._free > 0:
                self._free -= 1
                return
            place: asyncio.Future[None] = loop.create_future()
            self._line.append((loop, place))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # the turn came just now: to the next one with it
                self._leave()
            raise

    def _leave(self) -> None:
        with self._lock:
            if self._free is None:
                return
            while self._line:
                loop, place = self._line.popleft()
                if place.cancelled() or loop.is_closed():
                    continue
                loop.call_soon_threadsafe(self._give, place)
                return
            self._free += 1

    def _give(self, place: asyncio.Future[None]) -> None:
        if place.done():
            self._leave()
        else:
            place.set_result(None)


_limiters: dict[tuple[str, Limits], Limiter] = {}
_registry = threading.Lock()


def limiter_of(endpoint: str, limits: Limits) -> Limiter:
    """The line that everybody waits in who asks this endpoint under these limits."""
    with _registry:
        if (endpoint, limits) not in _limiters:
            requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
            _limiters[endpoint, limits] = Limiter(
                limits.concurrency,
                None if requests is None else Window(requests),
                None if tokens is None else Window(tokens),
            )
        return _limiters[endpoint, limits]
