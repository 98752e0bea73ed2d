"""What the commands of a chat do: each one or two library calls, then what there is to print.

Knows dialogs; how commands are written is told in `slash`. Invariant: a method for every command of the table (tested).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mindset.calls.found import search
from mindset.cli import spending
from mindset.cli.chat import slash, why
from mindset.cli.chat.drawing import HASH_LETTERS, draw, one_line
from mindset.cli.chat.saving import write
from mindset.errors import MissingError, UsageError

if TYPE_CHECKING:
    from mindset.cli.chat.session import Session

__all__ = ["Commands"]

NONE = "none"
"""What takes the instructions away."""


class Commands:
    """The commands of one session, each called by its name with what stands behind it."""

    def __init__(self, session: Session) -> None:
        self._session, self._screen, self._dialog = session, session.screen, session.dialog

    def back(self, argument: str) -> None:
        words = self._dialog.back(_number(argument))
        self._screen.note(f"[before: {one_line(words, self._screen.width - 20)}]")

    def edit(self, argument: str) -> None:
        self._session.draft = self._dialog.back(_number(argument))

    def retry(self, _: str) -> None:
        self._session.ask(self._dialog.retry())

    def fork(self, argument: str) -> None:
        branch = self._dialog.fork(argument or None)
        self._screen.note(f"[on the new branch {branch.name}]")

    def branches(self, _: str) -> None:
        here = self._dialog.branch
        rows = (
            ("*" if here is not None and branch.id == here.id else "", branch.name, (branch.tip or "")[:HASH_LETTERS])
            + (branch.model, branch.moved[:19].replace("T", " "))
            for branch in self._dialog.branches()
        )
        self._table_or_nothing({" ": "left", "branch": "left", "hash": "left", "model": "left", "UTC": "left"}, rows)

    def switch(self, argument: str) -> None:
        branch = self._dialog.switch(argument)
        said = self._dialog.exchanges
        last = f", after: {one_line(said[-1].question, self._screen.width - 40)}" if said else ""
        self._screen.note(f"[on branch {branch.name}{last}]")

    def tree(self, _: str) -> None:
        rows = draw(self._dialog.tree(), self._dialog.tip, self._screen.width - 30)
        columns = {" ": "left", "question": "left", "answer": "left", "hash": "left", "branch": "left"}
        self._table_or_nothing(columns, (("*" if r.here else "", r.text, r.answer, r.hash, r.names) for r in rows))

    def model(self, argument: str) -> None:
        if argument:
            self._session.held.use(argument)
        self._screen.say(self._dialog.client.model)

    def system(self, argument: str) -> None:
        if argument:
            self._dialog.instruct(None if argument == NONE else argument)
        self._screen.say(self._dialog.system or "no instructions")

    def tools(self, _: str) -> None:
        trusted = self._dialog.trusted
        rows = (
            (name, one_line(tool.spec.description, 60), "" if trusted is None or name in trusted else "asks first")
            for name, tool in self._dialog.tools.items()
        )
        self._table_or_nothing(
            {"tool": "left", "what it does": "left", " ": "left"}, rows, "no tools; mindset chat -T gives some"
        )

    def usage(self, _: str) -> None:
        columns = {"model": "left", "answers": "right", "read": "right", "cached": "right", "written": "right"}
        columns |= {"time": "right", "money": "right"}
        rows = (
            (s.model, s.calls, s.usage.prompt_tokens, s.usage.cached_tokens, s.usage.completion_tokens)
            + (spending.seconds(s.seconds), "-" if s.free else spending.money(s.money))
            for s in spending.by_model(self._session.spent)
        )
        self._table_or_nothing(columns, rows)

    def why(self, argument: str) -> None:
        tokens = self._dialog.last.tokens if self._dialog.last else ()
        if not any(token.logprob is not None for token in tokens):
            raise MissingError(
                "the last answer came without probabilities: local models give them, others with -o logprobs 5"
            )
        places = why.chosen(tokens, argument) if argument else why.least_sure(tokens)
        if not argument:
            self._screen.note(f"[the {len(places)} tokens it was least sure of, of {len(tokens)}]")
        columns = {"n": "right", "token": "left", "probability": "right", "instead": "left"}
        self._screen.table(columns, (why.told(tokens, place) for place in places))
        if argument:
            for place in places:
                for line in why.slots(tokens[place]):
                    self._screen.say(f"  {why.quoted(tokens[place].text)}  {line}")

    def search(self, argument: str) -> None:
        rows = (
            (found.call, found.began[:16].replace("T", " "), found.model, " ".join(found.excerpt(argument).split()))
            for found in search(self._dialog.log, argument)
        )
        columns = {"call": "right", "UTC": "left", "model": "left", "said": "left"}
        self._table_or_nothing(columns, rows, "nothing found")

    def save(self, argument: str) -> None:
        path = Path(argument).expanduser()
        write(path, self._dialog.system, self._dialog.exchanges, self._dialog.client.model)
        self._screen.note(f"[{len(self._dialog.exchanges)} exchanges in {path}]")

    def help(self, _: str) -> None:
        self._screen.table({" ": "left", "  ": "left"}, ((c.usage, c.help) for c in slash.COMMANDS.values()))
        self._screen.note(slash.HINTS)

    def _table_or_nothing(self, columns: dict[str, str], rows: Iterable[tuple[object, ...]], nothing: str = "nothing yet") -> None:
        found = list(rows)
        if found:
            self._screen.table(columns, found)
        else:
            self._screen.say(nothing)


def _number(argument: str) -> int:
    if argument and not argument.isdecimal():
        raise UsageError(f"{argument!r} is no number of questions; give 1 or more")
    return int(argument or 1)
