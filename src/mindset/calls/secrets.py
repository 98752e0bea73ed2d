"""What keys and tokens look like, and where they are in a text.

A secret is a value that is known, or text of a known shape. Does not know calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from mindset.calls.canonical import canonical
from mindset.errors import UsageError

__all__ = ["BEFORE", "LONGEST", "MARK", "SHAPES", "Secrets", "Shape"]

MARK = "[redacted]"
"""Stands where a secret was."""
LONGEST = 4096
"""Letters of a secret at most, where it comes in pieces."""
TELLING = 4
"""Letters of a beginning that make one wait; fewer give nothing away, and most of them begin other words."""
BEFORE = TELLING + 1
"""Letters that have to be known to tell whether a text goes on with a secret; the first one for what it is not."""
_MARGIN = 16
"""Letters of a shape's beginning at most."""


@dataclass(frozen=True)
class Shape:
    """What secrets of one kind look like: a beginning, and letters of a certain kind behind it, a digit among them."""

    start: str
    """As it is written; no letter or digit stands before it."""
    letters: str
    """The inside of a character class, without white space."""
    least: int
    """How many letters at least."""
    keep_start: bool = False
    """Whether the beginning is no secret and stays."""

    def __post_init__(self) -> None:
        """Refuse what could not be looked for."""
        if not 1 < len(self.start) <= _MARGIN:
            raise UsageError(f"{self.start!r} cannot begin a secret: give 2 to {_MARGIN} letters")

    @cached_property
    def found(self) -> re.Pattern[str]:
        """A whole one."""
        start = re.escape(self.start)
        body = rf"(?=[{self.letters}]*[0-9])[{self.letters}]{{{self.least},}}"
        return re.compile(rf"(?<={start}){body}" if self.keep_start else rf"(?<![A-Za-z0-9]){start}{body}")

    @cached_property
    def begun(self) -> re.Pattern[str]:
        """The end of a text that may go on as one."""
        rest = rf"[{self.letters}]*"
        for letter in reversed(self.start[1:]):
            rest = rf"(?:{re.escape(letter)}{rest})?"
        return re.compile(rf"(?<![A-Za-z0-9]){re.escape(self.start[0])}{rest}\Z")


_WORD = "A-Za-z0-9_-"
SHAPES = (
    Shape("sk-", _WORD, 20),  # OpenAI, Anthropic, and those who follow them
    Shape("Bearer ", "A-Za-z0-9._~+/=-", 16, keep_start=True),
    Shape("bearer ", "A-Za-z0-9._~+/=-", 16, keep_start=True),
    Shape("hf_", "A-Za-z0-9", 20),
    Shape("gsk_", "A-Za-z0-9", 20),
    Shape("xai-", _WORD, 20),
    Shape("AIza", _WORD, 30),
    Shape("AKIA", "A-Z0-9", 16),
    Shape("ghp_", "A-Za-z0-9", 20),
    Shape("gho_", "A-Za-z0-9", 20),
    Shape("ghs_", "A-Za-z0-9", 20),
    Shape("github_pat_", "A-Za-z0-9_", 20),
    Shape("xoxb-", _WORD, 16),
    Shape("xoxp-", _WORD, 16),
)
"""Kinds of keys that give themselves away."""


@dataclass(frozen=True)
class Secrets:
    """What is known at one moment."""

    shapes: tuple[Shape, ...]
    values: frozenset[str]

    def suspected(self, text: str) -> bool:
        """Whether there may be one in a text, or in a text inside JSON; quick."""
        for shape in self.shapes:  # faster than any() over a generator
            if shape.start in text:
                return True
        return any(value in text or canonical(value).decode()[1:-1] in text for value in self.values)

    def spans(self, text: str, before: str = "") -> list[tuple[int, int]]:
        """Where secrets are: apart, in order. `before` are the last `BEFORE` letters before the text."""
        whole, skip = before + text, len(before)
        found = [(start, start + len(value)) for value in self.values for start in _starts(whole, value)]
        for shape in self.shapes:
            if shape.start in whole:
                found += [match.span() for match in shape.found.finditer(whole, skip == BEFORE)]
        return [(max(start - skip, 0), stop - skip) for start, stop in _merged(found) if stop > skip]

    def replaced(self, text: str) -> str:
        """A text with a mark in the place of each."""
        kept, at = [], 0
        for start, stop in self.spans(text):
            kept += [text[at:start], MARK]
            at = stop
        return "".join([*kept, text[at:]])

    def begun_at(self, text: str, before: str = "") -> int:
        """Where the end of the text begins that may go on as one; its length, if nothing may."""
        whole = before + text
        at = len(whole)
        # Behind white space nothing goes on, but a beginning that has some in it.
        first = max(len(before) == BEFORE, max(whole.rfind(" "), whole.rfind("\n")) - _MARGIN, at - LONGEST)
        for shape in self.shapes:
            match = shape.begun.search(whole, first)
            if match and len(whole) - match.start() >= TELLING:
                at = min(at, match.start())
        for value in self.values:
            at = min(at, len(whole) - _shared(whole, value))
        return max(at - len(before), 0)


def _shared(text: str, value: str) -> int:
    """Letters of the value's beginning that the text ends with; 0 for few."""
    longest = min(len(value), len(text))
    return next((n for n in range(longest, TELLING - 1, -1) if text.endswith(value[:n])), 0)


def _starts(text: str, value: str) -> Iterator[int]:
    at = text.find(value)
    while at >= 0:
        yield at
        at = text.find(value, at + 1)


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged
