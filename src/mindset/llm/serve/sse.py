"""Replies: JSON at once, bytes, or a stream of server-sent events; and the watch for whoever goes away.

Knows no endpoint. Invariant: a stream's status is sent only once its first event is there, so that a request which
is refused is refused by its status; and work for somebody who is gone is cancelled.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from starlette.types import Receive, Send

from mindset.calls.canonical import Json

__all__ = ["DONE", "Events", "GoneError", "Reply", "dumped", "event", "json_reply", "until_gone"]

DONE = b"data: [DONE]\n\n"


class GoneError(Exception):
    """Whoever asked is not there any more, or reads nothing."""


@dataclass(frozen=True)
class Reply:
    """A whole reply."""

    body: bytes
    status: int = 200
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    async def send(self, send: Send, seconds: float) -> None:
        """Send it."""
        headers = {"content-type": self.media_type, "content-length": str(len(self.body)), **self.headers}
        await _patient(
            send({"type": "http.response.start", "status": self.status, "headers": _raw(headers)}), seconds
        )
        await _patient(send({"type": "http.response.body", "body": self.body}), seconds)


@dataclass(frozen=True)
class Events:
    """A reply in pieces, as they come."""

    pieces: AsyncIterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)

    async def send(self, send: Send, seconds: float) -> None:
        """Send the pieces; an error before the first one is the caller's, later ones are told in the stream."""
        async with aclosing(self.pieces) as pieces:  # type: ignore[type-var]
            first = await anext(pieces)
            headers = {"content-type": "text/event-stream; charset=utf-8", **self.headers}
            await _patient(
                send({"type": "http.response.start", "status": 200, "headers": _raw(headers)}), seconds
            )
            await _patient(send(_part(first)), seconds)
            async for piece in pieces:
                await _patient(send(_part(piece)), seconds)
        await _patient(send({"type": "http.response.body", "body": b""}), seconds)


def dumped(value: Json) -> bytes:
    """A value as JSON; text that is no UTF-8 is escaped."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def json_reply(value: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A reply of JSON."""
    return Reply(dumped(value), status, headers=headers or {})


def event(value: Json, name: str | None = None) -> bytes:
    """A value as an event."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + dumped(value) + b"\n\n"


async def until_gone(receive: Receive, work: Awaitable[None]) -> None:
    """Do the work, or cancel it once whoever asked has gone away."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise GoneError
    finally:
        for one in (watch, task):
            if not one.done():
                one.cancel()
        await asyncio.gather(watch, task, return_exceptions=True)
    await task


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _patient(sending: Awaitable[None], seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await sending
            await asyncio.sleep(0)  # whoever has gone away is noticed before the next piece
    except (TimeoutError, OSError) as error:
        raise GoneError from error


def _part(piece: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": piece, "more_body": True}


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in headers.items()
    ]
