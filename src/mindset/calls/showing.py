"""One call with everything that is known of it, as plain JSON: for people, for export, whatever was deleted of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from mindset.calls.call import Piece
from mindset.calls.canonical import Json
from mindset.calls.listing import Wanted, listed
from mindset.calls.log import CallLog
from mindset.calls.recorded import pieces_of
from mindset.calls.schema import CALLS, PROCESSES, RUNS
from mindset.calls.tree import Node, chain
from mindset.database.engine import reading
from mindset.errors import MissingError

__all__ = ["exported", "shown", "speed"]

_AS_THEY_ARE = (
    "id", "parent", "began", "status", "verb", "model", "client", "key", "seconds", "first_token", "local_seconds",
    "cost", "finish_reason", "error", "answered_by", "content_hash", "replayed_from", "endpoint",
)  # fmt: skip
_JSON = ("options", "result", "price", "retries")
_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")


def shown(log: CallLog, call: int, *, pieces: bool = True) -> dict[str, Json]:
    """A call by its id; `pieces`: with its answer as it came."""
    with reading(log.engine) as connection:
        return _told(connection, call, pieces)


def exported(log: CallLog, wanted: Wanted, *, pieces: bool = False) -> Iterator[dict[str, Json]]:
    """Every call that is wanted in full, newest first."""
    for line in listed(log, wanted):
        yield shown(log, line.id, pieces=pieces)


def speed(pieces: Sequence[Piece]) -> float | None:
    """Pieces of text a second, from the first one to the last; None for fewer than two."""
    spoken = [piece.at for piece in pieces if piece.event.get("text")]
    return (
        (len(spoken) - 1) / (spoken[-1] - spoken[0]) if len(spoken) > 1 and spoken[-1] > spoken[0] else None
    )


def _told(connection: sa.Connection, call: int, with_pieces: bool) -> dict[str, Json]:
    row = connection.execute(sa.select(CALLS).where(CALLS.c.id == call)).one_or_none()
    if row is None:
        raise MissingError(f"there is no call {call} in the log")
    run = connection.execute(sa.select(RUNS).where(RUNS.c.id == row.run)).mappings().one()
    process = connection.execute(sa.select(PROCESSES).where(PROCESSES.c.id == row.process)).one()
    children = sa.select(CALLS.c.id).where(CALLS.c.parent == call).order_by(CALLS.c.id)
    said = pieces_of(connection, call)
    told: dict[str, Json] = {name: getattr(row, name) for name in _AS_THEY_ARE}
    told |= {name: _read(getattr(row, name)) for name in _JSON}
    told |= {
        "run": {name: run[name] for name in ("id", "name", "began", "replays")},
        "process": {"host": process.host, "pid": process.pid, "command": _read(process.command)},
        "usage": {name: getattr(row, name) for name in _TOKENS},
        "asked": [_node(node) for node in chain(connection, row.asked)],
        "answer": [_node(node) for node in chain(connection, row.answered, row.asked)],
        "calls_below": list(connection.execute(children).scalars()),
        "pieces_a_second": speed(said),
    }
    if with_pieces:
        told["pieces"] = [[piece.at, dict(piece.event)] for piece in said]
    return told


def _node(node: Node) -> dict[str, Json]:
    told: dict[str, Any] = {"hash": node.hash, "kind": node.kind, "content": node.content}
    return told if node.deleted is None else told | {"deleted": node.deleted}


def _read(text: str | None) -> Json:
    return None if text is None else json.loads(text)
