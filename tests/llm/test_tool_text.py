from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindset.llm.events import TextPiece, Token, ToolCallPiece
from mindset.llm.messages import ToolCall, ToolResult
from mindset.llm.request import ToolSpec
from mindset.llm.tool_text import ToolReader, call_text, instructions, result_text

ADD = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def read(text: str, cuts: list[int] | None = None, complete: bool = True) -> list[TextPiece | ToolCallPiece]:
    """What a reader tells of a text that comes in pieces."""
    reader, found = ToolReader(["add", "now"]), []
    bounds = [0, *sorted(cuts or ()), len(text)]
    for start, stop in pairwise(bounds):
        found += reader.push(text[start:stop])
    return [*found, *reader.end(complete=complete)]


def words(found: list[TextPiece | ToolCallPiece]) -> str:
    return "".join(piece.text for piece in found if isinstance(piece, TextPiece))


def calls(found: list[TextPiece | ToolCallPiece]) -> list[tuple[str, str]]:
    return [(piece.name, piece.arguments) for piece in found if isinstance(piece, ToolCallPiece)]


@pytest.mark.parametrize(
    ("text", "said", "called"),
    [
        ("Nothing to do.", "Nothing to do.", []),
        (ADD, "", [("add", '{"a": 1}')]),
        (f"Let me see.\n{ADD}", "Let me see.\n", [("add", '{"a": 1}')]),
        (f"{ADD}\n{NOW}", "", [("add", '{"a": 1}'), ("now", "{}")]),
        (f"{ADD}\nDone.", "Done.", [("add", '{"a": 1}')]),
        (ADD.removesuffix("\n</tool_call>"), "", [("add", '{"a": 1}')]),
        ('{"name": "add", "parameters": {"a": 1}}', "", [("add", '{"a": 1}')]),
        ('{"function": {"name": "add", "arguments": "{\\"a\\": 1}"}}', "", [("add", '{"a": 1}')]),
        ('[{"name": "now"}, {"name": "add", "arguments": {}}]', "", [("now", "{}"), ("add", "{}")]),
        ('{"name": "other", "arguments": {}}', '{"name": "other", "arguments": {}}', []),
        ('{"temperature": 20}', '{"temperature": 20}', []),
        ('{"name": "add"} is JSON', '{"name": "add"} is JSON', []),
        ("<tool_call>no JSON</tool_call>", "<tool_call>no JSON</tool_call>", []),
        ("<tool_call>no JSON</tool_call>" + ADD, "<tool_call>no JSON</tool_call>", [("add", '{"a": 1}')]),
        ("a <tool", "a <tool", []),
        ("[1, 2]", "[1, 2]", []),
        ("[]", "[]", []),
        ("", "", []),
    ],
)
@given(data=st.data())
def test_calls_are_found_however_the_text_comes(
    text: str, said: str, called: list[tuple[str, str]], data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6))
    found = read(text, cuts)
    assert (words(found), calls(found)) == (said, called)
    pieces = [piece for piece in found if isinstance(piece, ToolCallPiece)]
    assert [piece.index for piece in pieces] == list(range(len(called)))
    assert [piece.id for piece in pieces] == [f"call_{n}" for n in range(len(called))]


def test_a_call_that_is_cut_stays_text() -> None:
    for text in (ADD[:-20], '{"name": "now"'):
        assert words(read(text, complete=False)) == text
    assert words(read('{"name": "now"}', complete=False)) == '{"name": "now"}'


def test_ids_go_on_where_the_dialog_was() -> None:
    reader = ToolReader(["now"], 3)
    (found,) = reader.push(NOW)
    assert isinstance(found, ToolCallPiece)
    assert found.id == "call_3"


def test_tokens_are_not_lost_in_calls() -> None:
    reader = ToolReader(["now"])
    first = reader.push("a <tool", (Token("a"), Token("<")))
    assert first == [TextPiece("a ", (Token("a"), Token("<")))]
    assert reader.push(NOW.removeprefix("<tool"), (Token("x"),))[0] == TextPiece("", (Token("x"),))


def test_what_a_model_is_told_can_be_read_again() -> None:
    tool = ToolSpec("add", "Add numbers.", {"type": "object", "properties": {"a": {"type": "integer"}}})
    line = next(line for line in instructions([tool]).splitlines() if line.startswith("{"))
    assert json.loads(line)["function"]["name"] == "add"
    assert calls(read(call_text(ToolCall("1", "add", '{"a": 2}')))) == [("add", '{"a": 2}')]
    assert "\n5\n" in result_text(ToolResult("1", "5"))
