"""A model behind gRPC answers as the same model beside us does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("grpc", reason="the extra `serve` is missing")
from benchmarks.serving_echo import EchoClient
from mindset.errors import (
    CallError,
    DataError,
    MissingError,
    OverloadedError,
    UnsupportedRequestError,
    UsageError,
)
from mindset.llm.capabilities import Capabilities
from mindset.llm.client import Client
from mindset.llm.events import Alternative, Event, Finished, Read, Retried, Started, TextPiece, Token, to_json
from mindset.llm.grpc_client import GrpcClient
from mindset.llm.keys import store_key
from mindset.llm.messages import Image, ToolCall, system, user
from mindset.llm.opening import open_client
from mindset.llm.policy import Policy
from mindset.llm.request import ForwardRequest, Options, Request, ToolSpec
from mindset.llm.scripted import Line, ScriptedClient
from mindset.llm.serve.limits import Limits
from mindset.llm.serve.listening import Doors
from mindset.llm.serve.server import Server, serving

ONCE = Policy(attempts=1)
HELLO = Request((user("hello there"),))
Serve = Callable[..., Server]


@pytest.fixture
def served() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda client, **more: stack.enter_context(
            serving(client, more.pop("doors", Doors(grpc=0)), **more)
        )


async def events_of(client: Client, request: Request) -> list[Event]:
    async with client:
        return [event async for event in client.complete(request)]


class Rich(ScriptedClient):
    """A model whose events have all that events can have."""

    async def _stream(self, request: Request) -> Any:
        yield Retried("the line was busy", 0.25)
        yield Started("tiny-2", "h" * 40)
        token = Token(
            "é", -0.1, 5, (Alternative("é", -0.1, 5), Alternative("x", -9.5)), (Read(1, 2, 0.5, "facts"),)
        )
        yield TextPiece("é", (token, Token("")))
        yield TextPiece("")
        yield Finished("length")


SCRIPTS: dict[str, Callable[[], ScriptedClient]] = {
    "text": lambda: ScriptedClient(["one two"]),
    "thoughts and tools": lambda: ScriptedClient(
        [Line("I add.", reasoning="hm", tool_calls=(ToolCall("c", "add", '{"é": 1}'),))]
    ),
    "everything": lambda: Rich(["unused"]),
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("door", ["port", "socket"])
def test_the_same_events_come_out_as_went_in(served: Serve, tmp_path: Path, name: str, door: str) -> None:
    doors = Doors(grpc=0) if door == "port" else Doors(grpc_socket=tmp_path / "s")
    urls = served(SCRIPTS[name](), doors=doors).urls
    request = Request(
        (system("Be brief."), user("What?", Image("image/png", b"png"))),
        options=Options(logprobs=2, seed=1, stop=("x",), extra={"a": [None]}),
        tools=(ToolSpec("add", "Adds.", {"type": "object"}),),
        tool_choice="auto",
    )
    beside = asyncio.run(events_of(SCRIPTS[name](), request))
    there = asyncio.run(events_of(GrpcClient(urls.grpc or urls.grpc_socket), request))
    assert there == beside
    assert [to_json(one) for one in there] == [to_json(one) for one in beside]


def test_the_request_arrives_as_it_was_sent(served: Serve) -> None:
    script = ScriptedClient(["yes"])
    request = Request(prompt="x\x00é", options=Options(temperature=0.1, schema={"type": "object"}, top_k=3))
    asyncio.run(events_of(GrpcClient(served(script).urls.grpc), request))
    assert script.requests == [request]


def test_vectors_tokens_and_passes_are_the_models_own(served: Serve) -> None:
    url = served(EchoClient()).urls.grpc

    async def go(client: Client) -> tuple[Any, ...]:
        async with client:
            inside = await client.forward(
                ForwardRequest(prompt="hé", hidden_states=True, attention=True, reads=2, last=True)
            )
            return (
                (await client.embed(["a", "a b"])).vectors, await client.encode("hé"),
                await client.decode([104, 195, 169]), inside, await client.content_hash(), client.capabilities,
            )  # fmt: skip

    beside, there = asyncio.run(go(EchoClient())), asyncio.run(go(GrpcClient(url)))
    np.testing.assert_array_equal(there[0], beside[0])
    assert there[1:3] == beside[1:3] == ((104, 195, 169), "hé")
    for name in ("logits", "hidden_states", "attention"):
        np.testing.assert_array_equal(getattr(there[3], name), getattr(beside[3], name))
    for name in ("ids", "reads", "model", "content_hash", "usage"):
        assert getattr(there[3], name) == getattr(beside[3], name)
    assert there[4:] == beside[4:]


def test_errors_come_back_as_they_were(served: Serve) -> None:
    lines = [Line(fails="dead"), Line("a b c", fails="dead in the middle", fails_after=1)]
    can = Capabilities(chat=True, stream=True, tokens=True)
    url = served(ScriptedClient(lines, capabilities=can, policy=ONCE)).urls.grpc

    async def go() -> None:
        async with GrpcClient(url, policy=ONCE) as client:
            with pytest.raises(CallError, match=r"^dead$") as dead:
                await client.chat("x")
            assert not dead.value.retry
            stream = client.complete(HELLO)
            with pytest.raises(CallError, match="dead in the middle"):
                await stream.answer()
            assert stream.so_far().text == "a"
            with pytest.raises(UnsupportedRequestError, match=f"{url} cannot be asked for embeddings"):
                await client.embed(["x"])
            with pytest.raises(DataError, match="surrogates not allowed"):
                await client.chat("\ud800")
        async with GrpcClient(served(EchoClient()).urls.grpc, policy=ONCE) as client:
            with pytest.raises(DataError, match="bytes, 0 to 255"):
                await client.decode([999])

    asyncio.run(go())


def test_a_full_queue_is_tried_again_when_it_says(served: Serve) -> None:
    server = served(EchoClient(pace=0.02), limits=Limits(places=1))

    async def go() -> list[str]:
        async with GrpcClient(server.urls.grpc, policy=Policy(attempts=8, longest_wait=5)) as client:
            answers = await asyncio.gather(*(client.chat(f"word{n} and a few more") for n in range(3)))
        async with GrpcClient(server.urls.grpc, policy=ONCE) as client:
            first = asyncio.ensure_future(client.chat("x " * 100))
            while not server.desk.taken:
                await asyncio.sleep(0.01)
            with pytest.raises(OverloadedError, match="all 1 places") as full:
                await client.chat("y")
            assert full.value.retry_after == 1
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
        return [answer.text for answer in answers]

    assert asyncio.run(go()) == [f"You said: word{n} and a few more" for n in range(3)]


def test_leaving_a_stream_frees_the_place_there(served: Serve) -> None:
    server = served(EchoClient(pace=0.05))

    async def go() -> str:
        async with GrpcClient(server.urls.grpc) as client:
            async with client.complete(Request((user("word " * 100),))) as stream:
                async for event in stream:
                    if isinstance(event, TextPiece):
                        break
            assert stream.so_far().finish_reason == "cancelled"
            for _ in range(500):
                if not server.desk.taken:
                    break
                await asyncio.sleep(0.01)
            return stream.so_far().text

    assert asyncio.run(go()) == "You"
    assert server.desk.taken == 0


def test_a_client_is_used_again_in_another_loop_and_after_it_was_closed(served: Serve) -> None:
    client = GrpcClient(served(EchoClient()).urls.grpc)

    async def once() -> str:
        return (await client.chat("hi")).text

    async def and_close() -> str:
        async with client:
            return await once()

    for go in (once, once, and_close, and_close):
        assert asyncio.run(go()) == "You said: hi"
    asyncio.run(client.close())


def test_who_is_not_there_and_who_is_none(served: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = served(EchoClient(), doors=Doors(http=0, grpc=0), token="a-token-of-many-letters")

    async def fails(url: str, **more: Any) -> Exception:
        async with GrpcClient(url, policy=ONCE, **more) as client:
            with pytest.raises((CallError, UsageError, MissingError)) as found:
                await client.chat("x", timeout=20)
            return found.value

    assert "nobody answers there" in str(asyncio.run(fails("grpc://127.0.0.1:9")))
    assert isinstance(
        asyncio.run(fails(server.urls.http.replace("http://", "grpc://").removesuffix("/v1"))), CallError
    )
    assert "no token" in str(asyncio.run(fails(server.urls.grpc)))
    assert "a wrong token" in str(asyncio.run(fails(server.urls.grpc, key="wrong")))
    monkeypatch.setenv("MINDSET_TOKEN", "a-token-of-many-letters")
    assert len(asyncio.run(events_of(GrpcClient(server.urls.grpc), HELLO))) == 6
    monkeypatch.delenv("MINDSET_TOKEN")
    store_key(server.urls.grpc.removeprefix("grpc://"), "a-token-of-many-letters")
    assert len(asyncio.run(events_of(GrpcClient(server.urls.grpc), HELLO))) == 6
    monkeypatch.setenv("MINDSET_TOKEN", "a-token-of-many-letters")
    assert GrpcClient("grpc://other.example:1")._metadata == ()  # shown on this machine only
    for wrong in ("grpc://x", "http://x:1", "unix:"):
        with pytest.raises(UsageError, match="is no daemon's address"):
            GrpcClient(wrong)


def test_it_is_what_model_means(served: Serve) -> None:
    url = served(EchoClient()).urls.grpc
    client = open_client(url, attempts=1)
    assert isinstance(client, GrpcClient)
    assert asyncio.run(client.chat("hi")).text == "You said: hi"
