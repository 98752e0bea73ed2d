"""Events of a server read to the end of an answer, whatever the server's protocol.

Does not know the protocol: a `Reader` turns its events into ours. Invariant: whatever a server sends, the worst that
comes of it is a `CallError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Protocol, TypeVar, cast, runtime_checkable

from mindset.errors import CallError, MindsetError
from mindset.llm.events import Event
from mindset.llm.sse import ServerEvent
from mindset.llm.surrogates import Whole

__all__ = ["Reader", "read_answer", "understood"]

Found = TypeVar("Found")
GRACE = 0.5
"""Seconds for a server to end its reply after the answer is complete: a connection read to its end is used again."""


@runtime_checkable
class Reader(Protocol):
    """What one answer's events mean."""

    @property
    def done(self) -> bool:
        """Whether the answer is complete."""

    def take(self, event: ServerEvent) -> Iterable[Event]:
        """Our events in one of the server's."""

    def end(self) -> Iterable[Event]:
        """What is left when the server has said all; without `Finished` the answer counts as broken off."""


async def read_answer(source: AsyncIterator[ServerEvent], reader: Reader, host: str) -> AsyncIterator[Event]:
    """Our events of a whole answer."""
    whole = Whole()
    async with aclosing(cast("AsyncGenerator[ServerEvent, None]", source)) as events:
        async for event in events:
            for one in whole.take(_understood(reader, event, host)):
                yield one
            if reader.done:
                break
        for one in whole.take(await _rest(events, reader, host)):
            yield one
    for one in whole.take(reader.end()):
        yield one


async def _rest(events: AsyncIterator[ServerEvent], reader: Reader, host: str) -> list[Event]:
    rest: list[Event] = []
    try:
        async with asyncio.timeout(GRACE):
            async for event in events:
                rest += _understood(reader, event, host)
    except (TimeoutError, CallError):  # the answer is complete: how its connection ends is of no interest
        pass
    return rest


def understood(read: Callable[[], Found], host: str, said: str = "") -> Found:
    """What is read from an answer of a server; an answer of another shape is an error of the server."""
    try:
        return read()
    except MindsetError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        shape = said or f"{type(error).__name__}: {error}"
        raise CallError(f"{host} answered in a shape that nobody here understands: {shape}") from error


def _understood(reader: Reader, event: ServerEvent, host: str) -> list[Event]:
    if not event.data.strip():
        return []
    return understood(lambda: list(reader.take(event)), host, repr(event.data[:200]))
