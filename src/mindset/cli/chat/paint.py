"""An answer's markdown in colours while it still comes: marks stay where they are, so that nothing is ever repainted.

    paint = Paint(width=80)
    for piece in pieces: print(paint.feed(piece), end="")
    print(paint.end(), end="")

Headings, fenced code, `code` and **bold** get a colour; tables and links stay as the model wrote them. Does not know a
terminal. Invariants: how the answer was cut into pieces makes no difference; without colours and line breaks, what is
printed is the answer.
"""

from __future__ import annotations

import re

from mindset.cli.chat.lines import Lines, harmless

__all__ = ["Paint"]

BOLD, CODE = "\x1b[1m", "\x1b[36m"
_BULLET = re.compile(r" *(?:[-*+]|\d{1,3}[.)]) ")
_HEADING = re.compile(r"#{1,6} ")
_MARKS = "*`~"


class Paint:
    """The state between two pieces of one answer."""

    def __init__(self, width: int, *, colour: bool = True) -> None:
        """`width`: cells of a line; 0 breaks none."""
        self._lines = Lines(width, colour=colour)
        self._line = ""
        """What has come of this line: tells whether a mark begins it."""
        self._marks = ""
        """Marks in a row; their number, and what follows, say what they mean."""
        self._fence = self._code = ""
        """The marks that began it; empty outside."""
        self._fence_ends = self._heading = self._bold = False

    def feed(self, piece: str) -> str:
        """More of the answer; returns what to print."""
        return "".join(self._letter(letter) for letter in harmless(piece))

    def end(self) -> str:
        """What was held back."""
        return self._understood("") + self._lines.end()

    def _letter(self, letter: str) -> str:
        if letter in _MARKS and (not self._marks or letter == self._marks[0]):
            self._marks += letter
            return ""
        printed = self._understood(letter)
        if letter in _MARKS:
            self._marks = letter
            return printed
        return printed + (self._newline() if letter == "\n" else self._put(letter))

    def _understood(self, following: str) -> str:
        """The marks that were held back, now that it is known what follows."""
        marks, self._marks = self._marks, ""
        if not marks:
            return ""
        if len(marks) >= 3 and marks[0] in "`~" and not self._line.strip() and self._turn_fence(marks):
            return self._put(marks)
        if self._fence:
            return self._put(marks)
        if marks[0] == "`":
            return self._turn_code(marks)
        if marks == "**" and not self._code:
            return self._turn_bold(following)
        return self._put(marks)

    def _turn_fence(self, marks: str) -> bool:
        if not self._fence:
            self._fence = marks
            return True
        self._fence_ends = marks[0] == self._fence[0] and len(marks) >= len(self._fence)
        return self._fence_ends

    def _turn_code(self, marks: str) -> str:
        if not self._code:
            self._code = marks
            return self._put(marks)
        printed = self._put(marks)
        if marks == self._code:
            self._code = ""
        return printed

    def _turn_bold(self, following: str) -> str:
        before = self._line[-1:]
        if self._bold and not before.isspace():
            printed = self._put("**")
            self._bold = False
            return printed
        self._bold = self._bold or bool(not before.isalnum() and following.strip())
        return self._put("**")

    def _put(self, text: str) -> str:
        self._line += text
        if self._fence:
            return self._lines.as_is(text, CODE)
        if text == " ":
            self._heading = self._heading or bool(_HEADING.fullmatch(self._line))
            if _BULLET.fullmatch(self._line):
                self._lines.hang(len(self._line))
        return self._lines.put(text, self._style())

    def _style(self) -> str:
        if self._code:
            return CODE
        return BOLD if self._heading or self._bold else ""

    def _newline(self) -> str:
        if self._fence_ends:
            self._fence, self._fence_ends = "", False
        self._bold = self._bold and bool(self._line.strip())
        self._line, self._code, self._heading = "", "", False
        return self._lines.newline()
