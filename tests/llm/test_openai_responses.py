from __future__ import annotations

from typing import Any

import pytest
from llm.loopback import Reply, ask, sse, stream, whole

from mindset.calls.call import Usage
from mindset.calls.log import CallLog
from mindset.errors import CallError, UnsupportedRequestError
from mindset.llm.events import Finished, ReasoningPiece, Started, TextPiece, Token, ToolCallPiece
from mindset.llm.messages import (
    Image,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    system,
    tool_result,
    user,
)
from mindset.llm.request import Options, Request, ToolSpec


def told(kind: str, **more: Any) -> bytes:
    return sse({"type": kind, **more}, name=kind)


USAGE = {
    "input_tokens": 9,
    "output_tokens": 4,
    "input_tokens_details": {"cached_tokens": 2},
    "output_tokens_details": {"reasoning_tokens": 1},
}
CREATED = told("response.created", response={"model": "gpt-x-1", "status": "in_progress"})


def completed(**more: Any) -> bytes:
    return told("response.completed", response={"status": "completed", "usage": USAGE, **more})


SPOKEN = stream(
    CREATED,
    told("response.in_progress", response={}),
    told("response.output_item.added", output_index=0, item={"type": "message"}),
    told("response.output_text.delta", output_index=0, delta="It was ", logprobs=[]),
    told(
        "response.output_text.delta",
        output_index=0,
        delta="Bram.",
        logprobs=[{"token": "Bram.", "logprob": -0.5, "top_logprobs": []}],
    ),
    told("response.output_text.done", text="It was Bram."),
    completed(),
)


def test_a_streamed_response(log: CallLog) -> None:
    events, server = ask(log, SPOKEN, api="responses")
    assert events == [
        Started("gpt-x-1"),
        TextPiece("It was "),
        TextPiece("Bram.", (Token("Bram.", -0.5),)),
        Finished("stop", Usage(9, 4, 2, 1)),
    ]
    assert server.got[0].path == "/v1/responses"
    assert server.got[0].body == {
        "model": "m",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "Who?"}]}],
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "stream": True,
    }


def test_everything_that_can_be_asked_is_sent(log: CallLog) -> None:
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    request = Request(
        (
            system("Be brief."),
            user("What is this?", Image(data=b"png")),
            Message(
                "assistant", (Reasoning("hm", "rs_1 secret"), Text("I look."), ToolCall("c1", "add", ""))
            ),
            tool_result(ToolResult("c1", "2")),
        ),
        options=Options(
            max_tokens=9, temperature=0.5, top_p=0.5, logprobs=2, schema=schema, extra={"truncation": "auto"}
        ),
        tools=(ToolSpec("add", "Adds.", schema),),
        tool_choice="add",
    )
    _, server = ask(log, SPOKEN, request=request, api="responses")
    assert server.got[0].body == {
        "model": "m",
        "input": [
            {"role": "system", "content": [{"type": "input_text", "text": "Be brief."}]},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is this?"},
                    {"type": "input_image", "image_url": "data:image/png;base64,cG5n"},
                ],
            },
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "hm"}],
                "encrypted_content": "secret",
            },
            {"role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "2"},
        ],
        "store": False,
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
        "stream": True,
        "max_output_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.5,
        "top_logprobs": 2,
        "text": {"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}},
        "tools": [
            {"type": "function", "name": "add", "description": "Adds.", "parameters": schema, "strict": False}
        ],
        "tool_choice": {"type": "function", "name": "add"},
        "truncation": "auto",
    }


TOOLS = stream(
    CREATED,
    told("response.reasoning_summary_text.delta", delta="let me see"),
    told(
        "response.output_item.done",
        output_index=0,
        item={"type": "reasoning", "id": "rs_2", "encrypted_content": "xyz"},
    ),
    told(
        "response.output_item.added",
        output_index=1,
        item={"type": "function_call", "call_id": "a", "name": "add", "arguments": ""},
    ),
    told("response.function_call_arguments.delta", output_index=1, delta='{"x"'),
    told(
        "response.output_item.added",
        output_index=3,
        item={"type": "function_call", "call_id": "b", "name": "sub"},
    ),
    told("response.function_call_arguments.delta", output_index=1, delta=": 1}"),
    told("response.function_call_arguments.delta", output_index=3, delta="{}"),
    completed(),
)
WHOLE = whole(
    {
        "model": "gpt-x-1",
        "status": "completed",
        "usage": USAGE,
        "output": [
            {
                "type": "reasoning",
                "id": "rs_2",
                "summary": [{"type": "summary_text", "text": "let me see"}],
                "encrypted_content": "xyz",
            },
            {"type": "function_call", "call_id": "a", "name": "add", "arguments": '{"x": 1}'},
            {"type": "function_call", "call_id": "b", "name": "sub", "arguments": "{}"},
        ],
    }
)


@pytest.mark.parametrize("reply", [TOOLS, WHOLE])
def test_thoughts_and_tools(log: CallLog, reply: Reply) -> None:
    events, _ = ask(log, reply, api="responses")
    assert events[-1] == Finished("tool_calls", Usage(9, 4, 2, 1))
    row = log.call(1).outcome
    assert row.answer[0].content["parts"] == [
        {"type": "reasoning", "text": "let me see", "signature": "rs_2 xyz"}
    ]
    assert [dict(node.content) for node in row.answer[1:]] == [
        {"id": "a", "name": "add", "arguments": '{"x": 1}'},
        {"id": "b", "name": "sub", "arguments": "{}"},
    ]
    assert any(isinstance(event, ReasoningPiece) for event in events)
    assert any(isinstance(event, ToolCallPiece) for event in events)


def test_an_answer_in_one_piece(log: CallLog) -> None:
    reply = whole(
        {
            "model": "gpt-x-1",
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "Cut"}]}],
        }
    )
    events, server = ask(log, reply, api="responses", stream=False)
    assert events == [Started("gpt-x-1"), TextPiece("Cut"), Finished("length")]
    assert "stream" not in server.got[0].body


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        (
            told(
                "response.failed",
                response={"status": "failed", "error": {"code": "x", "message": "it burst"}},
            ),
            "it burst",
        ),
        (told("error", code="x", message="out of order"), "out of order"),
        (sse({"error": {"message": "no more"}}), "no more"),
        (told("response.completed", response={"status": "cancelled"}), "the response is cancelled"),
        (b"", "broke off before its answer was finished"),
        (told("response.output_text.delta"), "shape that nobody here understands"),
    ],
)
def test_failures_in_the_middle(log: CallLog, end: bytes, sentence: str) -> None:
    said = told("response.output_text.delta", output_index=0, delta="It")
    with pytest.raises(CallError, match=sentence):
        ask(log, stream(CREATED, said, end), SPOKEN, api="responses")
    assert log.call(1).outcome.answer[0].content["parts"][0]["text"] == "It"


def test_what_it_does_not_know_is_refused(log: CallLog) -> None:
    with pytest.raises(UnsupportedRequestError, match="knows no stop: leave it out, or use api='chat'"):
        ask(log, SPOKEN, request=Request((user("x"),), options=Options(stop=("x",))), api="responses")
    with pytest.raises(UnsupportedRequestError, match="a seed"):
        ask(log, SPOKEN, request=Request((user("x"),), options=Options(seed=1)), api="responses")
