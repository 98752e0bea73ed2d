"""What a person types: edited on a terminal, with history and completion; line by line where there is none.

`!multi` begins a text of several lines, `!end` ends it; `!multi WORD` ends at `!end WORD`. Does not know what a
command does. Invariant: `read` returns a text, or raises EOFError at the end and KeyboardInterrupt at Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import click

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

__all__ = ["Complete", "Keyboard", "Lines", "Reader", "reader"]

PROMPT, MORE = "> ", ". "

Complete = Callable[[str], Iterable[str]]
"""The words that may stand at the end of a line, given the line up to there."""


@runtime_checkable
class Stream(Protocol):
    """As much of a text file as is needed: typing's own cannot be checked when it runs."""

    def readline(self) -> str:
        """The next line with its end, empty behind the last one."""

    def isatty(self) -> bool:
        """Whether a person sits there."""

    def fileno(self) -> int:
        """What the system calls it."""


@runtime_checkable
class Reader(Protocol):
    """Where a person's turns come from."""

    prompts: bool
    """Whether a person sits there and is asked; otherwise lines come from a pipe or a file."""

    def read(self, default: str = "") -> str:
        """The next text; `default` is to be edited, where that is possible."""

    def ask(self, question: str) -> str:
        """One line, in answer to a question of ours."""

    def unseen(self) -> AbstractContextManager[None]:
        """Keys typed inside the block are not printed; they are there for the next line."""


def reader(history: Path, complete: Complete, *, plain: bool) -> Reader:
    """The reader that fits where we are."""
    return Lines(sys.stdin) if plain else Keyboard(history, complete)


class Lines:
    """Lines of a stream; a prompt only where a person sits in front of a terminal that can do no more."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.prompts = stream.isatty()

    def read(self, default: str = "") -> str:
        """One line, or several between `!multi` and `!end`."""
        if default and self.prompts:
            click.echo(f"it was: {default}")
        return _several(self._line)

    def ask(self, question: str) -> str:
        """One line."""
        return self._line(question)

    def unseen(self) -> AbstractContextManager[None]:
        """No echo."""
        return _without_echo(self.stream, lines=True)

    def _line(self, prompt: str) -> str:
        if self.prompts:
            click.echo(prompt, nl=False)
        line = self.stream.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")


class Keyboard:
    """A terminal that can move its cursor: prompt_toolkit."""

    prompts = True

    def __init__(self, history: Path, complete: Complete) -> None:
        self._session = _session(history, complete)
        self._complete = complete

    def read(self, default: str = "") -> str:
        """One text, edited; Alt-Enter breaks the line, Enter ends it."""
        first = [default]
        return _several(
            lambda prompt: self._session.prompt([("bold", prompt)], default=first.pop() if first else "")
        )

    def ask(self, question: str) -> str:
        """One line, kept out of the history."""
        from prompt_toolkit import prompt

        return prompt(question)

    def unseen(self) -> AbstractContextManager[None]:
        """No echo."""
        return _without_echo(sys.stdin, lines=False)


def _several(line: Callable[[str], str]) -> str:
    """A line; if it begins a text of several, all of that."""
    first = line(PROMPT)
    words = first.split()
    if not words or words[0] != "!multi":
        return first
    end = " ".join(["!end", *words[1:]])
    lines: list[str] = []
    while (more := line(MORE)).strip() != end:
        lines.append(more)
    return "\n".join(lines)


def _session(history: Path, complete: Complete) -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.shortcuts import CompleteStyle

    class Words(Completer):
        def get_completions(self, document: Document, complete_event: object) -> Iterable[Completion]:
            line = document.text_before_cursor
            begun = line.rpartition(" ")[2]
            for word in complete(line):
                yield Completion(word, start_position=-len(begun))

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return PromptSession(
        history=FileHistory(str(_private(history))),
        completer=Words(),
        complete_style=CompleteStyle.READLINE_LIKE,
        complete_while_typing=False,
        reserve_space_for_menu=0,
        key_bindings=keys,
        prompt_continuation=MORE,
        enable_suspend=True,
    )


@contextmanager
def _without_echo(stream: Stream, *, lines: bool) -> Iterator[None]:
    """A terminal that prints no keys; without `lines` it does not wait for Enter either."""
    try:
        import termios
    except ImportError:  # Windows prints no keys by itself
        yield
        return
    if not stream.isatty():
        yield
        return
    before, quiet = termios.tcgetattr(stream), termios.tcgetattr(stream)
    quiet[3] &= ~termios.ECHO if lines else ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(stream, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(stream, termios.TCSADRAIN, before)


def _private(file: Path) -> Path:
    """A file that only its owner may read."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
    return file
