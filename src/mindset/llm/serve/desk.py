"""What every way to a served model shares: the client, its places, what was counted, and whether the server is ending.

Knows no protocol. Invariant: a place that was taken is given back however the block ends, and once the desk is
draining nobody gets one.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from mindset.errors import CallError, MissingError, OverloadedError, UsageError
from mindset.llm.client import Client
from mindset.llm.serve.limits import Limits
from mindset.llm.serve.metrics import Metrics

__all__ = ["Desk", "DrainingError"]

_LONGEST_WAIT = 60.0
_BREAKING_SECONDS = 5.0
"""How long answers that are broken off may take to say so."""


class DrainingError(CallError):
    """A server that is about to end takes no more requests."""

    def __init__(self) -> None:
        """Another one may be up in a while."""
        super().__init__("the server is stopping; try again later", retry=True, retry_after=5.0)


class Desk:
    """One served client; of one event loop."""

    def __init__(
        self,
        client: Client,
        *,
        names: Sequence[str] = (),
        limits: Limits | None = None,
        seed: int | None = None,
    ) -> None:
        """`names`: what the model is asked for as; none: as the client calls it. `seed`: where none is given."""
        self.client, self.seed = client, seed
        self.names = tuple(names) or (client.model,)
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.draining = False
        self.begun = time.time()
        self.taken = 0
        """Places that are taken."""
        self._work: set[asyncio.Task[Any] | None] = set()
        self._broken: set[asyncio.Task[Any] | None] = set()
        """Those of them that were told to end, and have not yet."""
        self._empty = asyncio.Event()
        self._empty.set()
        self._seconds = 1.0
        """How long an answer takes, lately."""

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place for the length of the block; refused where all are taken or the server is ending."""
        if self.draining:
            raise DrainingError
        if self.taken >= self.limits.places:
            raise OverloadedError(
                f"all {self.limits.places} places are taken; try again later", retry_after=self._until_free()
            )
        task = asyncio.current_task()
        self.taken += 1
        self._empty.clear()
        self._work.add(task)
        begun = time.monotonic()
        try:
            yield
        except asyncio.CancelledError:
            if task is None or task not in self._broken:
                raise
            task.uncancel()
            raise DrainingError from None
        finally:
            self._broken.discard(task)
            self._seconds += 0.1 * (time.monotonic() - begun - self._seconds)
            self._work.discard(task)
            self.taken -= 1
            if not self.taken:
                self._empty.set()

    def check_model(self, name: str | None) -> None:
        """Refuse the name of a model that is not served here; no name is the one that is."""
        if name and name not in self.names:
            raise MissingError(f"there is no model {name[:200]!r} here; served: {', '.join(self.names)}")

    async def drain(self, seconds: float) -> bool:
        """Take no more, and wait for those under way; after so many seconds they are broken off. Whether none was."""
        self.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            self.break_off()
            with suppress(TimeoutError):
                async with asyncio.timeout(_BREAKING_SECONDS):
                    await self._empty.wait()
            return False
        return True

    def break_off(self) -> None:
        """End every answer that is under way."""
        self.draining = True
        for task in self._work - self._broken:
            if task is not None:
                self._broken.add(task)
                task.cancel("the server is stopping")

    def check_count(self, what: str, count: int, most: int) -> None:
        """Refuse more of something than is granted."""
        if count > most:
            raise UsageError(f"{count:,} {what} in one request; at most {most:,}")

    def _until_free(self) -> float:
        """About when a place will be free, where places are given back one after the other."""
        return float(min(_LONGEST_WAIT, max(1, math.ceil(self._seconds / max(1, self.limits.places)))))
