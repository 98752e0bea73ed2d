"""Who gets in: `mindset serve` at doors that it must not open, and asked by those whom it must not answer.

    python -m benchmarks.serving_doors

Every try is a real one, at a server that the command line started. What is counted is every try that went through, or
was answered with anything but a plain refusal; requests that must be answered are tried too, lest a server pass that
refuses everybody.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from benchmarks.timing import scratch
from mindset.llm.serve import llm_pb2 as pb
from mindset.llm.serve import llm_pb2_grpc

__all__ = ["Doors", "doors", "served"]

TOKEN = "a-token-that-nobody-guesses"
_SCRIPT = '"Hello."\n'
_PATHS = ("/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/forward",
          "/v1/encode", "/metrics", "/openapi.json")  # fmt: skip
_GETS = ("/v1/models", "/metrics", "/openapi.json")
_SHOWN = ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN, f"Bearer {TOKEN[:-1]}",
          f"Bearer {TOKEN.upper()}", f"Bearer {TOKEN}, Bearer wrong", "Bearer \xff")  # fmt: skip
_TRAVERSALS = ("/../etc/passwd", "/v1/../../../etc/passwd", "/v1/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd",
               "/v1/models/..%2f..%2fetc%2fpasswd", "/v1/models/..%5c..%5cetc", "/v1/models/%00",
               "/static/../pyproject.toml", "/v1/models/file:///etc/passwd", "/?file=/etc/passwd")  # fmt: skip
_HOSTS = ("evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.nip.io", "localhost@evil.example",
          "evil.example@localhost", "localhost,evil.example", "0.0.0.0", "")  # fmt: skip  # noqa: S104
_GET = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
_CLOSE = b"Connection: close\r\n\r\n"
_HEADERS = (
    _GET + b"Host: evil.example\r\n" + _CLOSE,
    b"GET /v1/models HTTP/1.1\r\n" + _CLOSE,
    b"GET http://evil.example/v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    _GET + b"Content-Length: 5\r\nContent-Length: 6\r\n" + _CLOSE,
    _GET + b"Content-Length: -1\r\n" + _CLOSE,
    _GET + b"Transfer-Encoding: gzip, chunked\r\n" + _CLOSE,
    _GET + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n" + _CLOSE + b"0\r\n\r\n",
    _GET + b"Bad Header: x\r\n" + _CLOSE,
    _GET + b"X: a\x00b\r\n" + _CLOSE,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)


@dataclass
class Doors:
    """What was tried."""

    tries: int = 0
    failures: list[str] = field(default_factory=list)
    """What went through, or was answered otherwise than it should be."""

    def expect(self, held: bool, what: str) -> None:
        """Count a try."""
        self.tries += 1
        if not held:
            self.failures.append(what)


def doors() -> Doors:
    """Try them all."""
    found = Doors()
    with scratch() as folder:
        (folder / "answers.jsonl").write_text(_SCRIPT)
        (folder / "token").write_text(TOKEN)
        (folder / "token").chmod(0o600)
        _refusing_to_start(found, folder)
        with served(folder, _script(folder), "--token-file", str(folder / "token")) as urls:
            _without_the_token(found, urls)
        with served(folder, _script(folder)) as urls:
            _tricks(found, urls["http"])
    return found


def _refusing_to_start(found: Doors, folder: Path) -> None:
    for host in ("0.0.0.0", "::", socket.gethostname()):  # noqa: S104
        for door in ("--http", "--grpc"):
            command = [*_command(_script(folder)), "--host", host, door, "0"]
            ran = subprocess.run(
                command, env=_environment(folder), capture_output=True, text=True, timeout=60, check=False
            )
            refused = ran.returncode == 2 and "token" in ran.stderr and "Traceback" not in ran.stderr
            found.expect(refused, f"{host} {door} without a token: {ran.returncode} {ran.stderr[-200:]}")


def _without_the_token(found: Doors, urls: dict[str, str]) -> None:
    for path in _PATHS:
        for shown in _SHOWN:
            shows = [("Host", "localhost"), ("Authorization", shown)]
            status, body = _asked(urls["http"], path, shows, None if path in _GETS else b"{}")
            found.expect(status == 401 and b"Hello" not in body, f"{path} with {shown!r}: {status}")
    status, _ = _asked(urls["http"], f"/v1/models?token={TOKEN}", [("Host", "localhost")])
    found.expect(status == 401, f"a token in the address: {status}")
    good = [("Host", "localhost"), ("Authorization", f"Bearer {TOKEN}")]
    found.expect(_asked(urls["http"], "/v1/models", good)[0] == 200, "the right token was refused")
    with grpc.insecure_channel(urls["grpc"].removeprefix("grpc://")) as channel:
        stub = llm_pb2_grpc.LanguageModelStub(channel)  # type: ignore[no-untyped-call]  # generated
        for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", TOKEN),)):
            code = _code(lambda: stub.Encode(pb.EncodeRequest(text="x"), metadata=metadata))  # noqa: B023
            found.expect(code == grpc.StatusCode.UNAUTHENTICATED, f"gRPC with {metadata}: {code}")


def _tricks(found: Doors, url: str) -> None:
    for path in _TRAVERSALS:
        status, body = _asked(url, path, [("Host", "localhost")])
        found.expect(400 <= status < 500 and b"root:" not in body, f"{path}: {status}")
    for host in _HOSTS:
        status, _ = _asked(url, "/v1/models", [("Host", host)])
        found.expect(400 <= status < 500, f"Host: {host}: {status}")
    for sent in _HEADERS:
        status, _ = _raw(url, sent)
        found.expect(400 <= status < 500, f"{sent!r}: {status}")
    status, _ = _asked(url, "/v1/models", [("Host", "localhost"), ("Origin", "https://evil.example")])
    found.expect(status == 403, f"another page's origin: {status}")
    found.expect(_asked(url, "/v1/models", [("Host", "localhost")])[0] == 200, "whoever may ask was refused")


def _script(folder: Path) -> str:
    return f"script:{folder / 'answers.jsonl'}"


def _command(model: str) -> list[str]:
    return [sys.executable, "-m", "mindset", "serve", model]


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "MINDSET_TOKEN"}
    return kept | {"MINDSET_CALLS": f"sqlite:///{folder / 'calls.sqlite'}"}


@contextmanager
def served(folder: Path, model: str, *more: str) -> Iterator[dict[str, str]]:
    """`mindset serve` at free ports, with its log in `folder`; gives the URLs by kind."""
    command = [*_command(model), "--http", "0", "--grpc", "0", "--json", *more]
    process = subprocess.Popen(command, env=_environment(folder), stdout=subprocess.PIPE, text=True)
    try:
        told = ""
        while process.stdout is not None and not told.endswith("  }\n}\n"):
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the server did not start: {told}")
            told += line
        yield json.loads(told)["urls"]
    finally:
        process.terminate()
        process.wait(60)


def _asked(
    url: str, path: str, headers: Sequence[tuple[str, str]], body: bytes | None = None
) -> tuple[int, bytes]:
    more = [] if body is None else [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    lines = "".join(f"{name}: {value}\r\n" for name, value in [*headers, *more])
    first = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1"
    return _raw(url, f"{first}\r\n{lines}Connection: close\r\n\r\n".encode("latin-1") + (body or b""))


def _raw(url: str, sent: bytes) -> tuple[int, bytes]:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:  # type: ignore[arg-type]
        connection.sendall(sent)
        told = b""
        while piece := connection.recv(1 << 16):
            told += piece
    return (int(told.split()[1]) if told.startswith(b"HTTP/1.1 ") else 0), told


def _code(call: object) -> grpc.StatusCode | None:
    try:
        call()  # type: ignore[operator]
    except grpc.RpcError as error:
        return error.code()  # type: ignore[no-any-return,attr-defined]
    return None


if __name__ == "__main__":
    told = doors()
    print(f"{told.tries} tries, {len(told.failures)} failures")
    print("\n".join(told.failures))
