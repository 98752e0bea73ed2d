from __future__ import annotations

import asyncio
import base64
import re
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from llm.loopback import QUESTION, Reply, ask, serving, sse, stream, whole

from mindset.calls.call import Usage
from mindset.calls.log import CallLog
from mindset.errors import CallError, OverloadedError, UnsupportedRequestError, UsageError
from mindset.llm.events import (
    Alternative,
    Answer,
    Event,
    Finished,
    Read,
    ReasoningPiece,
    Retried,
    Started,
    TextPiece,
    Token,
)
from mindset.llm.messages import (
    Image,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    assistant,
    system,
    tool_result,
)
from mindset.llm.openai_client import OpenAIClient
from mindset.llm.policy import Policy
from mindset.llm.request import ForwardRequest, Options, Request, ToolSpec

Go = Callable[[Any], Any]
ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def delta(reason: str | None = None, **said: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": said, "finish_reason": reason}
    return {"id": "1", "model": "m-2026", "choices": [choice]}


USAGE = {
    "choices": [],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    },
}
SPOKEN = stream(
    sse(
        delta(role="assistant"),
        delta(content="It was "),
        delta(content="Bram."),
        delta("stop"),
        USAGE,
        "[DONE]",
    )
)


def test_a_streamed_answer(log: CallLog) -> None:
    events, server = ask(log, SPOKEN)
    assert events == [
        Started("m-2026"),
        TextPiece("It was "),
        TextPiece("Bram."),
        Finished("stop", Usage(9, 3, 4, 2)),
    ]
    got = server.got[0]
    assert got.path == "/v1/chat/completions"
    assert "authorization" not in got.headers
    assert got.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Who?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert log.call(1).asked.model == f"{server.url}#m"


