"""Calls found by their words, model, status, run and time, newest first: a line for each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from mindset.calls.call import NewNode
from mindset.calls.log import CallLog
from mindset.calls.schema import CALLS, NODES, RUNS, TEXT_INDEX, TEXTS
from mindset.calls.words import words_of
from mindset.database.engine import reading
from mindset.errors import UsageError

__all__ = ["Line", "Wanted", "conditions", "listed"]

SHOWN = 300
"""Letters of a prompt and of an answer in a line."""
STATUSES = ("running", "ok", "failed", "cancelled", "refused")


@dataclass(frozen=True)
class Wanted:
    """Which calls."""

    text: str | None = None
    """What the search box takes: words that all occur in the prompt or the answer, "a phrase", -without, begin*."""
    model: str | None = None
    """MODEL as it was given."""
    status: str | None = None
    run: str | None = None
    """Id or name; of a name, every run that has it."""
    since: str | None = None
    """Begun at this time or later; ISO 8601 in UTC."""
    count: int | None = 20
    """How many at most, the newest ones; None: all."""

    def __post_init__(self) -> None:
        """Refuse what no call can be."""
        if self.status is not None and self.status not in STATUSES:
            raise UsageError(f"a call is never {self.status!r}; it is one of {', '.join(STATUSES)}")
        if self.count is not None and self.count < 1:
            raise UsageError(f"{self.count} calls cannot be listed: give 1 or more")


@dataclass(frozen=True)
class Line:
    """A call in a line."""

    id: int
    began: str
    run: str
    """Id of its run."""
    run_name: str
    status: str
    verb: str
    model: str
    client: str
    prompt: str
    """The beginning of what was new in what it asked."""
    answer: str
    """The beginning of what it got."""
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float | None
    first_token: float | None
    cost: float | None
    """US dollars; None where nobody knows."""
    error: str | None
    parent: int | None
    replayed_from: int | None


def listed(log: CallLog, wanted: Wanted) -> list[Line]:
    """The newest calls that are wanted, newest first."""
    with reading(log.engine) as connection:
        rows = connection.execute(_question(connection, wanted)).all()
        return [_line(connection, row) for row in rows]


def conditions(wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    """What is wanted but for its words, over `CALLS`."""
    found: list[sa.ColumnElement[bool]] = []
    if wanted.model is not None:
        found.append(CALLS.c.model == wanted.model)
    if wanted.status is not None:
        found.append(CALLS.c.status == wanted.status)
        if wanted.status != "ok":
            found.append(sa.literal_column("calls.status <> 'ok'", sa.Boolean))  # what the index holds
    if wanted.run is not None:
        named = sa.select(RUNS.c.id).where(sa.or_(RUNS.c.id == wanted.run, RUNS.c.name == wanted.run))
        found.append(CALLS.c.run.in_(named))
    if wanted.since is not None:
        found.append(CALLS.c.began >= wanted.since)
    return found


def _question(connection: sa.Connection, wanted: Wanted) -> sa.Select[Any]:
    rows: sa.FromClause = CALLS.join(RUNS, RUNS.c.id == CALLS.c.run).outerjoin(
        TEXTS, TEXTS.c.id == CALLS.c.id
    )
    order: sa.ColumnElement[int] = CALLS.c.id
    which: list[sa.ColumnElement[bool] | sa.TextClause] = [*conditions(wanted)]
    if wanted.text is not None:
        rows, order, found = TEXT_INDEX.found_in(connection, wanted.text, rows, order)
        which += [found, *_bounds(connection, wanted, order)]
    words = [
        sa.func.substr(column, 1, SHOWN + 1).label(column.name) for column in (TEXTS.c.prompt, TEXTS.c.answer)
    ]
    question = sa.select(CALLS, RUNS.c.name.label("run_name"), *words).select_from(rows)
    return question.where(*which).order_by(order.desc()).limit(wanted.count)


def _bounds(
    connection: sa.Connection, wanted: Wanted, key: sa.ColumnElement[int]
) -> Iterator[sa.ColumnElement[bool]]:
    """Where in the log there are such calls at all, so that a search for common words does not look elsewhere."""
    if wanted.model is None and wanted.run is None and wanted.status in (None, "ok"):
        return
    indexed = conditions(replace(wanted, since=None, status=None if wanted.status == "ok" else wanted.status))
    ends = [
        sa.select(end(CALLS.c.id)).where(*indexed).scalar_subquery() for end in (sa.func.min, sa.func.max)
    ]
    first, last = connection.execute(sa.select(*ends)).one()
    yield key.between(first or 0, last or 0)


def _line(connection: sa.Connection, row: Any) -> Line:
    same = {
        name: getattr(row, name) for name in Line.__dataclass_fields__ if name not in ("prompt", "answer")
    }
    prompt = row.prompt if row.prompt is not None else _tip_words(connection, row.asked)
    return Line(prompt=_cut(prompt), answer=_cut(row.answer or ""), **same)


def _tip_words(connection: sa.Connection, asked: str | None) -> str:
    """What a call that runs asked last; its words can be searched when it is over."""
    content = connection.execute(sa.select(NODES.c.content).where(NODES.c.hash == asked)).scalar()
    return "" if content is None else words_of([NewNode("message", json.loads(content))])


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
