"""mindset's own client of OpenAI's API, at mindset's own server: what comes out is what the model said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest

from benchmarks.serving_echo import EchoClient
from mindset.calls.call import Usage
from mindset.errors import CallError, CallTimeoutError, DataError, MindsetError, OverloadedError
from mindset.llm.client import Client
from mindset.llm.events import Alternative, Answer, Finished, Started, TextPiece, Token
from mindset.llm.messages import Image, ToolCall, system, user
from mindset.llm.openai_client import OpenAIClient
from mindset.llm.policy import Policy
from mindset.llm.request import ForwardRequest, Options, Request, ToolSpec
from mindset.llm.scripted import Line, ScriptedClient
from mindset.llm.serve.limits import Limits
from mindset.llm.serve.server import Server

Serve = Callable[..., Server]
ONCE = Policy(attempts=1)
ADD = ToolSpec("add", "Adds.", {"type": "object"})
DIALOG = (system("Be brief."), user("What?", Image("image/png", b"png")))


class Rich(ScriptedClient):
    """A model whose tokens have all that tokens can have."""

    async def _stream(self, request: Request) -> Any:
        yield Started("tiny", "h" * 40)
        yield TextPiece("é", (Token("é", -0.1, 5, (Alternative("é", -0.1, 5), Alternative("x", -9.5))),))
        yield Finished("length", Usage(9, 1, 3))


SCRIPTS: dict[str, Callable[[], ScriptedClient]] = {
    "text": lambda: ScriptedClient(["one two  three\n"], model="tiny"),
    "thoughts and tools": lambda: ScriptedClient(
        [
            Line(
                "I add.",
                reasoning="hm hm",
                tool_calls=(ToolCall("c", "add", '{"é": 1}'), ToolCall("d", "add", "{}")),
            )
        ],
        model="tiny",
    ),
    "tokens": lambda: Rich(["unused"], model="tiny"),
}


def our_client(server: Server, **more: Any) -> OpenAIClient:
    return OpenAIClient(f"{server.urls.http}#{server.desk.names[0]}", policy=ONCE, **more)


async def answer_of(client: Client, request: Request) -> Answer:
    async with client:
        return await client.complete(request).answer()


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("api", ["chat", "responses", "prompt"])
def test_the_same_answer(
    served: Serve, name: str, stream: bool, api: Literal["chat", "responses", "prompt"]
) -> None:
    if api == "prompt" and name == "thoughts and tools":
        return  # raw text has neither
    logprobs = {"logprobs": 2} if name == "tokens" else {}
    request = Request(
        () if api == "prompt" else DIALOG,
        prompt="Once" if api == "prompt" else None,
        options=Options(temperature=0.5, max_tokens=30, **logprobs),
        tools=() if api == "prompt" else (ADD,),
    )
    beside = asyncio.run(answer_of(SCRIPTS[name](), request))
    script = SCRIPTS[name]()
    client = our_client(served(script), stream=stream, api="chat" if api == "prompt" else api)
    there = asyncio.run(answer_of(client, request))
    assert there.message == beside.message
    assert (there.finish_reason, there.usage, there.model) == (beside.finish_reason, beside.usage, "tiny")
    assert [(one.text, one.logprob) for one in there.tokens] == [
        (one.text, one.logprob) for one in beside.tokens
    ]
    assert [len(one.alternatives) for one in there.tokens] == [len(one.alternatives) for one in beside.tokens]
    for asked in script.requests:
        assert asked == request


def test_vectors_tokens_and_passes(served: Serve) -> None:
    async def go(client: Client) -> tuple[Any, ...]:
        async with client:
            inside = await client.forward(
                ForwardRequest(prompt="hé", hidden_states=True, attention=True, reads=2, last=True)
            )
            vectors = (await client.embed(["a", "a b"])).vectors
            return vectors, await client.encode("hé"), await client.decode([104, 195, 169]), inside

    beside, there = asyncio.run(go(EchoClient())), asyncio.run(go(our_client(served())))
    np.testing.assert_array_equal(there[0], beside[0])
    assert there[1:3] == beside[1:3]
    for name in ("logits", "hidden_states", "attention"):
        np.testing.assert_array_equal(getattr(there[3], name), getattr(beside[3], name))
    for name in ("ids", "reads", "content_hash", "usage"):
        assert getattr(there[3], name) == getattr(beside[3], name)


async def failure(client: Client, request: Request) -> MindsetError:
    async with client:
        with pytest.raises(MindsetError) as found:
            await client.complete(request).answer()
    return found.value


@pytest.mark.parametrize("stream", [True, False])
def test_failures(served: Serve, stream: bool) -> None:
    dead = ScriptedClient([Line("a b", fails="the line is dead", fails_after=1)], model="tiny", policy=ONCE)
    error = asyncio.run(failure(our_client(served(dead), stream=stream), Request(DIALOG)))
    assert isinstance(error, CallError)
    assert "the line is dead" in str(error)
    wrong = Request(DIALOG, options=Options(extra={"temperature": "hot"}))
    assert "temperature" in str(asyncio.run(failure(our_client(served(), stream=stream), wrong)))
    late = served(EchoClient(delay=30), limits=Limits(answer_seconds=0.3))
    error = asyncio.run(failure(our_client(late, stream=stream), Request(DIALOG)))
    assert isinstance(error, CallError | CallTimeoutError)
    assert "0.3 seconds" in str(error)


def test_a_full_server(served: Serve) -> None:
    server = served(EchoClient(pace=0.1), limits=Limits(places=1))

    async def go() -> MindsetError:
        async with our_client(server) as client:
            first = asyncio.ensure_future(client.chat("x " * 50))
            while not server.desk.taken:
                await asyncio.sleep(0.01)
            error = await failure(our_client(server), Request(DIALOG))
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            return error

    error = asyncio.run(go())
    assert isinstance(error, OverloadedError)
    assert error.retry_after == 1


def test_text_that_is_none(served: Serve) -> None:
    error = asyncio.run(failure(our_client(served()), Request((user("\ud800"),))))
    assert isinstance(error, DataError | CallError)
