"""The commands of a chat: a line that begins with a slash.

Knows how they are written, not what they do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from mindset.errors import UsageError

__all__ = ["COMMANDS", "Slash", "begun", "parse"]


@dataclass(frozen=True)
class Slash:
    """One command."""

    name: str
    arguments: str
    """As /help shows them; in brackets what may be left out; empty where it takes none."""
    help: str

    @property
    def usage(self) -> str:
        """How it is typed."""
        return f"/{self.name} {self.arguments}".rstrip()


COMMANDS = {
    command.name: command
    for command in (
        Slash("back", "[n]", "go to before the last question, or the last n"),
        Slash("edit", "[n]", "ask the last question, or the nth last, in other words"),
        Slash("retry", "", "ask the last question again for another answer"),
        Slash("fork", "[name]", "begin a branch here"),
        Slash("branches", "", "list the branches of this conversation"),
        Slash("switch", "NAME|HASH", "go to a branch, or behind an exchange"),
        Slash("chats", "", "list the latest conversations, which --cid goes on with"),
        Slash("tree", "", "draw the branches; * is where you are"),
        Slash("model", "[MODEL]", "say which model answers, or take another one"),
        Slash("option", "[KEY VALUE|none]", "say the options, or set one: temperature 0.8"),
        Slash("system", "[TEXT|none]", "say the instructions, or give others"),
        Slash("tools", "", "list what the model may call"),
        Slash("usage", "", "tokens, time and money of this session"),
        Slash("why", "[word|n]", "how sure the model was, and the slots behind a word"),
        Slash("search", "TEXT", "look for words in all that was ever said"),
        Slash("save", "FILE", "write this branch to FILE: .md, .txt or .json"),
        Slash("help", "", "list these commands"),
        Slash("exit", "", "leave; Ctrl-D does too"),
    )
}
HINTS = (
    "Alt-Enter breaks the line; !multi begins a text of several lines, !end ends it; Ctrl-C stops an answer and keeps "
    "what has come. A text that begins with a slash is sent if a blank stands before it."
)


def parse(line: str) -> tuple[Slash, str] | None:
    """The command that a line means, with its argument; None for a text to be said."""
    if not line.startswith("/"):
        return None
    name, _, argument = line[1:].partition(" ")
    argument = argument.strip()
    command = COMMANDS.get(name)
    if command is None:
        near = get_close_matches(name, COMMANDS, 1)
        raise UsageError(
            f"there is no /{name}{f', did you mean /{near[0]}?' if near else ''}; /help lists all"
        )
    if not command.arguments and argument:
        raise UsageError(f"/{name} takes nothing behind it, not {argument!r}")
    if command.arguments and not command.arguments.startswith("[") and not argument:
        raise UsageError(f"write {command.usage}")
    return command, argument


def begun(line: str) -> Iterable[str]:
    """Commands that a line may become."""
    return (f"/{name}" for name in COMMANDS if f"/{name}".startswith(line)) if line.startswith("/") else ()
