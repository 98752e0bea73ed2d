"""Whether the log is whole: every hash derived again, every reference followed, every answer's pieces read.

Writes nothing. Deleted nodes are named, and are no problem: their hashes stand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mindset.calls.call import Asked, NewNode
from mindset.calls.log import CallLog
from mindset.calls.pieces import unpack
from mindset.calls.schema import CALLS, NODES, PIECES
from mindset.calls.tree import chain
from mindset.database.engine import dialect_of, reading
from mindset.errors import FormatError

__all__ = ["Checked", "check"]

BATCH = 500
"""Calls at a time."""


@dataclass(frozen=True)
class Checked:
    """What was found."""

    calls: int
    nodes: int
    tombstones: tuple[str, ...]
    """Hashes of nodes whose content was deleted."""
    problems: tuple[str, ...]
    """A sentence for each thing that is not what it should be."""


def check(log: CallLog) -> Checked:
    """Look at everything."""
    tree = log.tree.verify()
    problems, calls = list(tree.problems), 0
    with reading(log.engine) as connection:
        problems += _damage(connection)
        for row in _rows(connection):
            calls += 1
            problems += [f"call {row.id}: {wrong}" for wrong in _wrong(connection, row)]
        problems += _bad_pieces(connection)
    return Checked(calls, tree.nodes, tree.tombstones, tuple(problems))


def _damage(connection: sa.Connection) -> list[str]:
    """What SQLite itself finds wrong with its file; a server looks after its own."""
    if dialect_of(connection) != "sqlite":
        return []
    said = connection.exec_driver_sql("PRAGMA quick_check(10)").scalars().all()
    return [] if said == ["ok"] else [f"the database: {line}" for line in said]


def _rows(connection: sa.Connection) -> Iterator[Any]:
    last = 0
    while rows := connection.execute(
        sa.select(CALLS).where(CALLS.c.id > last).order_by(CALLS.c.id).limit(BATCH)
    ).all():
        yield from rows
        last = rows[-1].id


def _wrong(connection: sa.Connection, row: Any) -> Iterator[str]:
    for name in ("asked", "answered"):
        if (tip := getattr(row, name)) is not None and not _is_there(connection, tip):
            yield f"{name} {tip}, which is not in the tree"
            return
    nodes = chain(connection, row.asked)
    answer = chain(connection, row.answered, row.asked)
    if answer and answer[0].parent != row.asked:
        yield "its answer does not hang below what it asked"
    if all(node.content is not None for node in nodes):
        said = tuple(NewNode(node.kind, node.content or {}) for node in nodes)
        try:
            key = Asked(row.verb, row.model, row.client, said, json.loads(row.options)).key
        except ValueError as error:
            yield f"its options are no JSON ({error})"
        else:
            if key != row.key:
                yield "what it asked is not what its key was made of"


def _is_there(connection: sa.Connection, node: str) -> bool:
    return connection.execute(sa.select(NODES.c.hash).where(NODES.c.hash == node)).scalar() is not None


def _bad_pieces(connection: sa.Connection) -> Iterator[str]:
    rows = connection.execution_options(yield_per=BATCH).execute(sa.select(PIECES))
    for row in rows:
        try:
            unpack(bytes(row.events))
        except FormatError as error:
            yield f"call {row.call}: {error}"
