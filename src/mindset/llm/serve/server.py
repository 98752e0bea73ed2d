"""A served model: one process, one event loop, HTTP at a port and a Unix socket and gRPC beside it, over one desk.

Told to stop (SIGTERM, SIGINT) it takes no more requests, says so (503, UNAVAILABLE) to those that still come, lets the
answers under way end, and then closes its client. Told again, it breaks off the answers too, which keep in the log what
they had said. Invariant: whatever was opened is closed, and a socket's file is gone, however it ends.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from mindset.llm.client import Client
from mindset.llm.serve.auth import Gate
from mindset.llm.serve.desk import Desk
from mindset.llm.serve.grpc_server import GrpcServer
from mindset.llm.serve.http import application
from mindset.llm.serve.http_server import HttpServer
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

_CLOSING_SECONDS = 2.0
"""How long gRPC's connections are left after the last answer."""


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
        seed: int | None = None,
    ) -> None:
        """`names`: what it is asked for as; `memory`: folder whose memory is shown; `seed`: where none is given."""
        self.doors = doors or Doors(http=0)
        self.gate = Gate(token, self.doors.host, tuple(origins))
        self.desk = Desk(client, names=names, limits=limits, seed=seed)
        self.urls = Urls()
        self._memory = memory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self.ready = False
        """Whether it has begun to answer."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Urls]:
        """Serve for the length of the block, which is given the URLs; then drain, and close the client."""
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.desk.client.close)
            http, grpc = self._open_http(stack), self._open_grpc(stack)
            await (
                self.desk.client.content_hash()
            )  # the model is loaded, or found missing, before anybody asks
            if http is not None:
                stack.push_async_callback(http.stop)
                await http.start()
            if grpc is not None:
                stack.push_async_callback(grpc.stop, _CLOSING_SECONDS)
                await grpc.start()
                stack.push_async_callback(grpc.drain)
            stack.push_async_callback(self._drain)
            self.ready = True
            yield self.urls

    async def until_stopped(self) -> None:
        """Wait until somebody calls `stop`."""
        await self._stop.wait()

    def stop(self) -> None:
        """Begin the end: no more is taken, and what is under way ends. From any thread, any number of times."""
        self._soon(self._begin_end)

    def break_off(self) -> None:
        """End what is under way, too. From any thread."""
        self._soon(self._begin_end)
        self._soon(self.desk.break_off)

    def _soon(self, call: Callable[[], None]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(call)

    def _begin_end(self) -> None:
        self.desk.draining = True
        self._stop.set()

    async def _drain(self) -> None:
        self._stop.set()
        await self.desk.drain(self.desk.limits.grace_seconds)

    def _open_http(self, stack: AsyncExitStack) -> HttpServer | None:
        doors, sockets = self.doors, []
        if doors.http is not None:
            sockets.append(stack.enter_context(closing(port_socket(doors.host, doors.http))))
            port = sockets[0].getsockname()[1]
            self.urls = replace(self.urls, http=f"http://{netloc(doors.host, port)}/v1")
        if doors.socket is not None:
            path = _claimed(doors.socket, stack)
            sockets.append(stack.enter_context(closing(unix_socket(path))))
            self.urls = replace(self.urls, socket=f"unix:{path}")
        if not sockets:
            return None
        return HttpServer(application(self.desk, self.gate), sockets, self.desk.limits)

    def _open_grpc(self, stack: AsyncExitStack) -> GrpcServer | None:
        doors = self.doors
        if doors.grpc is None and doors.grpc_socket is None:
            return None
        grpc = GrpcServer(self.desk, self.gate, self._open_memory(stack))
        if doors.grpc is not None:
            port = add_grpc_port(grpc.inner, doors.host, doors.grpc)
            self.urls = replace(self.urls, grpc=f"grpc://{netloc(doors.host, port)}")
        if doors.grpc_socket is not None:
            path = _claimed(doors.grpc_socket, stack)
            add_grpc_socket(grpc.inner, path)
            self.urls = replace(self.urls, grpc_socket=f"unix:{path}")
        return grpc

    def _open_memory(self, stack: AsyncExitStack) -> MemoryServicer | None:
        """The memory, to be looked at: who changes it does so beside us, and the model has what it was loaded with."""
        if self._memory is None:
            return None
        servicer = MemoryServicer(stack.enter_context(Memory(self._memory, read_only=True)), MemoryLimits())
        stack.callback(servicer.close)
        return servicer


def serve(server: Server, *, ready: Callable[[Urls], None] = lambda _: None) -> None:
    """Serve until told to stop by a signal; `ready` is given the URLs once they answer."""
    with _told(server):
        asyncio.run(_until_stopped(server, ready))


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
    seed: int | None = None,
) -> Iterator[Server]:
    """Serve from a thread of this process for the length of the block; `urls` of what it is given say where.

    Without doors: HTTP at a free port.
    """
    server = Server(
        client, doors, token=token, origins=origins, names=names, limits=limits, memory=memory, seed=seed
    )
    begun: Future[Urls] = Future()
    ended: Future[None] = Future()

    def run() -> None:
        try:
            asyncio.run(_until_stopped(server, begun.set_result))
            ended.set_result(None)
        except BaseException as error:
            (ended if begun.done() else begun).set_exception(error)

    thread = threading.Thread(target=run, name="serving")
    thread.start()
    try:
        begun.result()
        yield server
    finally:
        server.stop()
        thread.join()
    ended.result()


async def _until_stopped(server: Server, ready: Callable[[Urls], None]) -> None:
    async with server.running() as urls:
        ready(urls)
        await server.until_stopped()


@contextmanager
def _told(server: Server) -> Iterator[None]:
    """Signals stop the server for the length of the block; one that is still loading is left as it is."""

    def told(*_: object) -> None:
        if not server.ready:
            raise KeyboardInterrupt
        (server.break_off if server.desk.draining else server.stop)()

    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _claimed(path: Path, stack: AsyncExitStack) -> Path:
    absolute = Path(path).absolute()
    stack.enter_context(claimed(absolute))
    return absolute
