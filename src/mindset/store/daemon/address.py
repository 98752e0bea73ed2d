"""Where a daemon listens and is asked: `unix:PATH` or `grpc://HOST:PORT`.

Knows how long a socket's path may be and which hosts are this machine; opens nothing. Invariant: what a daemon listens
at can be reached from this machine only.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from mindset.errors import UsageError

__all__ = ["Address", "default_socket", "is_url", "parse", "port_address", "socket_address", "users_folder"]

LONGEST_SOCKET = 103
"""Bytes of a socket's path that every system takes (macOS has room for 104 with the zero, Linux for 108)."""

_GRAMMAR = "write unix:PATH or grpc://HOST:PORT"
_URL = re.compile(r"(unix|grpc):")
_HOST_PORT = re.compile(r"//(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^\[\]:/@?#\s]+)):(?P<port>\d{1,5})/?")


@dataclass(frozen=True)
class Address:
    """A Unix socket, or a port of a host."""

    path: Path | None
    """Of the socket, absolute; None: a port."""
    host: str = ""
    port: int = 0
    """0, to listen at: any free one."""

    @property
    def url(self) -> str:
        """As people write it."""
        return f"unix:{self.path}" if self.path is not None else f"grpc://{self._netloc}"

    @property
    def target(self) -> str:
        """As gRPC has it, which reads a URI."""
        return f"unix:{quote(str(self.path))}" if self.path is not None else self._netloc

    @property
    def is_local(self) -> bool:
        """Whether only this machine is asked."""
        return self.path is not None or _is_loopback(self.host)

    @property
    def _netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_url(text: str) -> bool:
    """Whether a place is meant as a daemon's and not as a folder."""
    return _URL.match(text) is not None


def parse(url: str) -> Address:
    """The address that a URL names."""
    scheme, _, rest = url.partition(":")
    if scheme == "unix" and rest.strip("/"):
        return socket_address(Path(rest[2:] if rest.startswith("//") else rest))
    found = _HOST_PORT.fullmatch(rest) if scheme == "grpc" else None
    if found is None or not 1 <= int(found["port"]) <= 65535:
        raise UsageError(f"{url!r} is no daemon's address; {_GRAMMAR}")
    return Address(None, found["v6"] or found["host"], int(found["port"]))


def socket_address(path: Path) -> Address:
    """A Unix socket."""
    absolute = Path(path).absolute()
    if not _fits(absolute):
        raise UsageError(
            f"{absolute}: a socket's path may have {LONGEST_SOCKET} bytes, this one has "
            f"{len(os.fsencode(absolute))}; give a shorter one, or a port"
        )
    return Address(absolute)


def port_address(port: int, host: str = "127.0.0.1") -> Address:
    """A port to listen at; it asks nobody for a password, so only this machine may reach it."""
    if not _is_loopback(host):
        raise UsageError(
            f"{host!r} can be reached from other machines; a memory is served at 127.0.0.1 or a socket only"
        )
    if not 0 <= port <= 65535:
        raise UsageError(f"port {port}: give 1 to 65535, or 0 for a free one")
    return Address(None, host, port)


def default_socket(folder: Path) -> Path:
    """Where the memory of the model folder `folder` is served if nothing else is said."""
    beside = Path(folder).resolve() / "memory" / "daemon.sock"
    if _fits(beside):
        return beside
    digest = hashlib.sha256(os.fsencode(beside)).hexdigest()[:16]
    return Path(tempfile.gettempdir()).resolve() / users_folder() / f"{digest}.sock"


def users_folder() -> str:
    """Name of the folder that is for a user's sockets alone."""
    return f"mindset-{os.getuid()}" if hasattr(os, "getuid") else "mindset"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= LONGEST_SOCKET