def test_everything_that_can_be_asked_is_sent(log: CallLog) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string"}}}
    request = Request(
        (
            system("Be brief."),
            Message(
                "user", (Text("What is this?"), Image(data=b"png"), Image(url="https://example.org/a.png"))
            ),
            Message("assistant", (Reasoning("hm"), Text("Let me see."), ToolCall("c1", "add", '{"a": 1}'))),
            tool_result(ToolResult("c1", "2", "add")),
            assistant("Two.", ToolCall("c2", "add", "")),
            Message("tool", (ToolResult("c2", "3"), ToolResult("c3", "no such call", is_error=True))),
        ),
        options=Options(
            max_tokens=5,
            temperature=0.5,
            top_p=0.9,
            top_k=3,
            seed=7,
            stop=("\n",),
            logprobs=2,
            schema=schema,
            extra={"service_tier": "flex"},
        ),
        tools=(ADD,),
        tool_choice="add",
    )
    _, server = ask(log, SPOKEN, request=request)
    body = server.got[0].body
    assert body.pop("messages") == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,cG5n"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
        {
            "role": "assistant",
            "content": "Two.",
            "tool_calls": [{"id": "c2", "type": "function", "function": {"name": "add", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c2", "content": "3"},
        {"role": "tool", "tool_call_id": "c3", "content": "no such call"},
    ]
    assert body == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "seed": 7,
        "stop": ["\n"],
        "logprobs": True,
        "top_logprobs": 2,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": False},
        },
        "tools": [
            {
                "type": "function",
                "function": {"name": "add", "description": "Adds.", "parameters": ADD.parameters},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "service_tier": "flex",
    }


def test_a_raw_prompt_goes_the_old_way(log: CallLog) -> None:
    chunk = {
        "model": "m",
        "choices": [
            {
                "index": 0,
                "text": " a time",
                "logprobs": {
                    "tokens": [" a", " time"],
                    "token_logprobs": [-0.5, None],
                    "top_logprobs": [{" a": -0.5, " the": -1.5}, None],
                },
            }
        ],
    }
    end = {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}
    request = Request(prompt="Once upon", options=Options(max_tokens=2, logprobs=2))
    events, server = ask(log, stream(sse(chunk, end, "[DONE]")), request=request)
    tokens = (Token(" a", -0.5, None, (Alternative(" a", -0.5), Alternative(" the", -1.5))), Token(" time"))
    assert events == [Started("m"), TextPiece(" a time", tokens), Finished("length")]
    assert server.got[0].path == "/v1/completions"
    assert server.got[0].body["prompt"] == "Once upon"
    assert server.got[0].body["logprobs"] == 2


def test_tokens_carry_what_our_own_server_tells(log: CallLog) -> None:
    token = {
        "token": " Rome",
        "logprob": -0.1,
        "id": 7,
        "top_logprobs": [{"token": " Paris", "logprob": -2.5, "id": 8}],
        "reads": [{"layer": 4, "slot": 46086, "influence": 1.5, "overlay": "tour"}],
    }
    chunk = {
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": " Rome"}, "logprobs": {"content": [token]}}],
    }
    chunk["system_fingerprint"] = "ab" * 20
    events, _ = ask(log, stream(sse(chunk, delta("stop"), "[DONE]")))
    said = Token(" Rome", -0.1, 7, (Alternative(" Paris", -2.5, 8),), (Read(4, 46086, 1.5, "tour"),))
    assert events == [Started("m", "ab" * 20), TextPiece(" Rome", (said,)), Finished("stop")]
    assert log.call(1).outcome.content_hash == "ab" * 20


def calls(*pieces: Any, reason: str = "tool_calls") -> Reply:
    return stream(sse(*(delta(tool_calls=[piece]) for piece in pieces), delta(reason), "[DONE]"))


def call(
    index: int | None = None, key: str | None = None, name: str | None = None, arguments: Any = None
) -> dict[str, Any]:
    told: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return told | ({} if index is None else {"index": index}) | ({} if key is None else {"id": key})


@pytest.mark.parametrize(
    "reply",
    [
        calls(
            call(0, "a", "add", ""),
            call(0, arguments='{"x"'),
            call(1, "b", "sub", ""),
            call(0, arguments=": 1}"),
            call(1, arguments="{}"),
        ),
        calls(call(None, "a", "add", '{"x": 1}'), call(None, "b", "sub", "{}")),
        calls(call(None, "a", "add", {"x": 1}), call(None, "b", "sub", {}), reason="stop"),
        calls(call(2, "a", "add", '{"x": 1}'), call(5, "b", "sub", "{}")),
        whole(
            {
                "model": "m",
                "choices": [
                    {
                        "message": {
                            "content": None,
                            "tool_calls": [call(None, "a", "add", '{"x": 1}'), call(None, "b", "sub", "{}")],
                        },
                        "finish_reason": "stop",
                    }
                ],
            }
        ),
    ],
)
def test_tool_calls_in_every_shape(log: CallLog, reply: Reply) -> None:
    events, _ = ask(log, reply)
    row = log.call(1).outcome
    assert [dict(node.content) for node in row.answer[1:]] == [
        {"id": "a", "name": "add", "arguments": '{"x": 1}'},
        {"id": "b", "name": "sub", "arguments": "{}"},
    ]
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "tool_calls"


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextPiece))


def thoughts_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, ReasoningPiece))


@pytest.mark.parametrize(
    "reply",
    [
        stream(sse(delta(content="hé"), delta(content="llo"), delta("stop"))),
        stream(sse(delta(content="hé"), delta(content="llo"), "[DONE]")),
        stream(sse(delta(content="hé"), delta("stop", content="llo"), USAGE), 5.0),
        stream(sse(delta(content="hé"), delta("eos", content="llo"))[:-2]),
        stream(
            b": ping\n\n", *(bytes([byte]) for byte in sse(delta(content="héllo"), delta("stop"), "[DONE]"))
        ),
        stream(sse(delta(content="héllo"), delta("stop"), "[DONE]").replace(b"\n", b"\r\n")),
        stream(sse({**delta(content="héllo"), "usage": None}, delta("stop"), {"choices": None}, "[DONE]")),
        stream(sse({"choices": [{"message": {"content": "héllo"}, "finish_reason": "stop"}]}, "[DONE]")),
        stream(sse(delta("stop", content=[{"type": "text", "text": "héllo"}]), "[DONE]")),
        whole({"choices": [{"message": {"content": "héllo"}, "finish_reason": "stop"}]}),
        stream(
            sse(delta("stop", content="héllo"), "[DONE]", delta(content="nobody hears this")),
        ),
    ],
)
def test_servers_that_do_it_their_own_way(log: CallLog, reply: Reply) -> None:
    events, _ = ask(log, reply)
    assert text_of(events) == "héllo"
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "stop"


