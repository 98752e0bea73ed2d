"""Where a chat's words go: answers to stdout as they come, all else beside them in a quieter colour.

On a terminal everything is on the screen; without one, answers and what commands tell go to stdout, all else to stderr,
and nothing has a colour. Does not know what is said. Invariant: only appends; what was printed is never touched again.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mindset.cli.answers import document
from mindset.cli.chat.lines import harmless
from mindset.cli.chat.paint import Paint
from mindset.cli.spending import Spent, told
from mindset.llm.dialog import Dialog

__all__ = ["JsonScreen", "Screen", "is_plain"]

QUIET = "\x1b[2m", "\x1b[0m"


def is_plain() -> bool:
    """Whether stdin or stdout is no terminal, or one that can move no cursor."""
    return not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "") in (
        "",
        "dumb",
        "unknown",
    )


class Screen:
    """Prints."""

    def __init__(self, *, plain: bool, person: bool) -> None:
        """`plain`: no colours; `person`: somebody reads stdout, which else is for a program."""
        self.person = person
        self.colour = not plain and "NO_COLOR" not in os.environ
        self._paint: Paint | None = None
        self._open = False

    @property
    def width(self) -> int:
        """Cells of a line."""
        return shutil.get_terminal_size().columns

    # ---- an answer ----------------------------------------------------------------------------------------------
    def piece(self, text: str) -> None:
        """More of an answer; the first piece begins it."""
        if not text:
            return
        if not self.person:
            self._out(harmless(text) if sys.stdout.isatty() else text)
            return
        if self._paint is None:
            self._paint = Paint(self.width, colour=self.colour)
        self._out(self._paint.feed(text))

    def thought(self, text: str) -> None:
        """More of what a model thinks; not an answer, so a program does not get it."""
        if self.person:
            shown = harmless(text)
            self._out(f"{QUIET[0]}{shown}{QUIET[1]}" if self.colour and shown else shown)

    def end(self) -> None:
        """The end of an answer, or of the part of it that came."""
        if self._paint is not None:
            self._out(self._paint.end())
            self._paint = None
        if self._open:
            self._out("\n")

    def _out(self, text: str) -> None:
        if text:
            self._open = not text.endswith("\n")
            sys.stdout.write(text)
            sys.stdout.flush()

    def answered(self, dialog: Dialog, spent: Spent) -> None:
        """An answer is over: what it cost, for a person."""
        if not self.person:
            return
        cut = dialog.last is not None and dialog.last.finish_reason == "length"
        self.note(f"[{told(spent)}{'; cut, -o max_tokens N allows more' if cut else ''}]\n")

    # ---- beside it ----------------------------------------------------------------------------------------------
    def say(self, text: str) -> None:
        """A line in answer to a command."""
        self.end()
        click.echo(harmless(text))

    def note(self, text: str) -> None:
        """A line that nobody asked for."""
        self.end()
        text = harmless(text)
        if self.person:
            click.echo(f"{QUIET[0]}{text}{QUIET[1]}" if self.colour else text)
        else:
            click.echo(text, err=True)

    def fail(self, text: str) -> None:
        """One sentence on what went wrong."""
        self.end()
        if self.person:
            click.echo(f"\x1b[31m{harmless(text)}\x1b[0m" if self.colour else f"Error: {harmless(text)}")
        else:
            click.echo(f"Error: {harmless(text)}", err=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Rows under columns; those whose names end with > stand on the right."""
        self.end()
        table = Table(box=None, pad_edge=False, header_style="dim", show_header=any(columns))
        for name in columns:
            right = name.endswith(">")
            table.add_column(name.rstrip(">"), justify="right" if right else "left", no_wrap=right)
        for row in rows:
            table.add_row(*(Text(harmless(str(cell))) for cell in row))
        console = Console(
            highlight=False,
            no_color=not self.colour,
            color_system="standard" if self.colour else None,
            width=self.width,
        )
        console.print(table)


class JsonScreen(Screen):
    """For a program: everything is a line of JSON on stdout."""

    def __init__(self) -> None:
        super().__init__(plain=True, person=False)

    def piece(self, text: str) -> None:
        """Nothing: an answer is told when it is over."""

    def answered(self, dialog: Dialog, spent: Spent) -> None:
        """All of an answer."""
        self._tell(document(dialog, spent))

    def say(self, text: str) -> None:
        """Under `said`."""
        self._tell({"said": text})

    def note(self, text: str) -> None:
        """Under `note`."""
        self._tell({"note": text})

    def fail(self, text: str) -> None:
        """Under `error`."""
        self._tell({"error": text})

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Under `rows`, each an object."""
        names = [name.rstrip(">") or "mark" for name in columns]
        self._tell({"rows": [dict(zip(names, row, strict=True)) for row in rows]})

    def _tell(self, told: dict[str, object]) -> None:
        click.echo(json.dumps(told, ensure_ascii=False))
