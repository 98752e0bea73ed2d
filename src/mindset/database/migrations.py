"""Numbered migrations: a step and the row that records it share one transaction.

Several packages keep tables in one database; each has a `Schema` of its own name, whose steps are numbered 1, 2, 3 ...
A step that was released is never edited: databases out there have taken it. Opening for reading only checks.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from mindset.database.engine import Dialect, dialect_of, reading, writing
from mindset.errors import FormatError

__all__ = ["Migration", "Schema"]

TABLE = "mindset_migrations"

_WORDS: dict[Dialect, dict[str, str]] = {
    "sqlite": {"id": "INTEGER PRIMARY KEY", "int": "INTEGER", "real": "REAL", "bytes": "BLOB"},
    "postgresql": {"id": "BIGINT PRIMARY KEY", "int": "BIGINT", "real": "DOUBLE PRECISION", "bytes": "BYTEA"},
}
"""What `{id}`, `{int}`, `{real}` and `{bytes}` in a statement mean; text is TEXT on both, JSON is text."""


@dataclass(frozen=True)
class Migration:
    """One step."""

    number: int
    """From 1, without gaps."""
    name: str
    """What it does, in a few words."""
    statements: tuple[str, ...]
    """SQL for both dialects, with `{id}`, `{int}`, `{real}`, `{bytes}` for column types."""
    sqlite: tuple[str, ...] = ()
    """SQL that only SQLite gets, after `statements`."""
    postgresql: tuple[str, ...] = ()
    """SQL that only PostgreSQL gets, after `statements`."""

    def sql(self, dialect: Dialect) -> list[str]:
        """The statements for one dialect."""
        words = _WORDS[dialect]
        own = self.sqlite if dialect == "sqlite" else self.postgresql
        return [_filled(statement, words) for statement in (*self.statements, *own)]


@dataclass(frozen=True)
class Schema:
    """The tables of one package, as the steps that make them."""

    name: str
    """Name of the package: store, calls, agent."""
    migrations: tuple[Migration, ...]

    def __post_init__(self) -> None:
        if [step.number for step in self.migrations] != list(range(1, len(self.migrations) + 1)):
            raise ValueError(f"the steps of {self.name} are not numbered 1, 2, 3 ...")

    @property
    def version(self) -> int:
        """Number of the last step that this release knows."""
        return len(self.migrations)

    def migrate(self, engine: sa.Engine) -> int:
        """Take the steps that are missing, each in a transaction of its own; returns how many."""
        if self._found(engine) == self.version:
            return 0
        taken = 0
        while True:
            with writing(engine) as connection:
                _make_table(connection, self.name)
                done = self._recorded(connection)
                if done == self.version:
                    return taken
                self._take(connection, self.migrations[done])
                taken += 1

    def check(self, engine: sa.Engine) -> None:
        """Refuse a database that this release cannot read as it is; writes nothing."""
        done = self._found(engine)
        if done < self.version:
            raise FormatError(
                f"{self._place(engine)} has version {done} of {self.name}, this release reads {self.version}; "
                "open it once for writing, which migrates it"
            )

    def _found(self, engine: sa.Engine) -> int:
        with reading(engine) as connection:
            return self._recorded(connection) if sa.inspect(connection).has_table(TABLE) else 0

    def _take(self, connection: sa.Connection, step: Migration) -> None:
        for statement in step.sql(dialect_of(connection)):
            connection.exec_driver_sql(statement)
        connection.execute(
            sa.text(f"INSERT INTO {TABLE} VALUES (:schema, :number, :name, :taken)"),  # noqa: S608  a constant
            {
                "schema": self.name,
                "number": step.number,
                "name": step.name,
                "taken": datetime.now(UTC).isoformat(),
            },
        )

    def _recorded(self, connection: sa.Connection) -> int:
        """How many steps this database has taken; they must be ours."""
        rows = connection.execute(
            sa.text(f"SELECT number, name FROM {TABLE} WHERE schema_name = :schema ORDER BY number"),  # noqa: S608
            {"schema": self.name},
        ).all()
        place = self._place(connection.engine)
        if len(rows) > self.version:
            raise FormatError(
                f"{place} has version {len(rows)} of {self.name}, this release knows {self.version}; update mindset"
            )
        for (number, name), step in zip(rows, self.migrations, strict=False):
            if (number, name) != (step.number, step.name):
                raise FormatError(f"{place}: step {number} of {self.name} is {name!r}, not {step.name!r}")
        return len(rows)

    @staticmethod
    def _place(engine: sa.Engine) -> str:
        url = engine.url
        return str(url.database) if dialect_of(engine) == "sqlite" else url.render_as_string()


def _make_table(connection: sa.Connection, schema: str) -> None:
    if dialect_of(connection) == "postgresql":  # two processes would otherwise take the same step
        key = zlib.crc32(f"{TABLE}/{schema}".encode())
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
    connection.exec_driver_sql(
        f"CREATE TABLE IF NOT EXISTS {TABLE} (schema_name TEXT NOT NULL, number INTEGER NOT NULL, "
        "name TEXT NOT NULL, taken TEXT NOT NULL, PRIMARY KEY (schema_name, number))"
    )


def _filled(statement: str, words: dict[str, str]) -> str:
    for word, meaning in words.items():
        statement = statement.replace(f"{{{word}}}", meaning)
    return statement
