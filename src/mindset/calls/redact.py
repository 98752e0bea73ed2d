"""Keys and tokens are taken out of what is said before anything of it is hashed or stored.

Known are the values of `*_API_KEY` environment variables, what a client tells with `know`, and the shapes of
`secrets.SHAPES`; `Redactor(shapes=(*SHAPES, Shape(...)))` knows more. Redacting twice is redacting once. Text that
comes in pieces is redacted as the whole that it becomes: pieces with what may be the beginning of a secret wait for
what follows (`Stream`). Does not know the log.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from mindset.calls.call import Asked, NewNode, Outcome, Piece, Retry
from mindset.calls.canonical import Json, canonical
from mindset.calls.pieces import packed, written
from mindset.calls.secrets import BEFORE, LONGEST, MARK, SHAPES, Secrets, Shape

__all__ = ["Redactor", "Stream"]

LEAST_VALUE = 8
"""Letters of a known value; shorter ones would be found in any text."""
FIELDS = ("text", "arguments")
"""What an event may hold a part of: texts that only together are whole."""


class Redactor:
    """Takes secrets out."""

    def __init__(self, shapes: Sequence[Shape] = SHAPES, *, environment: bool = True) -> None:
        """`environment`: whether values of `*_API_KEY` variables are known."""
        self.shapes = tuple(shapes)
        self.environment = environment
        self._told: set[str] = set()

    def know(self, secret: str) -> None:
        """A value that is secret from now on, such as a key that was given as an argument."""
        self._told.add(secret)

    def secrets(self) -> Secrets:
        """What is known now."""
        values = set(self._told)
        if self.environment:
            values |= {os.environ[name] for name in list(os.environ) if name.endswith("_API_KEY")}
        return Secrets(
            self.shapes,
            frozenset(value for value in values if len(value) >= LEAST_VALUE and value not in MARK),
        )

    def text(self, text: str) -> str:
        """A text without secrets."""
        return _text(text, self.secrets())

    def json(self, value: Json) -> Json:
        """A JSON value without secrets in its texts, or in the names of its fields."""
        return _json(value, self.secrets())

    def asked(self, asked: Asked) -> Asked:
        """What a call asks, as it may be hashed and stored; the key of this one is what it is found by."""
        known = self.secrets()
        nodes = [[node.kind, node.content] for node in asked.nodes]
        if not known.suspected(canonical([asked.model, nodes, asked.options]).decode()):
            return asked
        options = _cleaned(asked.options, known)
        return replace(
            asked, nodes=_nodes(asked.nodes, known), model=known.replaced(asked.model), options=options
        )

    def outcome(self, outcome: Outcome) -> Outcome:
        """How a call ended, as it may be hashed and stored."""
        known = self.secrets()
        nodes = [[node.kind, node.content] for node in outcome.answer]
        said = [
            outcome.error,
            outcome.answered_by,
            outcome.endpoint,
            *(one.reason for one in outcome.retries),
        ]
        if not known.suspected(canonical([nodes, outcome.result, said]).decode()):
            return outcome
        return replace(
            outcome,
            answer=_nodes(outcome.answer, known),
            result=_cleaned(outcome.result, known),
            error=_cleaned(outcome.error, known),
            answered_by=_cleaned(outcome.answered_by, known),
            endpoint=_cleaned(outcome.endpoint, known),
            retries=tuple(Retry(one.at, known.replaced(one.reason), one.waited) for one in outcome.retries),
        )


class Stream:
    """The pieces of one answer on their way into the log."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._waiting: list[Piece] = []
        self._before: dict[Json, str] = {}

    def row(self, pieces: Sequence[Piece], *, last: bool = False) -> bytes | None:
        """What may be stored now, packed: the pieces that waited and these, but for those that must wait.

        Where it is the `last` time, nothing waits. None: there is nothing to store.
        """
        known = self._redactor.secrets()
        pieces = [*self._waiting, *pieces]
        threads = _threads(pieces)
        for thread in threads:
            thread.look(known, self._before.get(thread.name, ""), last)
        stop = _first_waiting(threads, len(pieces))
        changed = dict(enumerate(pieces))
        for thread in threads:
            thread.redact(changed)
        self._waiting = pieces[stop:]
        for thread in threads:
            thread.leave(self._before, stop)
        return _packed([changed[place] for place in range(stop)], known) if stop else None


