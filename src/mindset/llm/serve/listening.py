"""Where a server listens: ports and Unix sockets, opened before anything is said to be ready.

Knows no protocol. Invariant: what cannot be listened at is one error that says what to give in its place, and a Unix
socket is its owner's alone.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mindset.errors import BusyError, UsageError
from mindset.store.daemon.address import socket_address
from mindset.store.daemon.socket_file import owner_only

__all__ = ["Doors", "Urls", "add_grpc_port", "add_grpc_socket", "netloc", "port_socket", "unix_socket"]


@dataclass(frozen=True)
class Doors:
    """Where to listen; None: not there."""

    host: str = "127.0.0.1"
    http: int | None = None
    """Port for HTTP; 0: a free one."""
    grpc: int | None = None
    """Port for gRPC; 0: a free one."""
    socket: Path | None = None
    """Unix socket for HTTP."""
    grpc_socket: Path | None = None
    """Unix socket for gRPC."""

    def __post_init__(self) -> None:
        """Refuse nowhere, and ports that are none."""
        if (self.http, self.grpc, self.socket, self.grpc_socket) == (None,) * 4:
            raise UsageError("there is nowhere to listen: give a port or a socket")
        for port in (self.http, self.grpc):
            if port is not None and not 0 <= port <= 65535:
                raise UsageError(f"port {port}: give 1 to 65535, or 0 for a free one")
        if self.http and self.http == self.grpc:
            raise UsageError(f"port {self.http} for HTTP and for gRPC: give two")
        if self.socket is not None and self.socket == self.grpc_socket:
            raise UsageError(f"{self.socket} for HTTP and for gRPC: give two")


@dataclass(frozen=True)
class Urls:
    """Where a server is asked; "" where it does not listen."""

    http: str = ""
    """As OpenAI's clients want it, with /v1."""
    grpc: str = ""
    socket: str = ""
    grpc_socket: str = ""

    @property
    def all(self) -> tuple[str, ...]:
        """Those that are there."""
        return tuple(url for url in (self.http, self.socket, self.grpc, self.grpc_socket) if url)


def port_socket(host: str, port: int) -> socket.socket:
    """A listening socket for HTTP."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"there is no host {host!r} here to listen at ({error})") from error
    family, kind, protocol, _, address = found[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.setblocking(False)
    except OSError as error:
        made.close()
        raise BusyError(
            f"{netloc(host, port)}: cannot listen there ({error.strerror}); give another port"
        ) from error
    return made


def unix_socket(path: Path) -> socket.socket:
    """A listening Unix socket for HTTP; way was made for it."""
    address = socket_address(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with owner_only():
            made.bind(str(address.path))
        made.setblocking(False)
    except OSError as error:
        made.close()
        raise BusyError(f"{path}: cannot listen there ({error.strerror})") from error
    return made


def add_grpc_port(server: Any, host: str, port: int) -> int:
    """Let a gRPC server listen at a port, which is returned."""
    port_socket(host, port).close()  # gRPC would tell of a port that is taken in lines of its own
    return _added(server, netloc(host, port))


def add_grpc_socket(server: Any, path: Path) -> None:
    """Let a gRPC server listen at a Unix socket; way was made for it."""
    with owner_only():
        _added(server, f"unix:{quote(str(socket_address(path).path))}")


def netloc(host: str, port: int) -> str:
    """A host with its port, as URLs have it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _added(server: Any, target: str) -> int:
    try:
        return int(server.add_insecure_port(target))
    except RuntimeError as error:
        raise BusyError(f"{target}: cannot listen there ({error})") from error
