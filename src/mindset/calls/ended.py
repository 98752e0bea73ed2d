"""Calls whose process ended while they ran: nobody is left to say how they went, so the log does."""

from __future__ import annotations

import sqlalchemy as sa

from mindset.calls import rows
from mindset.calls.call import NewNode, Outcome, Piece
from mindset.calls.pieces import partial_answer, unpack
from mindset.calls.process import Process, is_alive
from mindset.calls.schema import CALLS, PIECES, PROCESSES
from mindset.calls.tree import chain
from mindset.calls.words import new_words
from mindset.database.engine import reading, writing
from mindset.errors import FormatError

__all__ = ["LOST", "fail_the_dead"]

LOST = "the process ended"
"""The error of such a call."""
_RUNS = sa.and_(
    CALLS.c.status == "running", sa.text("calls.status <> 'ok'")
)  # the index holds those that are not ok


def fail_the_dead(engine: sa.Engine) -> int:
    """Make calls whose process is no more `failed`, with what was noted as their answer; returns how many."""
    dead = _dead_processes(engine)
    if not dead:
        return 0
    with writing(engine) as connection:
        wanted = sa.select(CALLS.c.id, CALLS.c.asked).where(_RUNS, CALLS.c.process.in_(dead))
        calls = connection.execute(wanted).all()
        for call, asked in calls:
            _fail(connection, int(call), asked)
    return len(calls)


def _dead_processes(engine: sa.Engine) -> list[int]:
    busy = sa.select(CALLS.c.process).where(_RUNS)
    with reading(engine) as connection:
        found = connection.execute(sa.select(PROCESSES).where(PROCESSES.c.id.in_(busy))).all()
    return [
        int(row.id) for row in found if is_alive(Process(row.host, row.boot, row.pid, row.began)) is False
    ]


def _fail(connection: sa.Connection, call: int, asked: str | None) -> None:
    pieces = _readable(connection, call)
    spoken = [piece.at for piece in pieces if piece.event.get("text")]
    outcome = Outcome(
        "failed",
        answer=partial_answer(pieces),
        finish_reason="error",
        error=LOST,
        seconds=pieces[-1].at if pieces else 0.0,
        first_token=spoken[0] if spoken else None,
    )
    prompt = new_words([NewNode(node.kind, node.content or {}) for node in chain(connection, asked)])
    rows.end(connection, call, asked, prompt, outcome, None)


def _readable(connection: sa.Connection, call: int) -> list[Piece]:
    """Its pieces but for damaged rows, which `verify` names: they must not keep the log shut."""
    found: list[Piece] = []
    for row in connection.execute(
        sa.select(PIECES.c.events).where(PIECES.c.call == call).order_by(PIECES.c.number)
    ):
        try:
            found += unpack(bytes(row.events))
        except FormatError:
            continue
    return found
