"""Old calls are let go, with their pieces, and with the nodes of the tree that nothing needs any more.

A node is needed by a node below it and by every row anywhere that refers to it: what another call, a conversation or
an agent holds on to stays, and all above it. A call that runs stays. Work goes in batches, each a transaction that
leaves a whole log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mindset.calls.log import CallLog
from mindset.calls.place import file_of
from mindset.calls.process import Process, is_alive
from mindset.calls.schema import CALLS, NODES, PIECES, PROCESSES, RUNS, TEXTS
from mindset.database.engine import reading, writing
from mindset.database.failures import naming_failures
from mindset.errors import ReadOnlyError, UsageError

__all__ = ["Pruned", "compact", "prune"]

BATCH = 500
"""Calls in a transaction."""


@dataclass(frozen=True)
class Pruned:
    """What was let go."""

    calls: int
    nodes: int
    runs: int


def prune(log: CallLog, *, before: str | None = None, keep: int | None = None, dry: bool = False) -> Pruned:
    """Let go of calls that began before a time (ISO 8601 in UTC), or of all but the last `keep`, or of both.

    `dry`: only count the calls.
    """
    if before is None and keep is None:
        raise UsageError("say what to keep: calls since a time, or the last N")
    if keep is not None and keep < 0:
        raise UsageError(f"{keep} calls cannot be kept: give 0 or more")
    if log.read_only:
        raise ReadOnlyError("the log was opened for reading only")
    which = _old(log.engine, before, keep)
    if dry:
        with reading(log.engine) as connection:
            count = sa.select(sa.func.count()).select_from(CALLS).where(which)
            return Pruned(int(connection.execute(count).scalar_one()), 0, 0)
    calls = nodes = 0
    while True:
        with writing(log.engine) as connection:
            gone = _prune_some(connection, which)
            if gone is None:
                return Pruned(calls, nodes, _prune_runs(connection))
        calls, nodes = calls + gone[0], nodes + gone[1]


def compact(log: CallLog) -> int | None:
    """Give an SQLite file's free room back, and overwrite what was deleted; returns bytes saved, None elsewhere."""
    path = file_of(log.engine.url)
    if path is None:
        return None
    size = _size(path)
    with naming_failures(log.engine.url):
        connection = log.engine.raw_connection()
        try:
            for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                connection.cursor().execute(statement).fetchall()
        except sqlite3.Error as error:
            raise sa.exc.OperationalError("vacuum", None, error) from error
        finally:
            connection.close()
    return size - _size(path)


def _size(path: Path) -> int:
    """With what SQLite has not brought into the file yet."""
    beside = path.with_name(f"{path.name}-wal")
    return path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)


def _old(engine: sa.Engine, before: str | None, keep: int | None) -> sa.ColumnElement[bool]:
    which = [CALLS.c.status != "running"]
    if before is not None:
        which.append(CALLS.c.began < before)
    if keep is not None:
        last = sa.select(CALLS.c.id).order_by(CALLS.c.id.desc()).offset(max(keep - 1, 0)).limit(1)
        with reading(engine) as connection:
            first_kept = connection.execute(last).scalar()
        which.append(CALLS.c.id < (first_kept or 0) if keep else sa.true())
    return sa.and_(*which)


def _prune_some(connection: sa.Connection, which: sa.ColumnElement[bool]) -> tuple[int, int] | None:
    wanted = sa.select(CALLS.c.id, CALLS.c.asked, CALLS.c.answered).where(which).order_by(CALLS.c.id)
    rows = connection.execute(wanted.limit(BATCH)).all()
    if not rows:
        return None
    ids = [int(row.id) for row in rows]
    for table, column in ((PIECES, PIECES.c.call), (TEXTS, TEXTS.c.id), (CALLS, CALLS.c.id)):
        connection.execute(sa.delete(table).where(column.in_(ids)))
    tips = {tip for row in rows for tip in (row.asked, row.answered) if tip is not None}
    return len(ids), _prune_nodes(connection, tips)


def _prune_nodes(connection: sa.Connection, tips: set[str]) -> int:
    """Take off what nothing needs, from the tips upwards."""
    free = [~sa.exists().where(column == NODES.c.hash) for column in _references(connection)]
    count = 0
    while tips:
        above: set[str] = set()
        for part in _parts(sorted(tips)):
            gone = sa.delete(NODES).where(NODES.c.hash.in_(part), *free).returning(NODES.c.parent)
            parents = connection.execute(gone).scalars().all()
            count += len(parents)
            above.update(parent for parent in parents if parent is not None)
        tips = above
    return count


def _references(connection: sa.Connection) -> list[sa.ColumnElement[Any]]:
    """Every column of any table here that refers to a node."""
    looking = sa.inspect(connection)
    return [
        sa.table(table, sa.column(column)).alias(f"{table}_{column}").c[column]
        for table in looking.get_table_names()
        for key in looking.get_foreign_keys(table)
        if key["referred_table"] == "nodes"
        for column in key["constrained_columns"]
    ]


def _prune_runs(connection: sa.Connection) -> int:
    """Runs and processes without calls, unless their process lives: it may be about to make one."""
    empty = ~sa.exists().where(CALLS.c.run == RUNS.c.id)
    wanted = sa.select(RUNS.c.id, PROCESSES).join(PROCESSES, PROCESSES.c.id == RUNS.c.process).where(empty)
    rows = connection.execute(wanted).all()
    dead = [row[0] for row in rows if not is_alive(Process(row.host, row.boot, row.pid, row.began))]
    for part in _parts(dead):
        connection.execute(sa.delete(RUNS).where(RUNS.c.id.in_(part)))
    idle = [~sa.exists().where(table.c.process == PROCESSES.c.id) for table in (RUNS, CALLS)]
    gone = [
        row.id
        for row in connection.execute(sa.select(PROCESSES).where(*idle)).all()
        if not is_alive(Process(row.host, row.boot, row.pid, row.began))
    ]
    for part in _parts(gone):
        connection.execute(sa.delete(PROCESSES).where(PROCESSES.c.id.in_(part)))
    return len(dead)


def _parts(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
