from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import openai
import pytest
from llm.serve.asking import ask
from pydantic import BaseModel

from mindset.llm.messages import Image, Reasoning, Text, ToolCall, ToolResult
from mindset.llm.scripted import Line, ScriptedClient
from mindset.llm.serve.server import Server

PATH = "/v1/responses"
TOOL: Any = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": True}


def client_of(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.urls.http, api_key="none", max_retries=0)


def test_an_answer_at_once(served: Callable[..., Server]) -> None:
    with client_of(served()) as client:
        answer = client.responses.create(model="echo", input="hello there", instructions="Be brief.")
    assert answer.output_text == "You said: hello there"
    assert (answer.status, answer.instructions, answer.error) == ("completed", "Be brief.", None)
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (4, 4, 8)
    with client_of(served()) as client:
        short = client.responses.create(model="echo", input="hello there", max_output_tokens=2)
    assert (short.status, short.incomplete_details and short.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )


def test_a_stream_ends_in_what_comes_at_once(served: Callable[..., Server]) -> None:
    calls = (ToolCall("c1", "add", '{"a": 1}'), ToolCall("c2", "add", "{}"))
    line = Line("I add.", reasoning="hm hm", tool_calls=calls)
    with client_of(served(ScriptedClient([line, line, line], model="tiny"))) as client:
        whole = client.responses.create(model="tiny", input="x", tools=[TOOL])
        events = list(client.responses.create(model="tiny", input="x", tools=[TOOL], stream=True))
        with client.responses.stream(model="tiny", input="x", tools=[TOOL]) as stream:
            followed = stream.get_final_response()
    assert [one.sequence_number for one in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert _plain(events[-1].response) == _plain(whole) == _plain(followed)
    assert [item.type for item in whole.output] == ["reasoning", "message", "function_call", "function_call"]
    assert whole.output_text == "I add."
    deltas = "".join(one.delta for one in events if one.type == "response.output_text.delta")
    assert deltas == "I add."
    done = [one.arguments for one in events if one.type == "response.function_call_arguments.done"]
    assert done == ['{"a": 1}', "{}"]
    assert whole.usage is not None
    assert whole.usage.output_tokens_details.reasoning_tokens == 2


def _plain(response: BaseModel) -> Any:
    """Without what is new each time, and what the client adds."""
    told = response.model_dump(exclude_none=True, exclude={"id", "created_at"})
    for item in told["output"]:
        del item["id"]
        item.pop("parsed_arguments", None)
        for part in item.get("content", ()):
            part.pop("parsed", None)
    return told


def test_every_kind_of_item(served: Callable[..., Server]) -> None:
    script = ScriptedClient(["yes", "yes"], model="tiny")
    schema = {"type": "object", "properties": {}}
    with client_of(served(script)) as client:
        client.responses.create(
            model="tiny", instructions="Be brief.", tools=[TOOL], tool_choice={"type": "function", "name": "add"},
            text={"format": {"type": "json_schema", "name": "it", "schema": schema}}, temperature=0, top_logprobs=3,
            include=["message.output_text.logprobs"], store=False, extra_body={"seed": 5},
            input=[
                {"role": "user", "content": "one"},
                {"type": "message", "role": "user", "content": [
                    {"type": "input_text", "text": "two"},
                    {"type": "input_image", "detail": "auto",
                     "image_url": f"data:image/png;base64,{base64.b64encode(b'png').decode()}"}]},
                {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
                {"type": "message", "id": "m", "status": "completed", "role": "assistant",
                 "content": [{"type": "output_text", "text": "three", "annotations": []}]},
                {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "4"},
                {"role": "developer", "content": "Now."},
            ],
        )  # fmt: skip
        client.responses.create(
            model="tiny", input="x", text={"format": {"type": "json_object"}}, tool_choice="auto"
        )
    first, second = script.requests
    assert [(one.role, one.parts) for one in first.messages] == [
        ("system", (Text("Be brief."),)),
        ("user", (Text("one"),)),
        ("user", (Text("two"), Image("image/png", b"png"))),
        ("assistant", (Reasoning("hm"), Text("three"), ToolCall("c", "add", "{}"))),
        ("tool", (ToolResult("c", "4"),)),
        ("system", (Text("Now."),)),
    ]
    assert first.options.given() == {"temperature": 0, "logprobs": 3, "schema": schema, "seed": 5}
    assert (first.tools[0].name, first.tool_choice) == ("add", "add")
    assert (second.options.schema, second.tool_choice) == ({"type": "object"}, None)


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"input": []}, "input", "at least 1"),
        ({"input": None}, "input", "string"),
        ({"input": [{"type": "file_search_call"}]}, "input.0", "file_search_call"),
        ({"input": [{"type": 5}]}, "input.0", "tag"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
            "input.0.content.0",
            "input_file",
        ),
        ({"input": [{"role": "tool", "content": "x"}]}, "input.0.role", "user"),
        ({"tools": [{"type": "web_search", "name": "x"}]}, "tools.0.type", "function"),
        ({"tool_choice": "required"}, "tool_choice", "no tools"),
        ({"tool_choice": {"type": "function", "name": "no"}}, "tool_choice", "'no'"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "whole dialog"),
        ({"background": True}, "background", "background"),
        ({"max_output_tokens": 0}, "max_output_tokens", "greater"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format", "grammar"),
    ],
    ids=str,
)
def test_what_cannot_be_meant(echo: str, change: dict[str, Any], param: str, words: str) -> None:
    reply = ask(echo, PATH, {"input": "x"} | change)
    assert (reply.status, reply.error["param"]) == (400, param)
    assert words in reply.error["message"]


def test_a_failure_in_the_middle(served: Callable[..., Server]) -> None:
    with client_of(
        served(ScriptedClient([Line("a b c", fails="dead", fails_after=1)], model="tiny"))
    ) as client:
        stream = client.responses.create(model="tiny", input="x", stream=True)
        with pytest.raises(openai.APIError, match="dead"):
            list(stream)


def test_a_refused_stream_has_a_status(echo: str) -> None:
    reply = ask(echo, PATH, {"input": "x", "stream": True, "model": "other"})
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
