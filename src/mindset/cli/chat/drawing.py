"""The branches of a conversation drawn in letters: one line an exchange, the present one marked.

Does not know a terminal or a database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len, set_cell_size

from mindset.cli.chat.lines import harmless
from mindset.llm.exchanges import Fork

__all__ = ["Row", "draw", "one_line"]

HASH_LETTERS = 8


@dataclass(frozen=True)
class Row:
    """One line of the picture."""

    text: str
    """Lines of the tree and the beginning of the question."""
    answer: str
    """The beginning of the answer."""
    hash: str
    """What `/switch` takes."""
    names: str
    """Branches that end here."""
    here: bool
    """Whether the next question would go here."""


def draw(roots: Sequence[Fork], here: str | None, width: int = 60) -> list[Row]:
    """The lines, from the beginning on; `here` is the hash of the present node, `width` the cells of both texts."""
    rows = list(_siblings(roots, here, width * 3 // 5, ""))
    room = width - max((cell_len(row.text) for row in rows), default=0)
    return [replace(row, answer=one_line(row.answer, max(room, 20))) for row in rows]


def one_line(text: str, width: int) -> str:
    """The beginning of a text, in at most `width` cells."""
    words = " ".join(harmless(text).split())
    return words if cell_len(words) <= width else set_cell_size(words, width - 1).rstrip() + "…"


def _siblings(forks: Sequence[Fork], here: str | None, width: int, left: str) -> Iterable[Row]:
    if len(forks) == 1:  # going on is no fork: the same column
        yield from _fork(forks[0], here, width, left, left)
        return
    for number, fork in enumerate(forks):
        last = number == len(forks) - 1
        yield from _fork(
            fork, here, width, left + ("└─ " if last else "├─ "), left + ("   " if last else "│  ")
        )


def _fork(fork: Fork, here: str | None, width: int, first: str, left: str) -> Iterable[Row]:
    exchange = fork.exchange
    text = first + one_line(exchange.question or "(deleted)", max(width - len(first), 20))
    yield Row(text, exchange.answer, exchange.tip[:HASH_LETTERS], " ".join(fork.names), exchange.tip == here)
    yield from _siblings(fork.after, here, width, left)
