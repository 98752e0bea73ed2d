from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llm.loopback import QUESTION, Loopback, Reply, serving, sse, stream, whole

from mindset.calls.call import Usage
from mindset.calls.log import CallLog
from mindset.errors import CallError, OverloadedError, UnsupportedRequestError
from mindset.llm.anthropic_client import AnthropicClient
from mindset.llm.events import Event, Finished, ReasoningPiece, Retried, Started, TextPiece, ToolCallPiece
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
    user,
)
from mindset.llm.policy import Policy
from mindset.llm.request import Options, Request, ToolSpec


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def event(kind: str, **told: Any) -> bytes:
    return sse({"type": kind, **told}, name=kind)


def begun(**usage: int) -> bytes:
    return event("message_start", message={"model": "claude-x-1", "usage": usage})


def block(index: int, **told: Any) -> bytes:
    return event("content_block_start", index=index, content_block=told)


def delta(index: int, **told: Any) -> bytes:
    return event("content_block_delta", index=index, delta=told)


def ended(reason: str, **usage: int) -> bytes:
    return event("message_delta", delta={"stop_reason": reason}, usage=usage) + event("message_stop")


SPOKEN = stream(
    begun(input_tokens=10, cache_read_input_tokens=5, cache_creation_input_tokens=2, output_tokens=1),
    event("ping"),
    block(0, type="text", text=""),
    delta(0, type="text_delta", text="It was "),
    delta(0, type="text_delta", text="Bram."),
    event("content_block_stop", index=0),
    ended("end_turn", output_tokens=7),
)


def ask(
    log: CallLog, *replies: Reply, request: Request = QUESTION, **settings: Any
) -> tuple[list[Event], Loopback]:
    async def scenario() -> tuple[list[Event], Loopback]:
        async with serving(*replies) as server:
            url = server.url.removesuffix("/v1")
            policy = Policy(backoff=0.001)
            async with AnthropicClient(
                "anthropic:claude-x", base_url=url, log=log, policy=policy, **settings
            ) as client:
                return [event async for event in client.complete(request, timeout=10)], server

    return asyncio.run(scenario())


def test_a_streamed_answer(log: CallLog) -> None:
    events, server = ask(log, SPOKEN, key="sk-ant-x")
    assert events == [
        Started("claude-x-1"),
        TextPiece("It was "),
        TextPiece("Bram."),
        Finished("stop", Usage(17, 7, 5)),
    ]
    got = server.got[0]
    assert got.path == "/v1/messages"
    assert got.headers["x-api-key"] == "sk-ant-x"
    assert got.headers["anthropic-version"] == "2023-06-01"
    assert got.body == {
        "model": "claude-x",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Who?"}]}],
        "stream": True,
    }


def test_everything_that_can_be_asked_is_sent(log: CallLog) -> None:
    schema = {"type": "object"}
    request = Request(
        (
            system("Be brief."),
            system("Be kind."),
            user("What is this?", Image("image/gif", b"gif"), Image(url="https://example.org/a.png")),
            Message(
                "assistant",
                (
                    Reasoning("hm", "sig"),
                    Reasoning("unsigned"),
                    Text(""),
                    ToolCall("c1", "add", '{"a": 1}'),
                    ToolCall("c2", "add", "{"),
                ),
            ),
            tool_result(ToolResult("c1", "2")),
            tool_result(ToolResult("c2", "no JSON", is_error=True)),
            user("And?"),
            assistant("Two."),
        ),
        options=Options(
            max_tokens=9,
            temperature=0.5,
            top_p=0.9,
            top_k=3,
            stop=("END",),
            schema=schema,
            extra={"service_tier": "x"},
        ),
        tools=(ToolSpec("add", "Adds.", schema),),
        tool_choice="required",
    )
    _, server = ask(log, SPOKEN, request=request)
    assert server.got[0].body == {
        "model": "claude-x",
        "max_tokens": 9,
        "system": "Be brief.\n\nBe kind.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/gif", "data": "Z2lm"},
                    },
                    {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "sig"},
                    {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}},
                    {"type": "tool_use", "id": "c2", "name": "add", "input": {"not_json": "{"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "2"},
                    {"type": "tool_result", "tool_use_id": "c2", "content": "no JSON", "is_error": True},
                    {"type": "text", "text": "And?"},
                ],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "Two."}]},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "stop_sequences": ["END"],
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
        "tools": [{"name": "add", "description": "Adds.", "input_schema": schema}],
        "tool_choice": {"type": "any"},
        "stream": True,
        "service_tier": "x",
    }


