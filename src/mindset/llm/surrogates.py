"""Letters beyond 16 bits that came in halves, as servers send them that count in UTF-16: put together again.

A half at the end of a piece waits for the next piece of its kind; one whose other half never comes becomes the
replacement character. Invariant: what comes out can be written as UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from mindset.llm.events import Event, ReasoningPiece, TextPiece, ToolCallPiece

__all__ = ["Whole", "whole_text"]

_HALF = re.compile("[\ud800-\udfff]")
_FIRST_HALVES = ("\ud800", "\udbff")


def whole_text(text: str) -> str:
    """A text with its halves put together."""
    if not _HALF.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class Whole:
    """Pieces of one answer, with their halves put together."""

    def __init__(self) -> None:
        """At the beginning of an answer."""
        self._waiting: dict[object, tuple[str, Event]] = {}

    def take(self, events: Iterable[Event]) -> Iterator[Event]:
        """The events, with whole letters."""
        for event in events:
            if isinstance(event, TextPiece | ReasoningPiece):
                yield from self._joined(type(event), event, "text", event.text)
            elif isinstance(event, ToolCallPiece):
                yield from self._joined(event.index, event, "arguments", event.arguments)
            else:
                yield from self.end()
                yield event

    def end(self) -> Iterator[Event]:
        """What waits for another half that never came."""
        waiting, self._waiting = self._waiting, {}
        for half, event in waiting.values():
            name = "arguments" if isinstance(event, ToolCallPiece) else "text"
            yield replace(event, **{name: whole_text(half)})  # type: ignore[arg-type]

    def _joined(self, key: object, event: Event, name: str, text: str) -> Iterator[Event]:
        before, _ = self._waiting.pop(key, ("", event))
        text = before + text
        if text and _FIRST_HALVES[0] <= text[-1] <= _FIRST_HALVES[1]:
            self._waiting[key] = (text[-1], _empty(event))
            text = text[:-1]
            if not text and not getattr(event, "tokens", ()) and name == "text":
                return
        whole = whole_text(text)
        yield event if whole == getattr(event, name) else replace(event, **{name: whole})  # type: ignore[arg-type]


def _empty(event: Event) -> Event:
    """What a half comes in that stays alone."""
    if isinstance(event, ToolCallPiece):
        return ToolCallPiece(event.index)
    return TextPiece("") if isinstance(event, TextPiece) else ReasoningPiece("")
