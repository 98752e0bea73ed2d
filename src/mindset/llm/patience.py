"""How long a call may still wait, and whether it was told to stop.

Every wait of a call goes through `Patience.wait`: so one clock holds for the line, the model and further attempts,
and `stop()` from anywhere in the event loop ends whichever wait is under way. Does not know what is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mindset.errors import CallTimeoutError

__all__ = ["Patience", "StoppedError"]

Found = TypeVar("Found")


class StoppedError(Exception):
    """The call was told to stop; never leaves this package."""


class Patience:
    """The time that is left to one call."""

    def __init__(self, seconds: float, model: str) -> None:
        """`model` is named when the time is over."""
        self.seconds, self.left = seconds, seconds
        self._stopped = False
        self._model = model
        self._wait: asyncio.Timeout | None = None

    async def wait(
        self, ask: Callable[[], Awaitable[Found]], at_most: float | None = None, what: str = "answer"
    ) -> Found:
        """What comes of asking, if it comes in time: within what is left, and within `at_most` seconds."""
        if self._stopped:
            raise StoppedError
        loop = asyncio.get_running_loop()
        start = loop.time()
        limit = self.left if at_most is None else min(self.left, at_most)
        timer = asyncio.timeout(limit)
        try:
            async with timer:
                self._wait = timer
                return await ask()
        except TimeoutError:
            if timer.expired() and self.was_stopped():
                raise StoppedError from None
            if timer.expired():
                raise self._over(limit, what) from None
            raise
        finally:
            self._wait = None
            self.left -= loop.time() - start

    def was_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def stop(self) -> None:
        """End the wait that is under way, and every later one."""
        self._stopped = True
        if self._wait is not None and not self._wait.expired():
            self._wait.reschedule(asyncio.get_running_loop().time())

    def _over(self, limit: float, what: str) -> CallTimeoutError:
        if limit == self.left:
            return CallTimeoutError(f"{self._model} gave no full answer within {self.seconds:g} seconds")
        return CallTimeoutError(f"{self._model} gave no {what} within {limit:g} seconds", retry=True)