def _packed(pieces: Sequence[Piece], known: Secrets) -> bytes:
    told = written(pieces)
    if known.suspected(told.decode()):
        told = written([Piece(piece.at, _cleaned(piece.event, known)) for piece in pieces])
    return packed(told)


class _Thread:
    """Texts of one kind and index, as one text."""

    def __init__(self, name: Json, field: str) -> None:
        self.name, self.field = name, field
        self.places: list[int] = []
        """Of each piece with a part of it."""
        self.parts: list[str] = []
        self.text = ""
        self.spans: list[tuple[int, int]] = []
        """Where secrets are."""
        self.open = 0
        """Where the end begins that may go on as a secret."""

    def look(self, known: Secrets, before: str, last: bool) -> None:
        """Find the secrets."""
        self.text = "".join(self.parts)
        self.spans = known.spans(self.text, before) if known.suspected(before + self.text) else []
        self.open = len(self.text) if last else known.begun_at(self.text, before)
        if len(self.text) - self.open > LONGEST:
            self.open = len(self.text)

    def waiting(self, stop: int) -> int:
        """Place of the first piece that has to wait if those from `stop` do: no secret is cut in two."""
        if self.open == len(self.text) and (not self.spans or self.places[-1] < stop):
            return stop
        bounds = self._bounds()
        at = min([self.open, *(start for place, start, _ in bounds if place >= stop)])
        for a, b in reversed(self.spans):
            at = a if a < at < b else at
        return min([stop, *(place for place, _, end in bounds if end > at)])

    def redact(self, pieces: dict[int, Piece]) -> None:
        """Change the pieces that hold a part of a secret."""
        for place, start, end in self._bounds() if self.spans else ():
            touching = [(a, b) for a, b in self.spans if a < end and b > start]
            if touching:
                event = dict(pieces[place].event)
                event[self.field] = _without(self.text, start, end, touching)
                event.pop("tokens", None)  # they would spell it
                pieces[place] = Piece(pieces[place].at, event)

    def leave(self, before: dict[Json, str], stop: int) -> None:
        """Remember the last letters in the pieces before `stop`."""
        gone = bisect_left(self.places, stop)
        if gone:
            end = before.get(self.name, "") + "".join(self.parts[max(0, gone - BEFORE) : gone])
            before[self.name] = end[-BEFORE:]

    def _bounds(self) -> list[tuple[int, int, int]]:
        """For each piece with a part of it: the piece's place, where its part begins, and where it ends."""
        ends = list(accumulate(map(len, self.parts)))
        return list(zip(self.places, [0, *ends], ends, strict=False))


def _first_waiting(threads: Sequence[_Thread], count: int) -> int:
    stop = count
    while True:
        earlier = min([stop, *(thread.waiting(stop) for thread in threads)])
        if earlier == stop:
            return stop
        stop = earlier


def _threads(pieces: Sequence[Piece]) -> list[_Thread]:
    threads: dict[Json, _Thread] = {}
    for place, piece in enumerate(pieces):
        event = piece.event
        for field in FIELDS:
            part = event.get(field)
            if part and isinstance(part, str):
                name = (field, event.get("event"), event.get("index"))
                thread = threads.get(name)
                if thread is None:
                    thread = threads[name] = _Thread(name, field)
                thread.places.append(place)
                thread.parts.append(part)
    return list(threads.values())


def _without(text: str, start: int, end: int, spans: Sequence[tuple[int, int]]) -> str:
    """The part from `start` to `end`; the mark stands where a secret begins."""
    kept, at = [], start
    for a, b in spans:
        kept += [text[at : max(a, at)], MARK if a >= start else ""]
        at = min(b, end)
    return "".join([*kept, text[at:end]])


def _text(text: str, known: Secrets) -> str:
    return known.replaced(text) if known.suspected(text) else text


def _json(value: Json, known: Secrets) -> Any:
    return _cleaned(value, known) if known.suspected(canonical(value).decode()) else value


def _nodes(nodes: Sequence[NewNode], known: Secrets) -> tuple[NewNode, ...]:
    return tuple(NewNode(node.kind, _cleaned(node.content, known)) for node in nodes)


def _cleaned(value: Json, known: Secrets) -> Any:
    if isinstance(value, str):
        return known.replaced(value)
    if isinstance(value, Mapping):
        return {known.replaced(str(name)): _cleaned(item, known) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item, known) for item in value]
    return value
