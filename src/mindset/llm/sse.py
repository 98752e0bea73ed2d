"""Server-sent events out of bytes, as they arrive.

Follows the HTML standard: UTF-8 whatever a header says, lines end in CR, LF or both, comments are passed over. Beyond
it an event that the stream ends in without an empty line still counts, since servers forget that line. Invariant: any
cut of the bytes into chunks gives the same events.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass

__all__ = ["ServerEvent", "SseParser"]


@dataclass(frozen=True)
class ServerEvent:
    """One event."""

    data: str
    name: str = "message"


class SseParser:
    """Takes chunks, gives events."""

    def __init__(self) -> None:
        """At the beginning of a stream."""
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._line: list[str] = []
        self._after_cr = False
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that end in this chunk."""
        return self._take(self._decoder.decode(chunk))

    def end(self) -> list[ServerEvent]:
        """The event that the stream ended in, if there is one."""
        rest = self._take(self._decoder.decode(b"", final=True) + "\n\n")
        self._decoder.reset()
        return rest

    def _take(self, text: str) -> list[ServerEvent]:
        if not text:
            return []
        if self._after_cr and text[0] == "\n":
            text = text[1:]
            self._after_cr = False
            if not text:
                return []
        self._after_cr = text[-1] == "\r"
        *whole, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        events = []
        for part in whole:
            event = self._finish_line("".join([*self._line, part]))
            self._line.clear()
            if event is not None:
                events.append(event)
        if rest:
            self._line.append(rest)
        return events

    def _finish_line(self, line: str) -> ServerEvent | None:
        if not line:
            return self._finish_event()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        return None

    def _finish_event(self) -> ServerEvent | None:
        name, data = self._name or "message", self._data
        self._name, self._data = "", []
        return ServerEvent("\n".join(data), name) if data else None
