"""Calls to try the log with."""

from __future__ import annotations

from collections.abc import Sequence

from mindset.calls.call import Asked, NewNode, Outcome, Piece, Usage
from mindset.calls.canonical import Json
from mindset.calls.log import CallLog


def message(role: str, text: str) -> NewNode:
    return NewNode("message", {"role": role, "parts": [{"type": "text", "text": text}]})


def asked(*texts: str, parent: int | None = None, model: str = "smollm2", **options: Json) -> Asked:
    """A dialog that a user begins, and in which an assistant answers in turn."""
    roles = ["user", "assistant"] * len(texts)
    nodes = tuple(message(role, text) for role, text in zip(roles, texts, strict=False))
    return Asked("complete", model, "script", nodes, options, parent)


def pieces(*texts: str, begin: float = 0.5) -> list[Piece]:
    return [Piece(begin + place / 8, {"event": "text", "text": text}) for place, text in enumerate(texts)]


def ok(text: str, **more: Json) -> Outcome:
    usage = Usage(len(text), len(text) // 2, 1)
    told: dict[str, Json] = {
        "usage": usage, "finish_reason": "stop", "answered_by": "m", "seconds": 1.5, "first_token": 0.5
    }  # fmt: skip
    return Outcome("ok", (message("assistant", text),), **(told | more))


def call(log: CallLog, question: str | Asked, answer: str, parts: Sequence[Piece] | None = None) -> int:
    """One whole call."""
    made = log.begin(asked(question) if isinstance(question, str) else question)
    log.finish(made, ok(answer), pieces(answer) if parts is None else parts)
    return made
