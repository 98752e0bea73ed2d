"""Many records at once, the way a database takes and gives them fastest: by column, past layers that make objects.

A memory of a million slots is taken in and laid out in seconds, not minutes. Knows the table of slots, not what its
columns mean. Invariant: what is written here is what the same rows written one by one would be, indexes and full text
included.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from mindset.database.engine import dialect_of
from mindset.store.schema import SLOT_TEXT, SLOTS

__all__ = ["VERSION_COLUMNS", "Column", "Same", "put_versions", "read_columns", "unindexed"]

VERSION_COLUMNS = tuple(column.name for column in SLOTS.columns)
"""Of a version; `put_versions` takes all of them."""

_NAMES = ", ".join(VERSION_COLUMNS)
_CHUNK = 20_000
_WHOLE = {int, type(None)}
"""What JSON brings to SQLite as it is."""


@dataclass(frozen=True)
class Same:
    """A column that has one value throughout."""

    value: Any


Column = range | Same | list[Any]


def put_versions(connection: sa.Connection, versions: range, columns: Mapping[str, Column]) -> None:
    """Insert versions of these numbers, the other columns of `VERSION_COLUMNS` column by column."""
    put = _put_told if dialect_of(connection) == "sqlite" else _put_rows
    told = {name: _told_once(columns[name]) for name in VERSION_COLUMNS if name != "version"}
    told = {"version": versions, **told}
    for start in range(0, len(versions), _CHUNK):
        some = slice(start, min(start + _CHUNK, len(versions)))
        put(connection, some.stop - start, {name: _part(column, some) for name, column in told.items()})
    if (told["label"], told["tags"]) != (Same(""), Same("[]")):
        new = {"first": versions.start, "last": versions.stop - 1}
        SLOT_TEXT.take_up(connection, "version BETWEEN :first AND :last", **new)


def _told_once(column: Column) -> Column:
    """As one value, where it has but one."""
    alike = isinstance(column, list) and column and column.count(column[0]) == len(column)
    return Same(column[0]) if alike else column  # type: ignore[index]


def _part(column: Column, some: slice) -> Column:
    return column if isinstance(column, Same) else column[some]


def _put_told(connection: sa.Connection, count: int, columns: dict[str, Column]) -> None:
    """In one statement that is told once what is alike in all rows: SQLite takes a fifth of the time for it."""
    listed = [column for column in columns.values() if isinstance(column, list)]
    if not all(set(map(type, column)) <= _WHOLE for column in listed):
        _put_rows(connection, count, columns)  # JSON would not keep every number and text to the bit
        return
    alone = len(listed) == 1
    chosen, given, place = list[str](), list[Any](), itertools.count()
    for column in columns.values():
        if isinstance(column, list):
            chosen.append("value" if alone else f"json_extract(value, '$[{next(place)}]')")
        elif isinstance(column, range):
            chosen.append("? + key")
            given.append(column.start)
        else:
            chosen.append("?")
            given.append(column.value)
    rows: list[Any] = listed[0] if alone else [*zip(*listed, strict=True)] or [0] * count
    statement = f"INSERT INTO slots ({_NAMES}) SELECT {', '.join(chosen)} FROM json_each(?)"  # noqa: S608  names of ours
    connection.exec_driver_sql(statement, (*given, json.dumps(rows)))


def _put_rows(connection: sa.Connection, count: int, columns: dict[str, Column]) -> None:
    """Row by row."""
    mark = "?" if dialect_of(connection) == "sqlite" else "%s"
    statement = f"INSERT INTO slots ({_NAMES}) VALUES ({', '.join([mark] * len(VERSION_COLUMNS))})"  # noqa: S608  names of ours
    each = [
        itertools.repeat(column.value, count) if isinstance(column, Same) else column
        for column in columns.values()
    ]
    connection.exec_driver_sql(statement, [*zip(*each, strict=True)])


def read_columns(connection: sa.Connection, query: sa.Select[Any], dtype: np.dtype) -> np.ndarray:
    """The answer to `query` as one structured array, a field for each column."""
    result = connection.execute(query)
    cursor = result.cursor
    if cursor is None:
        raise RuntimeError("a question without an answer")
    try:
        return np.fromiter(cursor, dtype)  # type: ignore[call-overload,no-any-return]
    finally:
        result.close()


@contextmanager
def unindexed(connection: sa.Connection) -> Iterator[None]:
    """Put many versions in first and index them at once afterwards; SQLite only, elsewhere nothing is different.

    For a database that nobody else has yet.
    """
    if dialect_of(connection) != "sqlite":
        yield
        return
    made = "FROM sqlite_master WHERE tbl_name = 'slots' AND type IN ('index', 'trigger') AND sql IS NOT NULL"
    found = connection.exec_driver_sql(f"SELECT type, name, sql {made}").all()
    for kind, name, _ in found:
        connection.exec_driver_sql(f"DROP {kind} {name}")
    yield
    for _, _, statement in found:
        connection.exec_driver_sql(statement)
    text = f"{SLOT_TEXT.table}_text"
    connection.exec_driver_sql(f"INSERT INTO {text}({text}) VALUES ('rebuild')")  # noqa: S608  a name of ours
