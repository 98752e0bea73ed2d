"""Who may ask: a bearer token, and, where there is none, only those who mean this machine by name.

A server without a token listens on this machine only. A web page could still reach it through a name of its own that
resolves to 127.0.0.1 (DNS rebinding): such a request has that name as its Host, and is refused; so is one that a
browser sends for a page of another origin. Invariant: tokens are compared in a time that tells nothing of them.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mindset.errors import MissingError, UsageError
from mindset.llm.serve.errors import RefusedError

__all__ = ["TOKEN_VARIABLE", "Gate", "is_loopback", "read_token"]

TOKEN_VARIABLE = "MINDSET_TOKEN"
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_SHORTEST = 16
"""Characters of a token that is not guessed."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(token: str | None = None, file: Path | None = None) -> str | None:
    """The token that is given, that of a file, or that of `MINDSET_TOKEN`; None where there is none."""
    if token is None and file is not None:
        token = _of_file(Path(file))
    if token is None:
        token = os.environ.get(TOKEN_VARIABLE) or None
    if token is not None and (
        len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token
    ):
        raise UsageError(
            f"a token has {_SHORTEST} or more printable ASCII characters without spaces; make one with: "
            "python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token


def _of_file(path: Path) -> str:
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingError(f"{path}: there is no such token file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} holds no text; a token file has the token alone") from error
    if stat.S_IMODE(mode) & 0o077:
        raise UsageError(f"{path} can be read by others: chmod 600 {path}")
    return text.strip()


@dataclass(frozen=True)
class Gate:
    """What is asked of a request before anything else."""

    token: str | None = None
    """None: nothing, of those on this machine."""
    host: str = "127.0.0.1"
    """The name that it is bound to."""
    origins: tuple[str, ...] = ()
    """Web pages that may ask; `*`: all."""

    def __post_init__(self) -> None:
        """Refuse to be open to the network, and origins that no browser sends."""
        if self.token is None and not is_loopback(self.host):
            raise UsageError(
                f"{self.host} can be reached from other machines: give --token-file FILE or set {TOKEN_VARIABLE}, "
                "or listen at 127.0.0.1"
            )
        if self.token is None and "*" in self.origins:
            raise UsageError("every web page could ask the model: name the origins, or give a token")
        for origin in self.origins:
            if origin not in ("*", "null") and (not _is_origin(origin)):
                raise UsageError(f"{origin!r} is no origin; write it as https://HOST or https://HOST:PORT")

    def check_token(self, authorization: str | None) -> None:
        """Refuse who does not show the token; `authorization` is the header."""
        if self.token is None:
            return
        scheme, _, shown = (authorization or "").partition(" ")
        given = shown.strip().encode("utf-8", "surrogateescape")
        same = hmac.compare_digest(given, self.token.encode())
        if scheme.lower() != "bearer" or not same:
            what = "a wrong token" if given else "no token"
            raise RefusedError(
                401, f"{what}; send the header Authorization: Bearer TOKEN", code="invalid_api_key"
            )

    def check_host(self, hosts: Sequence[str]) -> None:
        """Refuse a name that is not ours, where no token tells friend from foe; `hosts`: the Host headers."""
        if len(hosts) != 1:
            raise RefusedError(400, f"{len(hosts)} Host headers; a request has one")
        if self.token is not None:
            return
        if _name(hosts[0]) not in _LOCAL_NAMES | {self.host.lower()}:
            raise RefusedError(
                403, f"the host {hosts[0][:200]!r} is not this server's; ask at localhost, or give it a token",
                code="host",
            )  # fmt: skip

    def check_origin(self, origins: Sequence[str], hosts: Sequence[str]) -> None:
        """Refuse a browser that asks for a page which is not allowed."""
        for origin in origins:
            ours = any(
                origin.lower() in (f"http://{host}".lower(), f"https://{host}".lower()) for host in hosts
            )
            if not ours and not self.allows(origin):
                raise RefusedError(
                    403,
                    f"the origin {origin[:200]!r} may not ask; allow it with --allow-origin",
                    code="origin",
                )

    def allows(self, origin: str) -> bool:
        """Whether a web page of this origin may ask."""
        return "*" in self.origins or origin in self.origins


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return bool(parts.scheme and parts.hostname) and text == f"{parts.scheme}://{parts.netloc}"


def _name(host: str) -> str:
    """The name of a Host header, without its port; "" where it is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return ""
    plain = parts.netloc == host and parts.username is None
    return (parts.hostname or "") if plain else ""