@pytest.mark.parametrize(
    "thought",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
    ],
)
def test_thoughts_under_all_their_names(log: CallLog, thought: dict[str, Any]) -> None:
    events, _ = ask(log, stream(sse(delta(**thought), delta(content="so"), delta("stop"), "[DONE]")))
    assert (thoughts_of(events), text_of(events)) == ("hm", "so")


def test_without_streaming_nothing_is_streamed(log: CallLog) -> None:
    reply = whole(
        {
            "model": "m-1",
            "choices": [{"message": {"content": "all at once"}, "finish_reason": "length"}],
            "usage": USAGE["usage"],
        }
    )
    events, server = ask(log, reply, stream=False)
    assert events == [Started("m-1"), TextPiece("all at once"), Finished("length", Usage(9, 3, 4, 2))]
    assert "stream" not in server.got[0].body


def failing(log: CallLog, *replies: Reply, **settings: Any) -> CallError:
    with pytest.raises(CallError) as raised:
        ask(log, *replies, **settings)
    assert log.call(1).outcome.status == "failed"
    return raised.value


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (
            whole({"error": {"message": "Incorrect API key", "type": "x", "code": None}}, 401),
            "401 .Unauthorized.: Incorrect API key",
        ),
        (whole({"error": "model 'm' not found"}, 404), "404 .Not Found.: model 'm' not found"),
        (whole({"detail": [{"msg": "field required", "loc": ["body"]}]}, 422), "422 .*field required"),
        (whole({"object": "error", "message": "too long"}, 400), "400 .*: too long"),
        (Reply(b"<html><title>Bad\n gateway</title>..", 418), "418 .*: Bad gateway"),
        (Reply(b"", 405), "405 .*: it gave no reason"),
        (Reply(b"plain words", 403), "403 .*: plain words"),
        (whole({"error": {"message": "You ran out", "code": "insufficient_quota"}}, 429), "You ran out"),
        (Reply(b"", 302, {"location": "https://elsewhere.example"}), "302"),
    ],
)
def test_a_refusal_says_what_the_server_said_and_is_not_tried_again(
    log: CallLog, reply: Reply, sentence: str
) -> None:
    error = failing(log, reply)
    assert error.retry is False
    assert re.search(sentence, str(error)), str(error)


@pytest.mark.parametrize(
    "reply",
    [
        whole({"error": {"message": "slow down"}}, 429, retry_after="0"),
        whole({"error": {"message": "overloaded"}}, 503),
        Reply(b"", 500),
        Reply(b"", 529, {"retry-after-ms": "2"}),
        Reply(b"", 409, {"x-should-retry": "true"}),
        stream(b"", cut=True),
        stream(sse(delta(role="assistant")), cut=True),
        stream(sse(delta(role="assistant"))),
        stream(b"data: {broken\n\n"),
        stream(sse({"error": {"message": "The server had an error", "type": "server_error"}})),
        stream(sse({"message": "busy", "code": 503}, name="error")),
        Reply(b"{", headers={"content-type": "application/json"}),
    ],
)
def test_what_may_pass_is_tried_again(log: CallLog, reply: Reply) -> None:
    events, server = ask(log, reply, SPOKEN)
    assert text_of(events) == "It was Bram."
    assert sum(isinstance(event, Retried) for event in events) == 1
    assert len(server.got) == 2


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (stream(sse(delta(content="It was")), cut=True), "broke"),
        (stream(sse(delta(content="It was"))), "broke off before its answer was finished"),
        (
            stream(sse(delta(content="It was"), {"error": {"message": "lost power", "code": 500}})),
            "lost power",
        ),
        (stream(sse(delta(content="It was"), [1])), "list where an object belongs"),
        (stream(sse(delta(content="It was"), {"choices": [1]})), "shape that nobody here understands"),
        (stream(sse(delta(content="It was"), delta("error"))), "broke off"),
    ],
)
def test_what_breaks_in_the_middle_fails_with_what_was_said(
    log: CallLog, reply: Reply, sentence: str
) -> None:
    error = failing(log, reply, SPOKEN)
    assert sentence in str(error)
    assert log.call(1).outcome.answer[0].content["parts"][0]["text"] == "It was"


