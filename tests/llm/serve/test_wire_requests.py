from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindset.errors import DataError, MindsetError, UsageError
from mindset.llm.messages import Image, Message, Part, Reasoning, Text, ToolCall, ToolResult
from mindset.llm.request import ForwardRequest, Options, Request, ToolSpec

pytest.importorskip("grpc", reason="the extra `serve` is missing")
from mindset.llm.serve import llm_pb2 as pb
from mindset.llm.serve.limits import Limits
from mindset.llm.serve.wire_requests import (
    forward_message,
    read_forward_request,
    read_request,
    request_message,
    texts_of,
)

LIMITS = Limits()
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.dictionaries(
    TEXT, st.none() | st.booleans() | TEXT | st.lists(st.integers(-5, 5), max_size=2), max_size=3
)
PART = st.tuples(st.integers(0, 6), TEXT, TEXT, st.booleans(), st.binary(max_size=5))
MESSAGE = st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), st.lists(PART, max_size=3))
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(1, 2**40),
        "temperature": st.floats(0, 9),
        "top_p": st.floats(0.01, 1),
        "top_k": st.integers(1, 99),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "stop": st.lists(TEXT.filter(bool), max_size=2).map(tuple),
        "logprobs": st.integers(0, 20),
        "schema": JSON,
        "reads": st.integers(1, 9),
        "extra": JSON,
    },
)


def part(kind: int, one: str, two: str, flag: bool, data: bytes) -> Part:
    made: tuple[Part, ...] = (
        Text(one),
        Reasoning(one),
        Reasoning(one, two),
        Image("image/png", data=data),
        Image("image/jpeg", url=one),
        ToolCall(one, two, one),
        ToolResult(one, two, one, flag),
    )
    return made[kind]


@settings(max_examples=80, deadline=None)
@given(
    messages=st.lists(MESSAGE, min_size=1, max_size=3),
    options=OPTIONS,
    tools=st.lists(st.tuples(TEXT, TEXT, JSON), max_size=2),
    choice=st.none() | TEXT,
    prompt=st.none() | TEXT,
)
def test_requests_come_back_as_they_were(
    messages: list[Any], options: dict[str, Any], tools: list[Any], choice: str | None, prompt: str | None
) -> None:
    dialog = tuple(Message(role, tuple(part(*one) for one in parts)) for role, parts in messages)
    request = Request(
        () if prompt is not None else dialog,
        prompt=prompt,
        options=Options(**options),
        tools=tuple(ToolSpec(*one) for one in tools),
        tool_choice=choice,
    )
    sent = request_message(request, "tiny").SerializeToString()
    assert read_request(pb.CompleteRequest.FromString(sent), LIMITS) == request


@given(
    text=TEXT | st.lists(st.integers(0, 2**31), min_size=1, max_size=5).map(tuple),
    flags=st.tuples(*[st.booleans()] * 4),
    reads=st.none() | st.integers(1, 9),
)
def test_passes_come_back_as_they_were(text: Any, flags: tuple[bool, ...], reads: int | None) -> None:
    logits, hidden, attention, last = flags
    request = ForwardRequest(
        prompt=text if isinstance(text, str) else None,
        ids=None if isinstance(text, str) else text,
        logits=logits, hidden_states=hidden, attention=attention, reads=reads, last=last,
    )  # fmt: skip
    sent = forward_message(request).SerializeToString()
    assert read_forward_request(pb.ForwardRequest.FromString(sent), LIMITS) == request


def test_what_protobuf_cannot_carry_is_refused() -> None:
    for request in (
        Request(prompt="\ud800"),
        Request(prompt="x", options=Options(seed=2**70)),
        Request(prompt="x", options=Options(extra={"a": float("nan")})),
    ):
        with pytest.raises(UsageError, match="cannot be sent"):
            request_message(request)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, "messages or a prompt"),
        ({"prompt": "x", "messages": [{"role": "user"}]}, "messages or a prompt"),
        ({"messages": [{"role": "wizard"}]}, "wizard"),
        ({"messages": [{"role": "user", "parts": [{}]}]}, "empty part"),
        ({"messages": [{"role": "user", "parts": [{"image": {}}]}]}, "either data or a url"),
        (
            {"messages": [{"role": "user", "parts": [{"image": {"data": b"x" * 99}}]}]},
            "picture of more than 50",
        ),
        ({"messages": [{"role": "user"}] * 4}, "4 messages"),
        ({"prompt": "x", "options": {"schema": "{"}}, "the schema: .* no JSON"),
        ({"prompt": "x", "options": {"schema": "[]"}}, "the schema is a JSON object, not list"),
        ({"prompt": "x", "options": {"extra": '{"a": NaN}'}}, "extra: .* no JSON"),
        ({"prompt": "x", "options": {"temperature": float("nan")}}, "temperature=nan"),
        ({"prompt": "x", "options": {"max_tokens": 0}}, "max_tokens=0"),
        ({"prompt": "x", "options": {"schema": "{}", "regex": "a"}}, "not both"),
        (
            {"prompt": "x", "tools": [{"name": "a", "parameters": "5"}]},
            "parameters is a JSON object, not int",
        ),
        ({"prompt": "x", "tools": [{}] * 3}, "3 tools"),
    ],
    ids=str,
)
def test_what_cannot_be_meant(told: dict[str, Any], words: str) -> None:
    limits = Limits(messages=3, tools=2, image_bytes=50)
    with pytest.raises((UsageError, DataError), match=words):
        read_request(pb.CompleteRequest(**told), limits)


def test_passes_and_texts_that_cannot_be_meant() -> None:
    for told in (pb.ForwardRequest(), pb.ForwardRequest(ids=pb.Ids(ids=[1] * 9))):
        with pytest.raises(MindsetError):
            read_forward_request(told, Limits(ids=8))
    for texts in ([], ["a", ""], ["a"] * 4):
        with pytest.raises(UsageError):
            texts_of(texts, Limits(texts=3))
    assert texts_of(iter("abc"), Limits(texts=3)) == ["a", "b", "c"]
