"""What the commands of a chat do: each one or two library calls, then what there is to print.

Knows dialogs; how commands are written is told in `slash`. Invariant: a method for every command of the table (tested).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mindset.calls.listing import Wanted, listed
from mindset.cli import spending
from mindset.cli.chat import slash, why
from mindset.cli.chat.drawing import HASH_LETTERS, draw, one_line
from mindset.cli.chat.saving import write
from mindset.cli.spending import Spent
from mindset.errors import MissingError, UsageError
from mindset.llm.conversations import remembered

if TYPE_CHECKING:
    from mindset.cli.chat.session import Session

__all__ = ["Commands"]

NONE = "none"
"""What takes instructions, or an option, away."""


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
        before = self._dialog.tip
        self._session.ask(self._dialog.retry())
        if self._dialog.tip == before and self._dialog.waiting is None:
            self._screen.note("[the same answer as before; /option temperature 0.8 lets it vary]")

    def fork(self, argument: str) -> None:
        branch = self._dialog.fork(argument or None)
        self._screen.note(f"[on the new branch {branch.name}]")

    def branches(self, _: str) -> None:
        here = self._dialog.branch.id if self._dialog.branch is not None else None
        rows = (
            ("*" if b.id == here else "", b.name, (b.tip or "")[:HASH_LETTERS], b.model, _moment(b.moved))
            for b in self._dialog.branches()
        )
        self._table_or_nothing(("", "branch", "hash", "model", "UTC"), rows)

    def chats(self, _: str) -> None:
        here = self._dialog.branch.conversation if self._dialog.branch is not None else None
        rows = (
            (
                "*" if c.id == here else "",
                c.id,
                _moment(c.moved),
                c.exchanges,
                one_line(c.question, 40),
                c.model,
            )
            for c in remembered(self._session.held.log)
        )
        self._table_or_nothing(("", "cid>", "UTC", "exchanges>", "began with", "model"), rows)

    def switch(self, argument: str) -> None:
        branch = self._dialog.switch(argument)
        said = self._dialog.exchanges
        last = f", after: {one_line(said[-1].question, self._screen.width - 40)}" if said else ""
        self._screen.note(f"[on branch {branch.name}{last}]")

    def tree(self, _: str) -> None:
        drawn = draw(self._dialog.tree(), self._dialog.tip, self._screen.width - 30)
        rows = (("*" if row.here else "", row.text, row.answer, row.hash, row.names) for row in drawn)
        self._table_or_nothing(("", "question", "answer", "hash", "branch"), rows)

    def model(self, argument: str) -> None:
        if argument:
            self._session.held.use(argument)
        self._screen.say(self._dialog.client.model)

    def option(self, argument: str) -> None:
        key, _, value = argument.partition(" ")
        if key and not value:
            raise UsageError(f"write /option {key} VALUE, or /option {key} {NONE}")
        if key:
            self._session.held.set_option(key, None if value.strip() == NONE else value.strip())
        given = self._dialog.options.given()
        self._screen.say(", ".join(f"{name} {told}" for name, told in given.items()) or "no options")

    def system(self, argument: str) -> None:
        if argument:
            self._dialog.instruct(None if argument == NONE else argument)
        self._screen.say(self._dialog.system or "no instructions")

    def tools(self, _: str) -> None:
        trusted, tools = self._dialog.trusted, self._dialog.tools
        asks = {name: trusted is not None and name not in trusted for name in tools}
        rows = ((n, one_line(t.spec.description, 60), "asks first" * asks[n]) for n, t in tools.items())
        self._table_or_nothing(("tool", "what it does", ""), rows, "no tools; mindset chat -T gives some")

    def usage(self, _: str) -> None:
        columns = ("model", "answers>", "read>", "cached>", "written>", "time>", "money>")
        rows = (_sums(spent) for spent in spending.by_model(self._session.spent))
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
        columns = ("n>", "token", "probability>", "instead")
        self._screen.table(columns, (why.told(tokens, place) for place in places))
        if argument:
            for place in places:
                for line in why.slots(tokens[place]):
                    self._screen.say(f"  {why.quoted(tokens[place].text)}  {line}")
            if any(tokens[place].reads for place in places):
                self._screen.note("[mindset memory show DIR SLOT tells what a slot holds]")

    def search(self, argument: str) -> None:
        half = max((self._screen.width - 30) // 2, 20)
        rows = (
            (line.id, _moment(line.began), one_line(line.prompt, half), one_line(line.answer, half))
            for line in listed(self._session.held.log, Wanted(text=argument))
        )
        self._table_or_nothing(("call>", "UTC", "asked", "answered"), rows, "nothing found")

    def save(self, argument: str) -> None:
        path = Path(argument).expanduser()
        write(path, self._dialog.system, self._dialog.exchanges, self._dialog.client.model)
        self._screen.note(f"[{len(self._dialog.exchanges)} exchanges in {path}]")

    def help(self, _: str) -> None:
        self._screen.table(("", ""), ((c.usage, c.help) for c in slash.COMMANDS.values()))
        self._screen.note(slash.HINTS)

    def _table_or_nothing(
        self, columns: Sequence[str], rows: Iterable[Sequence[object]], nothing: str = "nothing yet"
    ) -> None:
        found = list(rows)
        if found:
            self._screen.table(columns, found)
        else:
            self._screen.say(nothing)


def _number(argument: str) -> int:
    if argument and not argument.isdecimal():
        raise UsageError(f"{argument!r} is no number of questions; give 1 or more")
    return int(argument or 1)


def _sums(spent: Spent) -> tuple[object, ...]:
    usage = spent.usage
    counts = (spent.calls, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
    return (spent.model, *counts, spending.seconds(spent.seconds), spending.money(spent.money))


def _moment(iso: str) -> str:
    """A time of the log, to the minute."""
    return iso[:16].replace("T", " ")
