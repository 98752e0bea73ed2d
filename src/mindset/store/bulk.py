"""Many records at once, the way a database takes and gives them fastest: as tuples, past layers that make objects.

A memory of a million slots is taken in and laid out in seconds, not minutes. Knows the table of slots, not what its
columns mean. Invariant: what is written here is what the same rows written one by one would be, indexes and full text
included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import sqlalchemy as sa

from mindset.database.engine import dialect_of
from mindset.store.schema import SLOT_TEXT, SLOTS

__all__ = ["VERSION_COLUMNS", "put_versions", "read_columns", "unindexed"]

VERSION_COLUMNS = tuple(column.name for column in SLOTS.columns)
"""Of a version, in the order in which `put_versions` takes them."""

_CHUNK = 20_000


def put_versions(connection: sa.Connection, versions: Iterable[tuple[Any, ...]]) -> None:
    """Insert versions, columns in the order of `VERSION_COLUMNS`."""
    mark = "?" if dialect_of(connection) == "sqlite" else "%s"
    marks = ", ".join([mark] * len(VERSION_COLUMNS))
    statement = f"INSERT INTO slots ({', '.join(VERSION_COLUMNS)}) VALUES ({marks})"  # noqa: S608  names of ours
    source = iter(versions)
    while some := list(islice(source, _CHUNK)):
        connection.exec_driver_sql(statement, some)


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
