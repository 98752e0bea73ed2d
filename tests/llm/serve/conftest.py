"""Servers of scripted models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

pytest.importorskip("grpc", reason="the extra `serve` is missing")
pytest.importorskip("uvicorn", reason="the extra `serve` is missing")
from benchmarks.serving_echo import EchoClient
from mindset.llm.client import Client
from mindset.llm.serve.server import Server, serving

Served = Callable[..., Server]


@pytest.fixture
def served() -> Iterator[Served]:
    """Starts servers: served(CLIENT, DOORS, ...); without a client, one that says back what it was told."""
    with ExitStack() as stack:

        def start(client: Client | None = None, *more: Any, **options: Any) -> Server:
            return stack.enter_context(serving(client or EchoClient(), *more, **options))

        yield start


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """The URL of a server that says back what it was told, without /v1."""
    with serving(EchoClient()) as server:
        yield server.urls.http.removesuffix("/v1")
