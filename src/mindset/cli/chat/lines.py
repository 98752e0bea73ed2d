"""Lines broken between words while they still come, in colours: what was printed is never taken back.

At most one word is held back. Does not know markdown. Invariant: how a text was cut into pieces makes no difference,
and nothing that is put here can steer the terminal.
"""

from __future__ import annotations

import re

from rich.cells import cell_len

__all__ = ["Lines", "harmless", "uncoloured"]

PLAIN = "\x1b[0m"
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST_HELD = 40
"""Cells of a word that is held back at most; a longer one is broken where it stands."""


def harmless(text: str) -> str:
    """The text without anything that would steer a terminal; tabs and line ends stay."""
    return "".join(one if one in "\n\t" or _prints(one) else "\N{REPLACEMENT CHARACTER}" for one in text)


def uncoloured(text: str) -> str:
    """The text without its colours."""
    return _ESCAPES.sub("", text)


class Lines:
    """What is printed, letter by letter."""

    def __init__(self, width: int, *, colour: bool = True) -> None:
        """`width`: cells of a line; 0 breaks none."""
        self._room = (
            max(width - 1, 10) if width else 0
        )  # a terminal that reached its last cell breaks by itself
        self._colour = colour
        self._shown = ""
        self._column = self._indent = 0
        self._gap = self._word = ""
        self._cells = 0

    def put(self, text: str, style: str = "") -> str:
        """Letters or blanks, no line end; returns what to print now."""
        if text in " \t":
            printed = self._flush()
            self._gap += text
            return printed
        self._word += self._paint(style) + text
        self._cells += cell_len(text)
        wide = cell_len(text) > len(text)  # scripts without blanks are broken anywhere
        return self._flush() if wide or self._cells > _LONGEST_HELD else ""

    def as_is(self, text: str, style: str = "") -> str:
        """Letters and blanks of a line that is not to be broken."""
        return self._flush() + self._take_gap() + self._advance(self._paint(style) + text)

    def hang(self, cells: int) -> None:
        """Where the next lines begin, should this one be broken."""
        self._indent = cells if not self._room or cells < self._room // 2 else 0

    def newline(self) -> str:
        """The end of a line."""
        printed = self.end() + "\n"
        self._column = self._indent = 0
        return printed

    def end(self) -> str:
        """What was held back, without blanks for which a line has no room."""
        printed = self._flush()
        if self._room and self._column + len(self._gap) > self._room:
            self._gap = ""
        return printed + self._take_gap() + self._paint("")

    def _flush(self) -> str:
        """The word that was held back, on this line or on the next one."""
        if not self._word:
            return ""
        word, cells, self._word, self._cells = self._word, self._cells, "", 0
        breaks = (
            self._room and self._column + len(self._gap) + cells > self._room and self._column > self._indent
        )
        if not breaks:
            return self._take_gap() + self._advance(word)
        self._gap, self._column = "", self._indent
        return "\n" + " " * self._indent + self._advance(word)

    def _take_gap(self) -> str:
        gap, self._gap = self._gap, ""
        return self._advance(gap)

    def _advance(self, text: str) -> str:
        self._column += cell_len(uncoloured(text))
        if self._room and self._column > self._room:
            self._column %= self._room + 1
        return text

    def _paint(self, style: str) -> str:
        if not self._colour or style == self._shown:
            return ""
        before, self._shown = self._shown, style
        return (PLAIN if before else "") + style


def _prints(letter: str) -> bool:
    return ord(letter) >= 0xA0 or 0x20 <= ord(letter) < 0x7F