def test_a_full_server_says_how_long(log: CallLog) -> None:
    error = failing(log, whole({"error": {"message": "full"}}, 503, retry_after="120"))
    assert isinstance(error, OverloadedError)
    assert error.retry_after == 120


def test_nobody_there(log: CallLog, go: Go, unused_port: int) -> None:
    client = OpenAIClient(
        f"http://127.0.0.1:{unused_port}/v1#m", log=log, policy=Policy(attempts=2, backoff=0)
    )
    with pytest.raises(
        CallError, match=f"cannot reach http://127.0.0.1:{unused_port}/v1: .*is the server running"
    ):
        go(client.chat("Hi"))
    assert len(log.call(1).outcome.retries) == 1


def test_leaving_an_answer_closes_its_connection(log: CallLog, go: Go) -> None:
    endless = stream(*[part for _ in range(400) for part in (sse(delta(content="on and ")), 0.01)])

    async def scenario() -> None:
        async with serving(endless) as server, OpenAIClient(f"{server.url}#m", log=log) as client:
            async with client.complete(QUESTION) as answer:
                async for event in answer:
                    if isinstance(event, TextPiece):
                        break
            for _ in range(100):
                if server.left:
                    break
                await asyncio.sleep(0.01)
            assert server.left == 1
        assert log.call(1).outcome.status == "cancelled"

    go(scenario())


