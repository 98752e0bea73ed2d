"""Chat as OpenAI's own client asks it, unchanged."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from llm.serve.asking import ask

from benchmarks.serving_echo import EchoClient
from mindset.calls.call import Usage
from mindset.llm.events import Alternative, Finished, Read, Started, TextPiece, Token, ToolCallPiece
from mindset.llm.messages import Image, Reasoning, Text, ToolCall, ToolResult
from mindset.llm.request import Request
from mindset.llm.scripted import Line, ScriptedClient
from mindset.llm.serve.server import Server

PATH = "/v1/chat/completions"
HELLO: Any = [{"role": "user", "content": "hello there"}]
TOOL: Any = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}},
}  # fmt: skip


def client_of(server: Server, **more: Any) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=server.urls.http, api_key=more.pop("api_key", "none"), max_retries=0, **more
    )


@pytest.fixture
def scripted(served: Callable[..., Server]) -> Callable[..., tuple[openai.OpenAI, ScriptedClient]]:
    def start(*lines: Any) -> tuple[openai.OpenAI, ScriptedClient]:
        client = ScriptedClient(list(lines), model="tiny")
        return client_of(served(client)), client

    return start


def test_an_answer_at_once(served: Callable[..., Server]) -> None:
    with client_of(served()) as client:
        answer = client.chat.completions.create(model="echo", messages=HELLO, max_tokens=3, seed=1)
    (choice,) = answer.choices
    assert choice.message.content == "You said: hello"
    assert choice.message.role == "assistant"
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "length", None)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        2,
        3,
        5,
    )
    assert (answer.object, answer.model) == ("chat.completion", "echo")


def test_an_answer_in_pieces(served: Callable[..., Server]) -> None:
    with client_of(served()) as client:
        chunks = list(
            client.chat.completions.create(
                model="echo", messages=HELLO, stream=True, stream_options={"include_usage": True}
            )
        )
    text = [one.choices[0].delta.content for one in chunks if one.choices]
    assert text == ["", "You", " said:", " hello", " there", None]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [one.choices[0].finish_reason for one in chunks if one.choices] == [None] * 5 + ["stop"]
    assert chunks[-1].usage is not None
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 4)
    assert {one.id for one in chunks} == {chunks[0].id}


def test_the_same_with_the_async_client(served: Callable[..., Server]) -> None:
    server = served()

    async def go() -> str:
        async with openai.AsyncOpenAI(base_url=server.urls.http, api_key="none") as client:
            stream = await client.chat.completions.create(model="echo", messages=HELLO, stream=True)
            return "".join([one.choices[0].delta.content or "" async for one in stream])

    assert asyncio.run(go()) == "You said: hello there"


def test_the_stream_ends_as_openais_does(served: Callable[..., Server]) -> None:
    reply = ask(served().urls.http, PATH, {"messages": HELLO, "stream": True})
    assert reply.events[-1] == "[DONE]"
    assert all("usage" not in one for one in reply.events[:-1])
    assert reply.headers["cache-control"] == "no-store"


def test_options_reach_the_model(scripted: Any) -> None:
    client, script = scripted("yes", "yes")
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    client.chat.completions.create(
        model="tiny", messages=HELLO, max_completion_tokens=7, max_tokens=9, temperature=0.5, top_p=0.9,
        seed=3, stop=["\n", "x"], logprobs=True, top_logprobs=2, presence_penalty=0.5, frequency_penalty=0,
        response_format={"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}},
        extra_body={"top_k": 5, "nobody_knows": {"this": 1}}, user="me",
    )  # fmt: skip
    client.chat.completions.create(
        model="tiny", messages=HELLO, stop="x", response_format={"type": "json_object"}
    )
    first, second = (request.options for request in script.requests)
    assert first.given() == {
        "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "seed": 3, "stop": ["\n", "x"],
        "logprobs": 2, "schema": schema, "extra": {"presence_penalty": 0.5},
    }  # fmt: skip
    assert second.given() == {"stop": ["x"], "schema": {"type": "object"}}


def test_the_servers_seed_is_for_requests_that_name_none(served: Callable[..., Server]) -> None:
    script = ScriptedClient(["yes", "yes"], model="tiny")
    url = served(script, seed=7).urls.http
    for more in ({}, {"seed": 3}):
        assert ask(url, PATH, {"messages": HELLO} | more).status == 200
    assert [request.options.seed for request in script.requests] == [7, 3]


def test_every_kind_of_message(scripted: Any) -> None:
    client, script = scripted("yes")
    picture = b"\x89PNG..."
    client.chat.completions.create(
        model="tiny",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {
                    "url": f"data:image/PNG;base64,{base64.b64encode(picture).decode()}", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            ]},
            {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1'}}]},
            {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "2"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": "", "name": "Ann"},
        ],
    )  # fmt: skip
    (request,) = script.requests
    assert [(one.role, one.parts) for one in request.messages] == [
        ("system", (Text("Be brief."),)),
        ("user", (Text("What is it?"), Image("image/png", picture), Image(url="https://example.org/a.png"))),
        ("assistant", (Reasoning("hm"), ToolCall("1", "add", '{"a": 1'))),
        ("tool", (ToolResult("1", "2"),)),
        ("assistant", (Text("ab"),)),
        ("user", (Text(""),)),
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_tools(scripted: Any, stream: bool) -> None:
    calls = (ToolCall("c1", "add", '{"a": 1}'), ToolCall("", "add", "{}"))
    client, script = scripted(Line("I add.", tool_calls=calls))
    asked: Any = {
        "model": "tiny", "messages": HELLO, "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "add"}}, "parallel_tool_calls": True,
    }  # fmt: skip
    if stream:
        told = _collected(client.chat.completions.create(**asked, stream=True))
    else:
        (choice,) = client.chat.completions.create(**asked).choices
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content == "I add."
        told = [
            (c.id, c.type, c.function.name, c.function.arguments) for c in choice.message.tool_calls or ()
        ]
    assert told[0] == ("c1", "function", "add", '{"a": 1}')
    assert told[1][0].startswith("call_")
    assert told[1][1:] == ("function", "add", "{}")
    (request,) = script.requests
    assert (request.tools[0].name, request.tools[0].description, request.tool_choice) == (
        "add",
        "Adds.",
        "add",
    )


def _collected(chunks: Any) -> list[tuple[str, str, str, str]]:
    told: dict[int, list[str]] = {}
    for chunk in chunks:
        for piece in chunk.choices[0].delta.tool_calls or ():
            had = told.setdefault(piece.index, ["", "", "", ""])
            for place, more in enumerate(
                (piece.id, piece.type, piece.function.name, piece.function.arguments)
            ):
                had[place] += more or ""
    return [(a, b, c, d) for a, b, c, d in told.values()]


def test_thoughts_are_told_apart(scripted: Any) -> None:
    client, _ = scripted(Line("4", reasoning="two and two"), Line("4", reasoning="two and two"))
    message = client.chat.completions.create(model="tiny", messages=HELLO).choices[0].message
    assert (message.content, message.reasoning_content) == ("4", "two and two")
    deltas = [
        one.choices[0].delta.model_dump(exclude_none=True)
        for one in client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
    ]
    assert deltas[1:4] == [{"reasoning_content": word} for word in ("two", " and", " two")]


class Probable(ScriptedClient):
    """A model whose tokens have all that a token can have."""

    def __init__(self) -> None:
        super().__init__(["unused"], model="tiny")

    async def _stream(self, request: Request) -> Any:
        sure = Alternative("é", -0.1, 5)
        yield Started("tiny", "hash")
        yield TextPiece(
            "é", (Token("é", -0.1, 5, (sure, Alternative("x", -20.5)), (Read(1, 2, 0.5, "facts"),)),)
        )
        yield Finished("stop", Usage(3, 1, 2, 1))


@pytest.mark.parametrize("stream", [False, True])
def test_probabilities_and_reads(served: Callable[..., Server], stream: bool) -> None:
    body = {"messages": HELLO, "logprobs": True, "top_logprobs": 2, "stream": stream}
    reply = ask(served(Probable()).urls.http, PATH, body)
    told = reply.events[1] if stream else reply.json
    assert told["system_fingerprint"] == "hash"
    (token,) = told["choices"][0]["logprobs"]["content"]
    assert token == {
        "token": "é", "logprob": -0.1, "bytes": [195, 169], "id": 5,
        "top_logprobs": [
            {"token": "é", "logprob": -0.1, "bytes": [195, 169], "id": 5},
            {"token": "x", "logprob": -20.5, "bytes": [120]},
        ],
        "reads": [{"layer": 1, "slot": 2, "influence": 0.5, "overlay": "facts"}],
    }  # fmt: skip
    if not stream:
        assert reply.json["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
        assert reply.json["usage"]["completion_tokens_details"] == {"reasoning_tokens": 1}


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": "hi"}, "messages", "list"),
        ({"messages": None}, "messages", "list"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0", "wizard"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "required"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "string"),
        ({"messages": [{"role": "user", "content": []}]}, "messages.0.content", "at least one"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages.0.content.0", "input_audio"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text", "required"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"temperature": True}, "temperature", "number"),
        ({"temperature": -1}, "temperature", "greater"),
        ({"top_p": 0}, "top_p", "greater"),
        ({"top_p": 1.5}, "top_p", "less"),
        ({"max_tokens": 0}, "max_tokens", "greater"),
        ({"max_tokens": 1.5}, "max_tokens", "integer"),
        ({"max_tokens": 2**40}, "max_tokens", "less"),
        ({"seed": 2**63}, "seed", "less"),
        ({"n": 2}, "n", "ask 2 times"),
        ({"stop": ""}, "stop", "at least 1"),
        ({"stop": ["a", 1]}, "stop.1", "string"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs: true"),
        ({"tool_choice": "required"}, "tool_choice", "no tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "no"}}}, "tool_choice", "'no'"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools.0.function.name", "match"),
        ({"tools": [{"type": "browser"}]}, "tools.0.type", "function"),
        ({"response_format": {"type": "xml"}}, "response_format", "xml"),
        ({"response_format": {"type": "json_object"}, "regex": "a"}, None, "not both"),
        ({"stream": "yes"}, "stream", "boolean"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_a_sentence(
    echo: str, change: dict[str, Any], param: str | None, words: str
) -> None:
    reply = ask(echo, PATH, {"model": "echo", "messages": HELLO} | change)
    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error"
    assert reply.error["param"] == param
    assert words in reply.error["message"]
    assert "\n" not in reply.error["message"]


@pytest.mark.parametrize(
    ("url", "status", "words"),
    [
        ("", 400, "at least 1"),
        ("file:///etc/passwd", 400, "https address"),
        ("data:text/html;base64,AAAA", 400, "https address"),
        ("data:image/png;base64,A*AA", 400, "base64"),
        ("data:image/png;base64,", 400, "empty"),
        ("http://" + "x" * 9000, 400, "https address"),
        ("data:image/png;base64," + "A" * (12 << 20), 413, "picture of more than"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_pictures_that_are_none(echo: str, url: str, status: int, words: str) -> None:
    content = [{"type": "image_url", "image_url": {"url": url}}]
    reply = ask(echo, PATH, {"messages": [{"role": "user", "content": content}]})
    assert reply.status == status
    assert words in reply.error["message"]


def test_fields_that_nobody_knows_are_passed_over(echo: str) -> None:
    more = {"store": True, "metadata": {"a": "b"}, "service_tier": "auto", "\x00": None}
    assert ask(echo, PATH, {"messages": HELLO} | more).status == 200


def test_openais_errors(served: Callable[..., Server]) -> None:
    failing = ScriptedClient(
        [Line(fails="the line is dead"), Line(fails="later", retry=True, retry_after=7)], model="tiny"
    )
    failing.policy = EchoClient().policy
    with client_of(served(failing)) as client:
        with pytest.raises(openai.NotFoundError, match="no model 'gpt-9' here; served: tiny") as missing:
            client.chat.completions.create(model="gpt-9", messages=HELLO)
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError, match="temperature") as wrong:
            client.chat.completions.create(model="tiny", messages=HELLO, temperature=-1)
        assert wrong.value.param == "temperature"
        with pytest.raises(openai.InternalServerError, match="the line is dead") as dead:
            client.chat.completions.create(model="tiny", messages=HELLO)
        assert dead.value.status_code == 502
        with pytest.raises(openai.InternalServerError, match="later") as later:
            client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
        assert (later.value.status_code, later.value.response.headers["retry-after"]) == (503, "7")


def test_an_error_in_the_middle_of_a_stream_is_told_there(served: Callable[..., Server]) -> None:
    failing = ScriptedClient([Line("one two three", fails="the line is dead", fails_after=2)], model="tiny")
    came = []
    with client_of(served(failing)) as client:
        stream = client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError, match="the line is dead"):
            came.extend(one.choices[0].delta.content for one in stream)
    assert came == ["", "one", " two"]
    reply = ask(
        served(ScriptedClient([Line("a b", fails="dead", fails_after=1)])).urls.http,
        PATH,
        {"messages": HELLO, "stream": True},
    )
    assert reply.events[-1]["error"]["message"] == "dead"


class Unsaid(ScriptedClient):
    """A model that is broken in a way that nobody foresaw."""

    async def _stream(self, request: Request) -> Any:
        yield Started("tiny")
        raise KeyError("secret")


def test_a_defect_is_told_without_its_details(
    served: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = served(Unsaid(["x"], model="tiny"))
    reply = ask(server.urls.http, PATH, {"messages": HELLO})
    assert reply.status in (500, 502)
    assert "secret" not in reply.error["message"] or reply.status == 502
    assert server.desk.taken == 0


def test_a_tool_call_without_a_name_at_first(served: Callable[..., Server]) -> None:
    class Slow(ScriptedClient):
        async def _stream(self, request: Request) -> Any:
            yield Started("tiny")
            yield ToolCallPiece(0, arguments="{")
            yield ToolCallPiece(0, name="add", arguments="}")
            yield ToolCallPiece(0, name="add")
            yield Finished("tool_calls")

    url = served(Slow(["x"])).urls.http
    pieces = [
        one["choices"][0]["delta"]["tool_calls"][0]
        for one in ask(url, PATH, {"messages": HELLO, "stream": True}).events[:-1]
        if "tool_calls" in one["choices"][0]["delta"]
    ]
    assert [piece["function"] for piece in pieces] == [
        {"arguments": "{"},
        {"arguments": "}", "name": "add"},
        {"arguments": ""},
    ]
    assert json.loads(ask(url, PATH, {"messages": HELLO}).body)["choices"][0]["message"]["content"] is None
