"""One model asked in three ways: in this process, over HTTP and over gRPC. The log must not see a difference.

Compared: the text, whether the rows have the same columns filled, and the hash of the model's files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from benchmarks.timing import scratch
from mindset.calls.log import CallLog
from mindset.calls.schema import CALLS
from mindset.database.engine import reading
from mindset.llm.grpc_client import GrpcClient
from mindset.llm.local import LocalClient
from mindset.llm.messages import user
from mindset.llm.openai_client import OpenAIClient
from mindset.llm.request import Options, Request
from mindset.llm.serve.listening import Doors
from mindset.llm.serve.server import serving

__all__ = ["Ways", "three_ways"]

DIFFER = ("id", "run", "process", "parent", "began", "model", "client", "endpoint", "key", "seconds", "first_token",
          "local_seconds", "cost", "price", "cached_tokens")  # fmt: skip
"""Columns in which the ways may differ: who asked whom, and how long it took."""


@dataclass(frozen=True)
class Ways:
    """What came of it."""

    requests: int
    same_text: float
    """Share of requests that all three answered alike, to the letter."""
    same_shape: float
    """Share of requests whose three rows have the same columns filled."""
    same_dialog: float
    """Share of requests whose answers are the same node of the dialog tree."""
    hashes: int
    """Different hashes of the model's files."""


def three_ways(model: str, prompts: Sequence[str], *, new: int = 24) -> Ways:
    """Ask every prompt in the three ways, one at a time, with a seed of its own."""
    with scratch() as folder:
        log = CallLog.open(f"sqlite:///{folder / 'calls.sqlite'}")
        behind = CallLog.open(f"sqlite:///{folder / 'served.sqlite'}")
        with serving(LocalClient(model, log=behind), Doors(http=0, grpc=0)) as server:
            clients = {
                "local": LocalClient(model, log=log),
                "http": OpenAIClient(server.desk.names[0], base_url=server.urls.http, log=log),
                "grpc": GrpcClient(server.urls.grpc, log=log),
            }
            heard = asyncio.run(_ask(clients, prompts, new))
            with reading(log.engine) as connection:
                rows = {row["id"]: dict(row) for row in connection.execute(sa.select(CALLS)).mappings()}
        log.close()
        behind.close()
    return _compared(heard, rows)


async def _ask(clients: dict[str, Any], prompts: Sequence[str], new: int) -> list[list[Any]]:
    heard = []
    for number, prompt in enumerate(prompts):
        options = Options(max_tokens=new, temperature=1.0 if number % 2 else 0.0, seed=number)
        request = Request((user(prompt),), options=options)
        heard.append([await client.complete(request).answer() for client in clients.values()])
    for client in clients.values():
        await client.close()
    return heard


def _compared(heard: list[list[Any]], rows: dict[int, dict[str, Any]]) -> Ways:
    text = shape = dialog = 0
    for answers in heard:
        own = [rows[answer.call_id] for answer in answers]
        filled = [
            {name: value is not None for name, value in row.items() if name not in DIFFER} for row in own
        ]
        text += len({answer.text for answer in answers}) == 1
        shape += all(one == filled[0] for one in filled)
        dialog += len({row["answered"] for row in own}) == 1
    hashes = {answer.content_hash for answers in heard for answer in answers}
    count = len(heard)
    return Ways(count, text / count, shape / count, dialog / count, len(hashes))
