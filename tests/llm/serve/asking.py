"""Asking a server as plainly as can be: http.client, and bytes at a socket."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

JSON = {"Content-Type": "application/json"}


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error object, which every refusal is."""
        assert list(self.json) == ["error"], self.body
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        return error

    @property
    def events(self) -> list[Any]:
        """The events of a stream, parsed; [DONE] as text."""
        assert self.headers["content-type"].startswith("text/event-stream")
        data = [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]
        return [one if one == "[DONE]" else json.loads(one) for one in data]


def ask(
    url: str,
    path: str,
    body: Any = None,
    *,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own; a body that is no bytes is sent as JSON."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    try:
        sent = (JSON if data is not None else {}) | dict(headers or {})
        connection.request(method or ("GET" if data is None else "POST"), path, data, sent)
        reply = connection.getresponse()
        return Answer(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
    finally:
        connection.close()


def raw(url: str, data: bytes, *, end: bool = False) -> bytes:
    """What a server says to bytes, until it closes or says no more."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as there:
        there.sendall(data)
        if end:
            there.shutdown(socket.SHUT_WR)
        return b"".join(_received(there))


def status_of(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1])


def _received(there: socket.socket) -> Iterator[bytes]:
    there.settimeout(3)
    try:
        while data := there.recv(1 << 16):
            yield data
    except (TimeoutError, ConnectionResetError):
        return


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something holds."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not come to hold"
        time.sleep(0.01)