def test_a_connection_is_used_again(log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        async with serving(SPOKEN) as server, OpenAIClient(f"{server.url}#m", log=log) as client:
            for _ in range(3):
                await client.chat("Hi")
            assert server.connections == 1

    go(scenario())


def test_a_client_serves_one_loop_after_another(log: CallLog) -> None:
    async def scenario(client: OpenAIClient | None) -> Answer:
        async with serving(SPOKEN) as server:
            client = OpenAIClient(f"{server.url}#m", log=log)
            answer = await client.chat("Hi")
            await client.close()
            again = await client.chat("Hi")
            await client.close()
            assert again.text == answer.text
            return answer

    assert asyncio.run(scenario(None)).text == "It was Bram."


def test_keys_go_only_where_they_belong(log: CallLog, go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> list[str | None]:
        async with serving(SPOKEN) as server, serving(SPOKEN) as other:
            monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
            monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/")
            for client in (
                OpenAIClient("openai:m", log=log),
                OpenAIClient(f"{server.url}#m", log=log),
                OpenAIClient(f"{other.url}#m", log=log),
                OpenAIClient(f"{other.url}#m", log=log, key="sk-given"),
            ):
                async with client:
                    await client.chat("Hi")
        return [got.headers.get("authorization") for got in (*server.got, *other.got)]

    assert go(scenario()) == [
        "Bearer sk-from-the-environment",
        "Bearer sk-from-the-environment",
        None,
        "Bearer sk-given",
    ]


def test_a_key_that_is_said_aloud_stays_out_of_the_log(log: CallLog, go: Go) -> None:
    key = "unlike-any-known-shape-of-key"

    async def scenario() -> None:
        said = stream(sse(delta(content=f"your key is {key}"), delta("stop"), "[DONE]"))
        async with serving(said) as server, OpenAIClient(f"{server.url}#m", log=log, key=key) as client:
            answer = await client.chat(f"what is {key}?")
            assert key in answer.text

    go(scenario())
    assert key not in repr(log.call(1))


def test_openai_itself_wants_a_key(log: CallLog, go: Go) -> None:
    with pytest.raises(CallError, match="set OPENAI_API_KEY, or run `mindset config set-key openai`"):
        go(OpenAIClient("openai:gpt-5", log=log).chat("Hi"))


@pytest.mark.parametrize(
    ("model", "settings", "sentence"),
    [
        ("openai:", {}, "names no model"),
        ("http://host/v1", {}, "names no model"),
        ("http://me:secret@host/v1#m", {}, "would be logged"),
        ("http://host/v1?x=1#m", {}, "has a query"),
        ("m", {"base_url": "ftp://host"}, "begins with http"),
        ("http://host/v1#m", {"base_url": "http://other/v1"}, "both say where"),
    ],
)
def test_addresses_that_cannot_be_meant(model: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        OpenAIClient(model, **settings)


def test_embeddings_come_in_the_order_of_the_texts(log: CallLog, go: Go) -> None:
    packed = base64.b64encode(np.array([0.5, 0.25], dtype="<f4").tobytes()).decode()
    rows = [{"index": 1, "embedding": packed}, {"index": 0, "embedding": [1, 0]}]
    reply = whole({"data": rows, "model": "e", "usage": {"prompt_tokens": 5}})

    async def scenario() -> None:
        async with serving(reply) as server, OpenAIClient(f"{server.url}#e", log=log) as client:
            found = await client.embed(["a", "b"])
            assert found.vectors.tolist() == [[1, 0], [0.5, 0.25]]
            assert found.vectors.dtype == np.float32
            assert found.usage.prompt_tokens == 5
            with pytest.raises(CallError, match="3 texts were sent, and 2 vectors came back"):
                await client.embed(["a", "b", "c"])

    go(scenario())


def test_extensions_are_used_where_they_are(log: CallLog, go: Go) -> None:
    logits = np.arange(6, dtype="<f4").reshape(2, 3)
    passed = {
        "ids": [1, 2],
        "model": "m",
        "content_hash": "abc",
        "reads": [[], [{"layer": 1, "slot": 2, "influence": 0.5, "overlay": None}]],
        "usage": {"prompt_tokens": 2},
        "arrays": {
            "logits": {"dtype": "<f4", "shape": [2, 3], "data": base64.b64encode(logits.tobytes()).decode()}
        },
    }
    replies = (
        whole({"ids": [1, 2]}),
        whole({"text": "ab"}),
        whole(passed),
        whole({"error": "no"}, 404),
        whole({"x": 1}),
    )

    async def scenario() -> None:
        async with serving(*replies) as server, OpenAIClient(f"{server.url}#m", log=log) as client:
            assert await client.encode("ab") == (1, 2)
            assert await client.decode([1, 2]) == "ab"
            found = await client.forward(ForwardRequest(ids=(1, 2), last=True))
            assert found.logits is not None
            assert found.logits.tolist() == logits.tolist()
            assert found.hidden_states is None
            assert found.reads == ((), (Read(1, 2, 0.5),))
            with pytest.raises(UnsupportedRequestError, match="offers no /encode"):
                await client.encode("ab")
            with pytest.raises(CallError, match="shape that nobody here understands"):
                await client.encode("ab")
            assert [got.path for got in server.got[:3]] == ["/v1/encode", "/v1/decode", "/v1/forward"]
            assert server.got[2].body == {
                "model": "m",
                "ids": [1, 2],
                "logits": True,
                "hidden_states": False,
                "attention": False,
                "last": True,
            }

    go(scenario())
    assert log.call(3).outcome.content_hash == "abc"


def test_many_at_once(log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        slow = stream(0.05, sse(delta(content="yes"), delta("stop"), "[DONE]"))
        async with serving(slow) as server, OpenAIClient(f"{server.url}#m", log=log) as client:
            answers = await asyncio.gather(*(client.chat(str(n)) for n in range(30)))
            assert [answer.text for answer in answers] == ["yes"] * 30

    go(scenario())


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_answers_left_in_every_way_leave_no_connection(log: CallLog, go: Go) -> None:
    endless = stream(*[part for _ in range(400) for part in (sse(delta(content="on and ")), 0.01)])

    async def scenario() -> None:
        async with serving(endless) as server, OpenAIClient(f"{server.url}#m", log=log) as client:
            async for event in client.complete(QUESTION):
                if isinstance(event, TextPiece):
                    break
            tasks = [asyncio.create_task(client.chat(str(number))) for number in range(8)]
            for step, task in enumerate(tasks):
                await asyncio.sleep(step * 0.004)
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with pytest.raises(CallError, match="no full answer within"):
                await client.chat("late", timeout=0.2)
            for _ in range(200):
                if server.closed == server.connections:
                    break
                await asyncio.sleep(0.01)
            assert server.closed == server.connections

    go(scenario())
    with log.engine.connect() as connection:
        rows = dict(connection.exec_driver_sql("SELECT status, count(*) FROM calls GROUP BY status").all())
    assert rows.pop("failed") == 1
    assert set(rows) == {"cancelled"}
