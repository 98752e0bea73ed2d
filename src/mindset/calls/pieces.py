"""The pieces of an answer as bytes, and what they add up to where nobody was left to say so.

A row of pieces is a JSON list of `[seconds, event]`, seconds to the microsecond. Which events there are is the
clients' business; the few fields that hold what a model says are named here.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence

from mindset.calls.call import NewNode, Piece
from mindset.calls.canonical import Json, canonical
from mindset.errors import FormatError

__all__ = ["packed", "partial_answer", "unpack", "written"]

SMALL = 200
"""Bytes that are not worth compressing."""
_PLAIN = b"["


def written(pieces: Sequence[Piece]) -> bytes:
    """Pieces as JSON."""
    return canonical([[round(piece.at, 6), piece.event] for piece in pieces])


def packed(told: bytes) -> bytes:
    """A row of pieces from their JSON, deflated where that is worth it."""
    return told if len(told) <= SMALL else zlib.compress(told, 1)


def unpack(row: bytes) -> list[Piece]:
    """The pieces of a row."""
    try:
        told = row if row.startswith(_PLAIN) else zlib.decompress(row)
        return [Piece(float(at), event) for at, event in json.loads(told)]
    except (zlib.error, ValueError, TypeError) as error:
        raise FormatError(f"a row of pieces is damaged ({error})") from error


def partial_answer(pieces: Sequence[Piece]) -> tuple[NewNode, ...]:
    """What was said before a call broke off, as the client would have told it; nothing, if nothing was."""
    parts: list[dict[str, Json]] = []
    calls: dict[int, dict[str, Json]] = {}
    for piece in pieces:
        event, kind = piece.event, piece.event.get("event")
        if kind in ("text", "reasoning"):
            _append(parts, str(kind), event)
        elif kind == "tool_call":
            had = calls.setdefault(event.get("index", 0), {"id": "", "name": "", "arguments": ""})
            had["id"] = had["id"] or event.get("id", "")
            had["name"] = had["name"] or event.get("name", "")
            had["arguments"] += event.get("arguments", "")
    if not parts and not calls:
        return ()
    message = NewNode("message", {"role": "assistant", "parts": parts})
    return (message, *(NewNode("tool_call", calls[index]) for index in sorted(calls)))


def _append(parts: list[dict[str, Json]], kind: str, event: Json) -> None:
    text, signature = event.get("text", ""), event.get("signature")
    if parts and parts[-1]["type"] == kind:
        parts[-1]["text"] += text
    elif text or kind == "reasoning":
        parts.append({"type": kind, "text": text})
    if parts and kind == "reasoning" and signature:
        parts[-1]["signature"] = signature
