"""A model of this process behind all doors: a tiny one."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from llm.local_models import teacher
from llm.serve.asking import ask, until

from benchmarks.serving_fuzz import fuzz
from mindset.llm.grpc_client import GrpcClient
from mindset.llm.opening import open_client
from mindset.llm.request import ForwardRequest, Options, Request
from mindset.llm.serve.limits import Limits
from mindset.llm.serve.listening import Doors
from mindset.llm.serve.server import Server, serving

ASKED = {"prompt": "one two three", "max_tokens": 12, "temperature": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = teacher(tmp_path_factory.mktemp("served") / "teacher")
    path = made / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_new_tokens": 4}))
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    client = open_client(str(folder), attempts=1)
    with serving(client, Doors(http=0, grpc=0), names=("tiny",), limits=Limits(places=8)) as started:
        yield started


def test_every_way_says_the_same(server: Server, folder: Path) -> None:
    url = server.urls.http
    whole = ask(url, "/v1/completions", ASKED).json["choices"][0]["text"]
    pieces = ask(url, "/v1/completions", ASKED | {"stream": True}).events[:-1]
    assert "".join(one["choices"][0]["text"] for one in pieces) == whole

    async def others() -> list[str]:
        request = Request(prompt="one two three", options=Options(max_tokens=12, temperature=0.0))
        told = []
        for client in (GrpcClient(server.urls.grpc), open_client(str(folder)), open_client(f"{url}#tiny")):
            async with client:
                told.append((await client.complete(request).answer()).text)
        return told

    assert asyncio.run(others()) == [whole] * 3


def test_the_inside_is_the_models_own(server: Server, folder: Path) -> None:
    request = ForwardRequest(prompt="one two", hidden_states=True, attention=True)

    async def beside(client: Any) -> Any:
        async with client:
            return await client.forward(request)

    own, there = (
        asyncio.run(beside(one)) for one in (open_client(str(folder)), GrpcClient(server.urls.grpc))
    )
    for name in ("logits", "hidden_states", "attention"):
        np.testing.assert_array_equal(getattr(there, name), getattr(own, name))
    assert (there.ids, there.content_hash) == (own.ids, own.content_hash)


def test_many_at_once_each_get_their_own_and_some_leave(server: Server) -> None:
    prompts = [f"{n} bottles" for n in range(8)]

    def one(prompt: str) -> str:
        with openai.OpenAI(base_url=server.urls.http, api_key="none", max_retries=0) as client:
            answer = client.completions.create(model="tiny", prompt=prompt, max_tokens=8, temperature=0)
            return answer.choices[0].text

    def leave(prompt: str) -> None:
        with openai.OpenAI(base_url=server.urls.http, api_key="none", max_retries=0) as client:
            stream = client.completions.create(model="tiny", prompt=prompt, max_tokens=200, stream=True)
            next(iter(stream))
            stream.close()

    alone = [one(prompt) for prompt in prompts]
    left = [threading.Thread(target=leave, args=(prompt,)) for prompt in prompts[:3]]
    with ThreadPoolExecutor(4) as pool:
        for thread in left:
            thread.start()
        assert list(pool.map(one, prompts)) == alone
    for thread in left:
        thread.join()
    until(lambda: server.desk.taken == 0)


def test_nothing_that_comes_breaks_it(folder: Path) -> None:
    found = fuzz(60, 5, open_client(str(folder), attempts=1))
    assert found.failures == []
    assert found.left == 0