def test_thoughts_and_tools(log: CallLog) -> None:
    reply = stream(
        begun(input_tokens=1),
        block(0, type="thinking", thinking="", signature=""),
        delta(0, type="thinking_delta", thinking="let me "),
        delta(0, type="thinking_delta", thinking="see"),
        delta(0, type="signature_delta", signature="signed"),
        block(1, type="text", text=""),
        delta(1, type="text_delta", text="I add."),
        block(2, type="tool_use", id="c1", name="add", input={}),
        delta(2, type="input_json_delta", partial_json=""),
        delta(2, type="input_json_delta", partial_json='{"a"'),
        block(3, type="tool_use", id="c2", name="add", input={}),
        delta(2, type="input_json_delta", partial_json=": 1}"),
        ended("tool_use", output_tokens=9),
    )
    events, _ = ask(log, reply)
    assert events[1:4] == [ReasoningPiece("let me "), ReasoningPiece("see"), ReasoningPiece("", "signed")]
    assert [event for event in events if isinstance(event, ToolCallPiece)] == [
        ToolCallPiece(0, "c1", "add"),
        ToolCallPiece(0, arguments='{"a"'),
        ToolCallPiece(1, "c2", "add"),
        ToolCallPiece(0, arguments=": 1}"),
    ]
    assert events[-1] == Finished("tool_calls", Usage(1, 9))
    parts = log.call(1).outcome.answer[0].content["parts"]
    assert parts[0] == {"type": "reasoning", "text": "let me see", "signature": "signed"}


def test_an_answer_in_one_piece(log: CallLog) -> None:
    message = {
        "type": "message",
        "model": "claude-x-1",
        "content": [
            {"type": "redacted_thinking", "data": "xyz"},
            {"type": "text", "text": "Cut"},
            {"type": "tool_use", "id": "c", "name": "add", "input": {"é": 1}},
        ],
        "stop_reason": "max_tokens",
        "usage": {"input_tokens": 3, "output_tokens": 4},
    }
    events, server = ask(log, whole(message), stream=False)
    assert events == [
        Started("claude-x-1"),
        ReasoningPiece("", "redacted:xyz"),
        TextPiece("Cut"),
        ToolCallPiece(0, "c", "add", '{"é": 1}'),
        Finished("length", Usage(3, 4)),
    ]
    assert "stream" not in server.got[0].body
    again = Request((user("x"), Message("assistant", (Reasoning("", "redacted:xyz"),)), user("y")))
    _, server = ask(log, SPOKEN, request=again)
    assert server.got[0].body["messages"][1]["content"] == [{"type": "redacted_thinking", "data": "xyz"}]


@pytest.mark.parametrize(
    ("reason", "ours"), [("refusal", "content_filter"), ("stop_sequence", "stop"), ("new one", "stop")]
)
def test_reasons(log: CallLog, reason: str, ours: str) -> None:
    events, _ = ask(log, stream(begun(), ended(reason)))
    assert events[-1] == Finished(ours)  # type: ignore[arg-type]


OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


@pytest.mark.parametrize(
    "reply",
    [
        whole(OVERLOADED, 529, retry_after="0"),
        whole({"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}}, 429),
        whole({"type": "error", "error": {"type": "api_error", "message": "oops"}}, 500),
        stream(
            begun(),
            sse(
                {"type": "error", "error": {"type": "api_error", "message": "internal_error"}}, name="error"
            ).replace(b"api_error", b"internal_error"),
        ),
        stream(begun(), cut=True),
    ],
)
def test_what_may_pass_is_tried_again(log: CallLog, reply: Reply) -> None:
    events, server = ask(log, reply, SPOKEN)
    assert sum(isinstance(event, Retried) for event in events) == 1
    assert len(server.got) == 2
    assert events[-1] == Finished("stop", Usage(17, 7, 5))


def test_an_overload_in_the_middle(log: CallLog) -> None:
    said = stream(
        begun(),
        block(0, type="text", text=""),
        delta(0, type="text_delta", text="It"),
        sse(OVERLOADED, name="error"),
    )
    with pytest.raises(OverloadedError, match="Overloaded"):
        ask(log, said, SPOKEN)
    assert log.call(1).outcome.answer[0].content["parts"][0]["text"] == "It"


def test_a_refusal_says_what_the_server_said(log: CallLog) -> None:
    told = {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: too many"}}
    with pytest.raises(CallError, match=r"400 \(Bad Request\): max_tokens: too many"):
        ask(log, whole(told, 400))


def test_what_this_api_cannot_do(log: CallLog) -> None:
    with pytest.raises(UnsupportedRequestError, match="a seed"):
        ask(log, SPOKEN, request=Request((user("x"),), options=Options(seed=1)))
    with pytest.raises(UnsupportedRequestError, match="raw prompts"):
        ask(log, SPOKEN, request=Request(prompt="x"))


def test_it_wants_a_key(log: CallLog) -> None:
    with pytest.raises(CallError, match="ANTHROPIC_API_KEY"):
        asyncio.run(AnthropicClient("anthropic:claude-x", log=log).chat("Hi"))


def test_a_dialog_goes_round_through_the_log(log: CallLog) -> None:
    tool = stream(begun(), block(0, type="tool_use", id="c", name="add", input={}), ended("tool_use"))
    events, _ = ask(log, tool)
    assert events[-1] == Finished("tool_calls")
