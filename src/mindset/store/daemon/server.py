"""The daemon: one model folder's memory, open for writing, at one socket or loopback port.

It holds the folder's lock for as long as it serves, so it is the only writer; a second daemon, or a command that would
change the folder beside it, is refused. Told to stop (SIGTERM, SIGINT) it takes no more calls, finishes those under
way, and takes its socket away. Killed, it leaves a memory that is whole (the store's promise) and a socket's file that
the next one replaces.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc

from mindset.errors import BusyError
from mindset.store.daemon import memory_pb2_grpc
from mindset.store.daemon.address import Address, default_socket, port_address, socket_address
from mindset.store.daemon.answering import Limits, Servicer
from mindset.store.daemon.protocol import MESSAGE_BYTES
from mindset.store.daemon.socket_file import answers, claimed, owner_only
from mindset.store.memory import Memory

__all__ = ["serve", "serving"]

LOCK_SECONDS = 1.0
"""How long it waits for a command that is writing in the folder."""


def serve(
    folder: Path,
    address: Address | None = None,
    *,
    ready: Callable[[str], None] = lambda _: None,
    limits: Limits | None = None,
) -> None:
    """Serve the memory of `folder` until told to stop; `ready` is given its URL once it answers.

    Without an address: at `default_socket(folder)`.
    """
    with _told() as stop, _prepared(folder, address, limits or Limits()) as (servicer, at):
        asyncio.run(_serve(servicer, at, stop, ready))


@contextmanager
def serving(folder: Path, address: Address | None = None, *, limits: Limits | None = None) -> Iterator[str]:
    """Serve from a thread of this process for the length of the block, which is given the URL."""
    begun: Future[str] = Future()
    stop: Future[None] = Future()
    with ThreadPoolExecutor(1, "serve") as pool, _prepared(folder, address, limits or Limits()) as prepared:
        served = pool.submit(asyncio.run, _serve(*prepared, stop, begun.set_result))
        served.add_done_callback(lambda _: _fail(begun, served))
        url = begun.result()
        try:
            yield url
        finally:
            stop.set_result(None)
            served.result()


@contextmanager
def _told() -> Iterator[Future[None]]:
    """Done once the process is told to stop; to be told again changes nothing, until the block has ended."""
    stop: Future[None] = Future()

    def told(*_: object) -> None:
        if not stop.done():
            stop.set_result(None)

    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _prepared(folder: Path, address: Address | None, limits: Limits) -> Iterator[tuple[Servicer, Address]]:
    """The folder's lock is held, and the place to listen at is free."""
    at = address or socket_address(default_socket(folder))
    if at.path is None:
        at = port_address(at.port, at.host)
    with ExitStack() as stack:
        servicer = Servicer(stack.enter_context(_opened(folder)), limits)
        stack.callback(servicer.close)
        if at.path is not None:
            stack.enter_context(claimed(at.path))
        yield servicer, at


def _fail(begun: Future[Any], served: Future[None]) -> None:
    """Whoever waits for the beginning is told that it ended first."""
    if not begun.done():
        begun.set_exception(served.exception() or RuntimeError("the daemon ended before it answered"))


def _opened(folder: Path) -> Memory:
    try:
        return Memory(folder, wait_seconds=LOCK_SECONDS)
    except BusyError as error:
        there = default_socket(folder)
        if answers(there):
            raise BusyError(f"{folder} is served already, at unix:{there}") from error
        raise


async def _serve(servicer: Servicer, at: Address, stop: Future[None], ready: Callable[[str], None]) -> None:
    server = grpc.aio.server(
        maximum_concurrent_rpcs=servicer.limits.calls,
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.max_send_message_length", MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),  # two daemons at one port would share its calls
        ],
    )
    memory_pb2_grpc.add_MemoryServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]  # generated
    port = _listen(server, at)
    await server.start()
    ready(at.url if at.path is not None else Address(None, at.host, port).url)
    await asyncio.wrap_future(stop)
    await server.stop(servicer.limits.grace_seconds)


def _listen(server: grpc.aio.Server, at: Address) -> int:
    taken = f"{at.url}: cannot listen there"
    if at.path is None:
        _try_port(at, taken)
    try:
        with owner_only():
            return int(server.add_insecure_port(at.target))
    except RuntimeError as error:
        raise BusyError(f"{taken} ({error})") from error


def _try_port(at: Address, taken: str) -> None:
    """GRPC would tell of a port that is taken in lines of its own."""
    family = socket.AF_INET6 if ":" in at.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((at.host, at.port))
        except OSError as error:
            raise BusyError(f"{taken} ({error.strerror}); give another --port") from error
