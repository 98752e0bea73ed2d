"""Calls that were recorded, read back whole: what was asked, the pieces of the answer, how it ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mindset.calls.call import Asked, NewNode, Outcome, Piece, Retry, Usage
from mindset.calls.difference import likeness
from mindset.calls.pieces import unpack
from mindset.calls.schema import CALLS, PIECES, RUNS
from mindset.calls.tree import Node, chain
from mindset.errors import MissingError, NotRecordedError

__all__ = ["Recorded", "find_run", "nearest", "nth", "pieces_of", "recorded"]

COMPARED = 500
"""Calls of a run at most that are looked at for the most alike."""


@dataclass(frozen=True)
class Recorded:
    """A call that is over."""

    call: int
    run: str
    """Id of its run."""
    asked: Asked
    pieces: tuple[Piece, ...]
    outcome: Outcome


def find_run(connection: sa.Connection, run: str, besides: str | None = None) -> str:
    """The id of a run, given as it is or by the name of the latest; one that was no replay, if there is such.

    `besides`: id of a run that the name does not mean.
    """
    wanted = (
        sa.select(RUNS.c.id)
        .where(sa.or_(RUNS.c.id == run, sa.and_(RUNS.c.name == run, RUNS.c.id != (besides or ""))))
        .order_by(
            sa.case((RUNS.c.id == run, 0), else_=1),
            sa.case((RUNS.c.replays.is_(None), 0), else_=1),
            RUNS.c.began.desc(),
            RUNS.c.id.desc(),
        )
    )
    found = connection.execute(wanted.limit(1)).scalar()
    if found is None:
        raise MissingError(f"there is no run {run!r} in the log; `mindset logs cost --by run` lists them")
    return str(found)


def nth(connection: sa.Connection, run: str, key: str, nth: int) -> Recorded | None:
    """The `nth` call, from 0, with this key in a run given by its id."""
    wanted = (
        sa.select(CALLS.c.id)
        .where(CALLS.c.run == run, CALLS.c.key == key, CALLS.c.status != "running")
        .order_by(CALLS.c.id)
        .offset(nth)
        .limit(1)
    )
    call = connection.execute(wanted).scalar()
    return None if call is None else recorded(connection, int(call))


def recorded(connection: sa.Connection, call: int) -> Recorded:
    """A call by its id, as it can be made again."""
    row = connection.execute(sa.select(CALLS).where(CALLS.c.id == call)).one_or_none()
    if row is None:
        raise MissingError(f"there is no call {call} in the log")
    question = chain(connection, row.asked)
    answer = chain(connection, row.answered, row.asked)
    if any(node.content is None for node in [*question, *answer]):
        raise NotRecordedError(
            f"call {call} cannot be read whole: a part of its dialog was deleted from the log"
        )
    options = json.loads(row.options)
    asked = Asked(row.verb, row.model, row.client, _nodes(question), options, row.parent)
    return Recorded(call, row.run, asked, tuple(pieces_of(connection, call)), _outcome(row, _nodes(answer)))


def pieces_of(connection: sa.Connection, call: int) -> list[Piece]:
    """The pieces of a call, as far as they are stored."""
    wanted = sa.select(PIECES.c.events).where(PIECES.c.call == call).order_by(PIECES.c.number)
    return [piece for events in connection.execute(wanted).scalars() for piece in unpack(bytes(events))]


def nearest(connection: sa.Connection, run: str, asked: Asked) -> Recorded | None:
    """The call of a run, given by its id, that asks what is most like `asked`; None where it has none to compare."""
    wanted = (
        sa.select(CALLS.c.id)
        .where(CALLS.c.run == run, CALLS.c.status != "running")
        .order_by(sa.case((CALLS.c.verb == asked.verb, 0), else_=1), CALLS.c.id)
        .limit(COMPARED)
    )
    best, found = -1.0, None
    for call in connection.execute(wanted).scalars().all():
        try:
            other = recorded(connection, int(call))
        except NotRecordedError:
            continue
        alike = likeness(other.asked, asked)
        if alike > best:
            best, found = alike, other
    return found


def _nodes(nodes: Sequence[Node]) -> tuple[NewNode, ...]:
    return tuple(NewNode(node.kind, node.content or {}) for node in nodes)


def _outcome(row: Any, answer: tuple[NewNode, ...]) -> Outcome:
    return Outcome(
        status=row.status,
        answer=answer,
        result=None if row.result is None else json.loads(row.result),
        usage=Usage(
            row.prompt_tokens or 0,
            row.completion_tokens or 0,
            row.cached_tokens or 0,
            row.reasoning_tokens or 0,
        ),
        finish_reason=row.finish_reason,
        error=row.error,
        answered_by=row.answered_by,
        content_hash=row.content_hash,
        seconds=row.seconds or 0.0,
        first_token=row.first_token,
        local_seconds=row.local_seconds or 0.0,
        retries=tuple(Retry(**one) for one in json.loads(row.retries or "[]")),
        replayed_from=row.replayed_from,
        endpoint=row.endpoint,
    )
