"""A real HTTP server on this machine that answers as it is told: in pieces, with pauses, cut off, or never."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from mindset.calls.log import CallLog
from mindset.llm.events import Event
from mindset.llm.messages import user
from mindset.llm.openai_client import OpenAIClient
from mindset.llm.policy import Policy
from mindset.llm.request import Request

QUESTION = Request((user("Who?"),))


@dataclass(frozen=True)
class Reply:
    """What a request is answered with."""

    body: bytes | Sequence[bytes | float] = b""
    """Bytes, or chunks of them with pauses (seconds) between."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    """Whether the connection is dropped before the reply is complete."""


@dataclass(frozen=True)
class Got:
    """A request as it arrived."""

    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Loopback:
    """The server: where it is, what it was asked, and what became of its connections."""

    url: str
    got: list[Got] = field(default_factory=list)
    connections: int = 0
    closed: int = 0
    left: int = 0
    """Connections that the client closed while it was being answered."""


def sse(*events: Any, name: str = "") -> bytes:
    """Events of a stream; text is sent as it is, other things as JSON."""
    head = f"event: {name}\n" if name else ""
    told = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return "".join(f"{head}data: {one}\n\n" for one in told).encode()


def stream(*chunks: bytes | float, cut: bool = False) -> Reply:
    """A stream of events."""
    return Reply(chunks, headers={"content-type": "text/event-stream; charset=utf-8"}, cut=cut)


def whole(value: Any, status: int = 200, **headers: str) -> Reply:
    """A JSON value."""
    told = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(json.dumps(value).encode(), status, {"content-type": "application/json", **told})


@asynccontextmanager
async def serving(*replies: Reply) -> AsyncIterator[Loopback]:
    """A server that gives these replies in turn, the last one for ever."""
    left = list(replies)
    server = Loopback("")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            while (got := await _read(reader)) is not None:
                server.got.append(got)
                reply = left.pop(0) if len(left) > 1 else left[0]
                await _write(writer, reply)
                if reply.cut:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            server.left += 1
        finally:
            server.closed += 1
            writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listening.close()
        await asyncio.sleep(0.01)


def ask(
    log: CallLog, *replies: Reply, request: Request = QUESTION, **settings: Any
) -> tuple[list[Event], Loopback]:
    """The events that a client makes of these replies, and the server that gave them."""
    settings.setdefault("policy", Policy(backoff=0.001))

    async def scenario() -> tuple[list[Event], Loopback]:
        async with (
            serving(*replies) as server,
            OpenAIClient(f"{server.url}#m", log=log, **settings) as client,
        ):
            return [event async for event in client.complete(request, timeout=10)], server

    return asyncio.run(scenario())


async def _read(reader: asyncio.StreamReader) -> Got | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Got(head[0].split(" ")[1], headers, json.loads(body) if body else None)


async def _write(writer: asyncio.StreamWriter, reply: Reply) -> None:
    chunks = [reply.body] if isinstance(reply.body, bytes) else reply.body
    head = f"HTTP/1.1 {reply.status} As told\r\ntransfer-encoding: chunked\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
    writer.write(head.encode() + b"\r\n")
    for chunk in chunks:
        if isinstance(chunk, bytes):
            if chunk:
                writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            await writer.drain()
        else:
            await asyncio.sleep(chunk)
    if not reply.cut:
        writer.write(b"0\r\n\r\n")
    await writer.drain()
