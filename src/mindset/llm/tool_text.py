"""Calls of tools as models without an interface for them write them, and how they are told of tools.

    <tool_call>
    {"name": "add", "arguments": {"a": 1, "b": 2}}
    </tool_call>

That is the form of Hermes and Qwen; an answer that is such JSON and nothing else counts too. What merely looks like a
call stays text. Knows no model. Invariant: text and calls that were told, put together, are the whole answer, but for
spaces behind a call.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from mindset.llm.events import TextPiece, Token, ToolCallPiece
from mindset.llm.messages import ToolCall, ToolResult
from mindset.llm.request import ToolSpec

__all__ = ["AFTER", "BEFORE", "ToolReader", "call_text", "instructions", "result_text"]

BEFORE, AFTER = "<tool_call>\n", "\n</tool_call>"
"""What stands around a call."""
_OPEN, _SHUT = "<tool_call>", "</tool_call>"


def instructions(tools: Sequence[ToolSpec]) -> str:
    """What a model is told whose chat template knows no tools."""
    told = "\n".join(json.dumps({"type": "function", "function": described(tool)}) for tool in tools)
    return (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        f"You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{told}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within "
        f"{_OPEN}{_SHUT} XML tags:\n"
        f'{BEFORE}{{"name": <function-name>, "arguments": <args-json-object>}}{AFTER}'
    )


def described(tool: ToolSpec) -> dict[str, Any]:
    """A tool as JSON."""
    return {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}


def call_text(call: ToolCall) -> str:
    """A call as a model would have written it."""
    return f'{BEFORE}{{"name": {json.dumps(call.name)}, "arguments": {call.arguments or "{}"}}}{AFTER}'


def result_text(result: ToolResult) -> str:
    """What a tool returned, as a model without an interface for it is told."""
    return f"<tool_response>\n{result.content}\n</tool_response>"


class ToolReader:
    """Finds the calls in an answer while it is written."""

    def __init__(self, names: Collection[str], first: int = 0) -> None:
        """`names` of the tools; `first`: how many calls the dialog has had, so that ids differ."""
        self._names, self._first = frozenset(names), first
        self._held = ""
        self._whole = True
        """Whether the answer so far may be one bare JSON value."""
        self._behind_call = False
        self.calls = 0
        """How many were found."""

    def push(self, text: str, tokens: tuple[Token, ...] = ()) -> list[TextPiece | ToolCallPiece]:
        """More of the answer; what is certain now."""
        self._held += text
        told: list[str | ToolCallPiece] = []
        if not (self._whole and self._held.lstrip()[:1] in ("", "{", "[")):
            self._whole = False
            while self._tell_some(told):
                pass
        return _pieces(told, tokens)

    def end(self, *, complete: bool = True) -> list[TextPiece | ToolCallPiece]:
        """What is left; with `complete` False the answer was cut, and what it breaks off is no call."""
        held, self._held = self._held, ""
        told: list[str | ToolCallPiece] = []
        may_be = complete and (self._whole or held.startswith(_OPEN))
        if may_be and (found := self._calls(held.removeprefix(_OPEN))) is not None:
            told += found
        else:
            self._say(told, held)
        return _pieces(told, ())

    def _tell_some(self, told: list[str | ToolCallPiece]) -> bool:
        """Tell text up to the next call, and that call if it is complete; whether there may be more."""
        start = self._held.find(_OPEN)
        certain = len(self._held) - _begun(self._held, _OPEN) if start < 0 else start
        self._say(told, self._held[:certain])
        self._held = self._held[certain:]
        stop = self._held.find(_SHUT)
        if start < 0 or stop < 0:
            return False
        whole, self._held = self._held[: stop + len(_SHUT)], self._held[stop + len(_SHUT) :]
        if (found := self._calls(whole[len(_OPEN) : -len(_SHUT)])) is None:
            self._say(told, whole)
        else:
            told += found
            self._behind_call = True
        return True

    def _say(self, told: list[str | ToolCallPiece], text: str) -> None:
        """Tell text, without the line breaks that only part calls."""
        if self._behind_call:
            text = text.lstrip()
            self._behind_call = not text
        told.append(text)

    def _calls(self, text: str) -> list[ToolCallPiece] | None:
        """The calls that a text is, if it is nothing else."""
        try:
            said = json.loads(text)
        except ValueError:
            return None
        calls = [_call(one) for one in (said if isinstance(said, list) else [said])]
        known = [call for call in calls if call is not None and call[0] in self._names]
        if not calls or len(known) < len(calls):
            return None
        start, self.calls = self.calls, self.calls + len(known)
        return [
            ToolCallPiece(start + n, f"call_{self._first + start + n}", name, arguments)
            for n, (name, arguments) in enumerate(known)
        ]


def _call(said: object) -> tuple[str, str] | None:
    """Name and arguments of what may be a call."""
    if not isinstance(said, dict):
        return None
    if isinstance(inner := said.get("function"), dict):
        said = inner
    arguments = said.get("arguments", said.get("parameters", {}))
    if isinstance(arguments, str):  # JSON in JSON, as the API writes it
        return (str(said.get("name")), arguments)
    return (str(said.get("name")), json.dumps(arguments)) if isinstance(arguments, dict) else None


def _begun(text: str, mark: str) -> int:
    """How many characters at the end may be the beginning of a mark."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if mark.startswith(text[-n:])), 0)


def _pieces(
    told: Sequence[str | ToolCallPiece], tokens: tuple[Token, ...]
) -> list[TextPiece | ToolCallPiece]:
    """Text joined where it stands together; the tokens, where there are any, with the first of it."""
    found: list[TextPiece | ToolCallPiece] = []
    for one in told:
        if isinstance(one, ToolCallPiece):
            found.append(one)
        elif one and found and isinstance(found[-1], TextPiece):
            found[-1] = TextPiece(found[-1].text + one)
        elif one:
            found.append(TextPiece(one))
    if tokens:
        place = next((n for n, one in enumerate(found) if isinstance(one, TextPiece)), None)
        if place is None:
            return [TextPiece("", tokens), *found]
        found[place] = TextPiece(found[place].text, tokens)  # type: ignore[union-attr]
    return found
