"""What a scripted model says: a `Line` an answer, and files of them, a line of JSON each.

    "Yes."
    {"text": "No.", "delay": 0.1}
    {"tool_calls": [{"id": "1", "name": "add", "arguments": {"a": 1, "b": 2}}]}
    {"text": "I was about to", "fails": "the line is dead", "fails_after": 2, "retry": true}

Empty lines and lines that begin with # are passed over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args

from mindset.calls.call import Usage
from mindset.calls.canonical import Json
from mindset.errors import DataError, MissingError
from mindset.llm.events import FinishReason
from mindset.llm.messages import ToolCall

__all__ = ["Line", "read_script"]


@dataclass(frozen=True)
class Line:
    """One answer."""

    text: str = ""
    reasoning: str = ""
    """Thought aloud before the text."""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    """None: counted, a word is a token."""
    finish_reason: FinishReason | None = None
    """None: `tool_calls` where there are some, else `stop`."""
    delay: float = 0.0
    """Seconds before the first piece."""
    pace: float = 0.0
    """Seconds between pieces."""
    fails: str | None = None
    """Sentence with which it fails."""
    fails_after: int = 0
    """Pieces that are said before it fails."""
    retry: bool = False
    """Whether the failure may pass."""
    retry_after: float | None = None
    """Seconds after which it says that it may have passed."""


def read_script(path: Path) -> tuple[Line, ...]:
    """The lines of a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingError(f"no such script: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the script {path}: {error}") from error
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            try:
                lines.append(_line(json.loads(line)))
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(f"line {number} of {path} is no answer: {error}") from error
    return tuple(lines)


_KINDS: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "reasoning": str,
    "tool_calls": list,
    "usage": dict,
    "delay": (int, float),
    "pace": (int, float),
    "fails": str,
    "fails_after": int,
    "retry": bool,
    "retry_after": (int, float),
}


def _line(told: Json) -> Line:
    if isinstance(told, str):
        return Line(told)
    if not isinstance(told, dict):
        raise DataError(f"{type(told).__name__} is neither text nor an object")
    known = {field.name for field in fields(Line)}
    unknown = sorted(told.keys() - known)
    if unknown:
        raise DataError(f"there is no {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    if told.get("finish_reason") not in (None, *get_args(FinishReason)):
        raise DataError(f"finish_reason is one of {', '.join(get_args(FinishReason))}")
    for name, kind in _KINDS.items():
        if name in told and not isinstance(told[name], kind):
            raise DataError(f"{name} is {json.dumps(told[name])}, which is of the wrong kind")
    rest = dict(told)
    if "usage" in rest:
        rest["usage"] = Usage(**rest["usage"])
    rest["tool_calls"] = tuple(_call(call, number) for number, call in enumerate(rest.get("tool_calls", ())))
    return Line(**rest)


def _call(told: Mapping[str, Json], number: int) -> ToolCall:
    arguments = told.get("arguments", {})
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return ToolCall(told.get("id", f"call_{number}"), told["name"], written)
