"""An engine from a URL: SQLite (the reference) or PostgreSQL, with the same transactions on both.

`reading` sees one state of the database from its beginning to its end; `writing` takes the writer's place at once, so
that two writers wait for each other instead of failing at their commits. SQLite runs in WAL mode: readers never wait.
A database opened read-only writes nothing, not even beside the file.

Durability: what was committed survives a kill -9; with `durability="power"` a power cut too.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from mindset.database.failures import naming_failures
from mindset.errors import MissingError, UsageError

__all__ = ["Dialect", "Durability", "dialect_of", "gather", "open_engine", "reading", "sqlite_url", "writing"]

Dialect = Literal["sqlite", "postgresql"]
Durability = Literal["kill", "power"]

_WRITES = "mindset_writes"
"""Execution option of a connection whose transactions write."""
BUSY_SECONDS = 10.0
"""How long a writer waits for another one before it gives up."""


def sqlite_url(path: Path) -> sa.URL:
    """The URL of an SQLite file, whatever is in its name."""
    return sa.URL.create("sqlite", database=str(Path(path).absolute()))


def open_engine(
    url: str | sa.URL,
    *,
    read_only: bool = False,
    durability: Durability = "kill",
    busy_seconds: float = BUSY_SECONDS,
) -> sa.Engine:
    """Open `sqlite:///PATH` or `postgresql://...`; an SQLite file is made where there is none, its folder is not."""
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed, read_only, durability, busy_seconds)
    return _open_postgresql(parsed, read_only, durability, busy_seconds)


def dialect_of(engine: sa.Engine | sa.Connection) -> Dialect:
    """Which of the two it is."""
    return cast(Dialect, engine.dialect.name)


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One state of the database, until the block ends."""
    with naming_failures(engine.url), engine.connect() as connection, connection.begin():
        if dialect_of(engine) == "postgresql":
            connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        yield connection


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction: committed as the block ends, undone where it fails."""
    with naming_failures(engine.url), engine.connect() as connection:
        connection = connection.execution_options(**{_WRITES: True})  # noqa: PLW2901
        with connection.begin():
            yield connection


def gather(engine: sa.Engine) -> None:
    """Bring all of an SQLite database into its one file, which can then be copied or renamed; nobody else has it."""
    with naming_failures(engine.url):
        connection = engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
        except sqlite3.Error as error:
            raise sa.exc.OperationalError("wal_checkpoint", None, error) from error
        finally:
            connection.close()
    engine.dispose()


def _parse(url: str | sa.URL) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise UsageError(
            f"{str(url)!r} is no database URL; write sqlite:///PATH or postgresql://HOST/NAME"
        ) from error
    name = parsed.get_backend_name()
    if name not in ("sqlite", "postgresql"):
        raise UsageError(f"databases of kind {name!r} are not supported; allowed: sqlite, postgresql")
    return parsed


# ---- SQLite ----------------------------------------------------------------------------------------------------


def _open_sqlite(url: sa.URL, read_only: bool, durability: Durability, busy_seconds: float) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise UsageError("a database in memory is lost with its process; give sqlite:///PATH")
    path = Path(url.database)
    if read_only and not path.is_file():
        raise MissingError(f"{path}: there is no such database")
    if not path.parent.is_dir():
        raise MissingError(f"{path.parent}: there is no such folder for a database")
    address = f"{path.absolute().as_uri()}?{_mode(path, read_only)}"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            address, uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA foreign_keys = ON")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
        else:
            _into_wal(connection, busy_seconds)
            connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
        return connection

    engine = sa.create_engine(url, creator=connect, poolclass=QueuePool)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _into_wal(connection: sqlite3.Connection, busy_seconds: float) -> None:
    """Two processes that do this to a new database at once: SQLite tells one of them at once, without waiting."""
    until = time.monotonic() + busy_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


def _mode(path: Path, read_only: bool) -> str:
    """How SQLite opens the file.

    Readers share two files with writers, which the last one to close takes away; a connection that was opened `ro`
    would leave them. In a folder that nobody can write to there is neither, nor a writer.
    """
    if not read_only:
        return "mode=rwc"
    if os.access(path.parent, os.W_OK):
        return "mode=rw"
    alone = not path.with_name(f"{path.name}-wal").exists()
    return "mode=ro&immutable=1" if alone else "mode=ro"


def _begin_sqlite(connection: sa.Connection) -> None:
    """Python's sqlite3 would begin before some statements only, and never before one that changes the schema."""
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


# ---- PostgreSQL ------------------------------------------------------------------------------------------------


def _open_postgresql(url: sa.URL, read_only: bool, durability: Durability, busy_seconds: float) -> sa.Engine:
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise MissingError(
            "PostgreSQL needs the extra `sql`: pip install 'mindset-lm[sql]', or give sqlite:///PATH"
        ) from error
    options = {
        "lock_timeout": f"{round(busy_seconds * 1000)}ms",
        "synchronous_commit": "on" if durability == "power" else "off",
        "default_transaction_read_only": "on" if read_only else "off",
    }
    spelled = " ".join(f"-c {name}={value}" for name, value in options.items())
    arguments: dict[str, Any] = {"options": spelled, "application_name": "mindset"}
    return sa.create_engine(
        url.set(drivername="postgresql+psycopg"), connect_args=arguments, pool_pre_ping=True
    )
