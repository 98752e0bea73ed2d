from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mindset.calls.call import Usage
from mindset.llm.context import BYTES_A_TOKEN, bytes_a_token, fitting, room, weight
from mindset.llm.events import Answer
from mindset.llm.messages import Image, Message, ToolCall, ToolResult, assistant, system, tool_result, user

CALL = ToolCall("1", "add", '{"a": 1}')
KINDS = ("plain", "tool", "image")
SAID = st.lists(st.tuples(st.sampled_from(KINDS), st.text(max_size=30)), min_size=1, max_size=6)


def exchange(kind: str, text: str) -> list[Message]:
    if kind == "tool":
        return [user(text), assistant("", CALL), tool_result(ToolResult("1", text)), assistant(text)]
    return [user(text, *([Image(data=b"x")] if kind == "image" else [])), assistant(text)]


def of(messages: tuple[Message, ...] | list[Message]) -> int:
    return sum(weight(message) for message in messages)


@settings(deadline=None)
@given(st.none() | st.text(max_size=20), SAID, st.none() | st.integers(0, 12_000))
def test_what_is_sent(instructions: str | None, told: list[tuple[str, str]], free: int | None) -> None:
    head, said = [] if instructions is None else [system(instructions)], [exchange(*one) for one in told]
    messages = [*head, *(message for exchange in said for message in exchange)]
    sent, left_out = fitting(messages, free)
    kept = [message for exchange in said[left_out:] for message in exchange]
    assert list(sent) == [*head, *kept]  # the instructions, and whole exchanges up to the end
    assert left_out < len(said)
    if free is None:
        assert left_out == 0
        return
    assert of(sent) <= free or left_out == len(said) - 1
    if left_out:
        assert of(sent) + of(said[left_out - 1]) > free  # no more would have fitted


def test_the_room_leaves_some_for_the_answer() -> None:
    assert room(None, 100, 4.0) is None
    assert room(8192, None, 1.0) == int((8192 - 1024) * 0.9)
    assert room(1000, None, 1.0) == int(750 * 0.9)
    assert room(1000, 5000, 1.0) == int(500 * 0.9)


def test_a_token_is_measured_by_what_was_counted() -> None:
    sent = [user("x" * 984)]
    counted = Answer(assistant("y"), "stop", Usage(prompt_tokens=250))
    assert bytes_a_token(sent, counted, BYTES_A_TOKEN) == 1000 / 250
    short = Answer(assistant("y"), "stop", Usage(prompt_tokens=5))
    assert bytes_a_token(sent, short, BYTES_A_TOKEN) == BYTES_A_TOKEN
