"""A served model: one process, one event loop, HTTP at a port and a Unix socket and gRPC beside it, over one desk.

Told to stop (SIGTERM, SIGINT) it takes no more requests, says so (503, UNAVAILABLE) to those that still come, lets the
answers under way end, and then closes its client. Told again, it breaks off the answers too, which keep in the log what
they had said. Invariant: whatever was opened is closed, and a socket's file is gone, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import uvicorn

from mindset.llm.client import Client
from mindset.llm.serve.auth import Gate
from mindset.llm.serve.desk import Desk
from mindset.llm.serve.grpc_server import GrpcServer
from mindset.llm.serve.http import application
from mindset.llm.serve.limits import Limits
from mindset.llm.serve.listening import (
    Doors,
    Urls,
    add_grpc_port,
    add_grpc_socket,
    netloc,
    port_socket,
    unix_socket,
)
from mindset.store.daemon.answering import Limits as MemoryLimits
from mindset.store.daemon.answering import Servicer as MemoryServicer
from mindset.store.daemon.socket_file import claimed
from mindset.store.memory import Memory

__all__ = ["Server", "serve", "serving"]

_CLOSING_SECONDS = 2
"""How long connections that ask for nothing are left after the last answer."""


class Server:
    """A client that is served for as long as `running()` lasts."""

    def __init__(
        self,
        client: Client,
        doors: Doors | None = None,
        *,
        token: str | None = None,
        origins: Sequence[str] = (),
        names: Sequence[str] = (),
        limits: Limits | None = None,
        memory: Path | None = None,
    ) -> None:
        """`memory`: the model folder whose memory can be looked at over gRPC; `names`: what the model is asked for as."""
        self.doors = doors or Doors(http=0)
        self.gate = Gate(token, self.doors.host, tuple(origins))
        self.desk = Desk(client, names=names, limits=limits)
        self.urls = Urls()
        self._memory = memory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Urls]:
        """Serve for the length of the block, which is given the URLs; then drain, and close the client."""
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.desk.client.close)
            await self.desk.client.content_hash()  # the model is loaded, or found missing, before anybody asks
            self.urls = await self._open(stack)
            yield self.urls

    async def until_stopped(self) -> None:
        """Wait until somebody calls `stop`."""
        await self._stop.wait()

    def stop(self) -> None:
        """Begin the end; once more breaks off the answers under way. From any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._told)

    def _told(self) -> None:
        if self._stop.is_set():
            self.desk.break_off()
        self.desk.draining = True
        self._stop.set()

    async def _open(self, stack: AsyncExitStack) -> Urls:
        doors, places = self.doors, ExitStack()
        stack.enter_context(places)
        for path in (doors.socket, doors.grpc_socket):
            if path is not None:
                places.enter_context(claimed(Path(path).absolute()))
        http = await self._open_http(stack)
        grpc = await self._open_grpc(stack)
        stack.push_async_callback(self._drain)
        return Urls(
            http and f"http://{netloc(doors.host, int(http))}/v1",
            grpc and f"grpc://{netloc(doors.host, int(grpc))}",
            "" if doors.socket is None else f"unix:{Path(doors.socket).absolute()}",
            "" if doors.grpc_socket is None else f"unix:{Path(doors.grpc_socket).absolute()}",
        )

    async def _open_http(self, stack: AsyncExitStack) -> str:
        """The port of HTTP, or ""."""
        doors, sockets = self.doors, []
        if doors.http is not None:
            sockets.append(stack.enter_context(contextlib.closing(port_socket(doors.host, doors.http))))
        if doors.socket is not None:
            sockets.append(stack.enter_context(contextlib.closing(unix_socket(Path(doors.socket).absolute()))))
        if not sockets:
            return ""
        port = "" if doors.http is None else str(sockets[0].getsockname()[1])
        config = uvicorn.Config(
            application(self.desk, self.gate),
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=self.desk.limits.connections,
            timeout_graceful_shutdown=_CLOSING_SECONDS,
        )
        server = _Uvicorn(config)
        running = asyncio.create_task(server.serve(sockets))
        stack.push_async_callback(_ended, server, running)
        await asyncio.wait({running, ready := asyncio.create_task(server.ready.wait())}, return_when="FIRST_COMPLETED")
        ready.cancel()
        if running.done():
            await running
        return port

    async def _open_grpc(self, stack: AsyncExitStack) -> str:
        """The port of gRPC, or ""."""
        doors = self.doors
        if doors.grpc is None and doors.grpc_socket is None:
            return ""
        self._grpc = GrpcServer(self.desk, self.gate, self._open_memory(stack))
        stack.push_async_callback(self._grpc.stop, _CLOSING_SECONDS)
        port = ""
        if doors.grpc is not None:
            port = str(add_grpc_port(self._grpc.inner, doors.host, doors.grpc))
        if doors.grpc_socket is not None:
            add_grpc_socket(self._grpc.inner, Path(doors.grpc_socket))
        await self._grpc.start()
        return port

    def _open_memory(self, stack: AsyncExitStack) -> MemoryServicer | None:
        """The memory, to be looked at: who changes it does so beside us, and the model has what it was loaded with."""
        if self._memory is None:
            return None
        memory = stack.enter_context(Memory(self._memory, read_only=True))
        servicer = MemoryServicer(memory, MemoryLimits())
        stack.callback(servicer.close)
        return servicer

    async def _drain(self) -> None:
        self._stop.set()
        if (grpc := getattr(self, "_grpc", None)) is not None:
            await grpc.drain()
        await self.desk.drain(self.desk.limits.grace_seconds)


class _Uvicorn(uvicorn.Server):
    """Uvicorn's server, which leaves signals to us and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Listen."""
        await super().startup(sockets)  # type: ignore[arg-type]
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:  # type: ignore[override]
        """They are not its business."""
        yield


async def _ended(server: _Uvicorn, running: asyncio.Task[None]) -> None:
    server.should_exit = True
    await running


def serve(server: Server, *, ready: Callable[[Urls], None] = lambda _: None) -> None:
    """Serve until told to stop by a signal; `ready` is given the URLs once they answer."""

    async def run() -> None:
        async with server.running() as urls:
            ready(urls)
            await server.until_stopped()

    with _told(server):
        asyncio.run(run())


@contextmanager
def serving(
    client: Client,
    doors: Doors | None = None,
    *,
    token: str | None = None,
    origins: Sequence[str] = (),
    names: Sequence[str] = (),
    limits: Limits | None = None,
    memory: Path | None = None,
) -> Iterator[Server]:
    """Serve from a thread of this process for the length of the block; `urls` of what it is given say where.

    Without doors: HTTP at a free port.
    """
    server = Server(client, doors, token=token, origins=origins, names=names, limits=limits, memory=memory)
    begun: Future[None] = Future()

    async def run() -> None:
        async with server.running():
            begun.set_result(None)
            await server.until_stopped()

    def thread() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if begun.done():
                ended.append(error)
            else:
                begun.set_exception(error)

    ended: list[BaseException] = []
    running = threading.Thread(target=thread, name="serving")
    running.start()
    try:
        begun.result()
        yield server
    finally:
        server.stop()
        running.join()
        if ended:
            raise ended[0]


@contextmanager
def _told(server: Server) -> Iterator[None]:
    """Signals stop the server for the length of the block."""
    before = {
        number: signal.signal(number, lambda *_: server.stop()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
