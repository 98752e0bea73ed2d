"""Thousands of bodies and messages at a server: none may be answered by a 5xx, by nothing, or by a hanging connection.

python -m benchmarks.serving_fuzz --count 10000 --seed 0
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import grpc

from benchmarks.serving_bodies import body, message, noise, schemas_by_path
from benchmarks.serving_echo import EchoClient
from mindset.llm.client import Client
from mindset.llm.serve import llm_pb2
from mindset.llm.serve.listening import Doors
from mindset.llm.serve.server import Server, serving

__all__ = ["SAMPLES", "Fuzzed", "check_reply", "fuzz", "post"]

PATIENCE = 20.0
"""Seconds after which an answer counts as one that hangs."""
SAMPLES: dict[str, Any] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}]},
    "/v1/completions": {"prompt": "hello"},
    "/v1/responses": {"input": "hello"},
    "/v1/embeddings": {"input": "hello"},
    "/v1/forward": {"prompt": "hello"},
    "/v1/encode": {"text": "hello"},
    "/v1/decode": {"ids": [104, 105]},
}
"""A right body for each path."""
_ALLOWED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}


@dataclass
class Fuzzed:
    """What came of it."""

    statuses: Counter[str] = field(default_factory=Counter)
    """By way and status."""
    failures: list[str] = field(default_factory=list)
    """What must not be, in sentences."""
    slowest: float = 0.0
    """Seconds of the slowest answer."""
    left: int = 0
    """Places that were never given back."""

    @property
    def sent(self) -> int:
        """How many were sent."""
        return sum(self.statuses.values())


def fuzz(count: int, seed: int, client: Client | None = None) -> Fuzzed:
    """Send `count` requests, four in five over HTTP; the model says back what it is told unless `client` is given."""
    found, rng = Fuzzed(), random.Random(seed)  # noqa: S311
    with serving(client or EchoClient(), Doors(http=0, grpc=0)) as server:
        _over_http(server, count * 4 // 5, rng, found)
        _over_grpc(server, count // 5, rng, found)
        _raw(server, max(1, count // 100), rng, found)
        limit = time.monotonic() + PATIENCE
        while server.desk.taken and time.monotonic() < limit:
            time.sleep(0.01)
        found.left = server.desk.taken
    return found


def post(connection: http.client.HTTPConnection, path: str, data: bytes) -> tuple[int, str, bytes]:
    """Status, media type and body of an answer; a connection that was closed is opened again."""
    connection.request("POST", path, data, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    return reply.status, reply.headers.get("content-type", ""), reply.read()


def check_reply(status: int, kind: str, told: bytes) -> str | None:
    """What is wrong with an answer; None: nothing."""
    if status >= 500:
        return f"{status}: {told[:300]!r}"
    if kind.startswith("text/event-stream"):
        end = told.rstrip().rsplit(b"\n\n", 1)[-1]
        whole = (
            end.endswith(b"data: [DONE]") or b'"response.completed"' in end or b'"response.incomplete"' in end
        )
        return None if whole else f"a stream that ends in {end[:200]!r}"
    try:
        value = json.loads(told)
    except ValueError:
        return f"{status} with a body that is no JSON: {told[:200]!r}"
    if status < 400:
        return None
    error = value.get("error")
    if (
        set(error or ()) != {"message", "type", "param", "code"}
        or not error["message"]
        or "\n" in error["message"]
    ):
        return f"{status} with an error that is none: {told[:200]!r}"
    return None


def _over_http(server: Server, count: int, rng: random.Random, found: Fuzzed) -> None:
    parts = urlsplit(server.urls.http)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    connection.request("GET", "/openapi.json")
    document = json.loads(connection.getresponse().read())
    schemas = schemas_by_path(document)
    paths = sorted(schemas)
    for _ in range(count):
        path = rng.choice(paths)
        data = body(rng, schemas[path], document)
        begun = time.monotonic()
        try:
            status, kind, told = post(connection, path, data)
        except (OSError, http.client.HTTPException) as error:
            found.failures.append(f"{path}: {error!r} for {data[:300]!r}")
            connection.close()
            continue
        found.slowest = max(found.slowest, time.monotonic() - begun)
        found.statuses[f"{path} {status}"] += 1
        wrong = check_reply(status, kind, told)
        if wrong is not None:
            found.failures.append(f"{path}: {wrong} for {data[:300]!r}")
    connection.close()


def _over_grpc(server: Server, count: int, rng: random.Random, found: Fuzzed) -> None:
    service = llm_pb2.DESCRIPTOR.services_by_name["LanguageModel"]
    with grpc.insecure_channel(server.urls.grpc.removeprefix("grpc://")) as channel:
        for _ in range(count):
            method = rng.choice(list(service.methods))
            data = message(rng, method.input_type)
            begun = time.monotonic()
            status = _called(channel, service.full_name, method, data)
            found.slowest = max(found.slowest, time.monotonic() - begun)
            found.statuses[f"{method.name} {status}"] += 1
            if status not in _ALLOWED:
                found.failures.append(f"{method.name}: {status} for {data[:300]!r}")


def _called(channel: Any, service: str, method: Any, data: bytes) -> str:
    path = f"/{service}/{method.name}"
    try:
        if method.server_streaming:
            for _ in channel.unary_stream(path)(data, timeout=PATIENCE):
                pass
        else:
            channel.unary_unary(path)(data, timeout=PATIENCE)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def _raw(server: Server, count: int, rng: random.Random, found: Fuzzed) -> None:
    """Bytes at the port that may not even be HTTP."""
    parts = urlsplit(server.urls.http)
    for _ in range(count):
        data = noise(rng)[:4096] + rng.choice((b"", b"\r\n\r\n"))
        with socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE) as there:
            there.sendall(data)
            there.shutdown(socket.SHUT_WR)
            try:
                told = there.recv(1 << 16)
            except ConnectionResetError:
                told = b""
            except TimeoutError:
                found.failures.append(f"a connection that hangs after {data[:200]!r}")
                continue
        status = told[9:12].decode() if told else "closed"
        found.statuses[f"bytes {status}"] += 1
        if told and not 400 <= int(status) < 500:
            found.failures.append(f"{status} for {data[:200]!r}")


def main() -> None:
    """Print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    begun = time.monotonic()
    found = fuzz(given.count, given.seed)
    for what, count in sorted(found.statuses.items()):
        print(f"{count:7,}  {what}")
    print(
        f"{found.sent:,} sent in {time.monotonic() - begun:.0f} s, slowest {found.slowest:.2f} s, {found.left} left"
    )
    for failure in found.failures[:20]:
        print(failure)
    raise SystemExit(bool(found.failures or found.left))


if __name__ == "__main__":
    main()
