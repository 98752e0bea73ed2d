"""HTTP's half of a server: uvicorn at sockets that are bound already, in an event loop that is not its own.

Knows no model. Invariant: signals are left to whoever runs the loop, and nothing is written to stdout or stderr.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from mindset.llm.serve.limits import Limits

__all__ = ["HttpServer"]

_CLOSING_SECONDS = 2
"""How long connections are left after the last answer."""


class HttpServer:
    """An application at some sockets."""

    def __init__(self, app: ASGIApp, sockets: Sequence[socket.socket], limits: Limits) -> None:
        self._sockets = list(sockets)
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                http=_protocol(limits.header_seconds),
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=limits.connections,
                timeout_keep_alive=max(1, round(limits.idle_seconds)),
                timeout_graceful_shutdown=_CLOSING_SECONDS,
            )
        )
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Answer from now on."""
        self._running = asyncio.create_task(self._server.serve(self._sockets))
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait({self._running, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._running.done():
            await self._running

    async def stop(self) -> None:
        """Close all connections, and end."""
        self._server.should_exit = True
        if self._running is not None:
            await self._running


class _Uvicorn(uvicorn.Server):
    """Uvicorn's server, which leaves signals alone and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are not its business."""
        yield


def _protocol(header_seconds: float) -> type[asyncio.Protocol]:
    """HTTP/1.1 that lets go of connections at which nobody asks for anything."""

    class Impatient(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.loop.call_later(header_seconds, self._leave_if_silent)

        def _leave_if_silent(self) -> None:
            asked: object = self.cycle  # None until the first request, whatever its type says
            if asked is None and not self.transport.is_closing():
                self.transport.close()

    return Impatient
