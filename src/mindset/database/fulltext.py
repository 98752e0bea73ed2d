"""Full-text search over columns of a table, with the same meaning on SQLite (FTS5) and PostgreSQL (tsvector).

A query is what people type into a search box: words that must all occur, "a phrase", -without, this OR that, begin*.
Words are compared without case, whole, unstemmed. The index is kept by the database itself, in the transaction
of the change, but for new rows of a table that dropped the trigger for them: `take_up` is told of those. It holds no
text of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mindset.database.engine import Dialect, dialect_of
from mindset.errors import UsageError

__all__ = ["FullText", "Term", "parse_query"]

_PIECE = re.compile(r'(-?)(?:"([^"]*)"?|(\S+))')
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Term:
    """One thing that a query asks for: words in a row."""

    words: tuple[str, ...]
    """Lower case."""
    without: bool = False
    """Whether it must not occur."""
    beginning: bool = False
    """Whether the last word may go on."""


def parse_query(text: str) -> list[list[Term]]:
    """Terms that must all hold, each a list of alternatives."""
    every: list[list[Term]] = []
    join = False
    for sign, phrase, word in _PIECE.findall(text):
        if word == "OR" and every:
            join = True
            continue
        words = tuple(_WORD.findall((phrase or word).lower()))
        if not words:
            continue
        term = Term(words, sign == "-", word.endswith("*"))
        if join and not term.without and not every[-1][0].without:
            every[-1].append(term)
        else:
            every.append([term])
        join = False
    if not any(not terms[0].without for terms in every):
        raise UsageError(f"{text!r} names no word to look for; give at least one")
    return every


@dataclass(frozen=True)
class FullText:
    """The index of one table."""

    table: str
    """Table whose text is searched."""
    columns: tuple[str, ...]
    """Its columns of text."""
    key: str = "id"
    """A column of whole numbers that tells its rows, or those of `only`, apart; pages in its order are fast."""
    only: str | None = None
    """SQL over `{row}column`, such as `{row}alive = 1`: what other rows say is not looked for.

    SQLite does not index them; who asks leaves them out in any case, unless they have no words.
    """
    only_by: tuple[str, ...] = ()
    """Columns that `only` looks at beside `columns`."""

    def statements(self, dialect: Dialect) -> tuple[str, ...]:
        """What a migration runs to make the index, rows that are there already included."""
        return self._sqlite() if dialect == "sqlite" else self._postgresql()

    def take_up(self, connection: sa.Connection, where: str, **given: Any) -> None:
        """Index rows that were just put in, where no trigger does: many at once cost less than one by one."""
        if dialect_of(connection) == "sqlite":
            columns = ", ".join((self.key, *self.columns))
            into = f"{self.table}_text(rowid, {', '.join(self.columns)})"
            rows = f"SELECT {columns} FROM {self.table} WHERE ({where}) AND {self._if('') or 'true'}"  # noqa: S608
            connection.execute(sa.text(f"INSERT INTO {into} {rows}"), given)

    def condition(self, connection: sa.Connection, query: str) -> sa.TextClause:
        """`table.key IN (...)` for a WHERE clause, with its parameter bound."""
        parsed, name = parse_query(query), f"{self.table}_text"
        if dialect_of(connection) == "sqlite":
            sql = f"{self.table}.{self.key} IN (SELECT rowid FROM {name} WHERE {name} MATCH :text_query)"  # noqa: S608
            return sa.text(sql).bindparams(text_query=_fts5(parsed))
        sql = f"{self.table}.{name} @@ to_tsquery('simple', :text_query)"
        return sa.text(sql).bindparams(text_query=_tsquery(parsed))

    def found_in(
        self, connection: sa.Connection, query: str, rows: sa.FromClause, key: sa.ColumnElement[int]
    ) -> tuple[sa.FromClause, sa.ColumnElement[int], sa.TextClause]:
        """`rows`, which have the table in them, joined so that the newest matches are found without all the others.

        `key` is equal to the table's key. Returns what to select from, what to order by, and the condition.
        """
        if dialect_of(connection) == "postgresql":
            return rows, key, self.condition(connection, query)
        index, matches = self._fts5_index(query)
        return index.join(rows, index.c.rowid == key), index.c.rowid, matches

    def keys(
        self,
        connection: sa.Connection,
        query: str,
        rows: sa.FromClause,
        key: sa.ColumnElement[int],
        rest: Sequence[sa.ColumnElement[bool]],
    ) -> tuple[sa.Select[Any], sa.ColumnElement[int]]:
        """Keys of matches for which `rest` holds in `rows`, and what they are to be ordered and bounded by.

        Ordered, bounded and limited by that, it looks at as many matches as it takes.
        """
        if dialect_of(connection) == "postgresql":
            return sa.select(key).select_from(rows).where(self.condition(connection, query), *rest), key
        index, matches = self._fts5_index(query)
        held = sa.exists().select_from(rows).where(key == index.c.rowid, *rest).correlate(index)
        return sa.select(index.c.rowid).where(matches, held), index.c.rowid

    def _fts5_index(self, query: str) -> tuple[sa.TableClause, sa.TextClause]:
        """The index as a table of its own, and the condition for its matches."""
        index = sa.table(f"{self.table}_text", sa.column("rowid", sa.Integer))
        condition = sa.text(f"{self.table}_text MATCH :text_query")
        return index, condition.bindparams(text_query=_fts5(parse_query(query)))

    def _sqlite(self) -> tuple[str, ...]:
        # Names are ours, from the code.
        name, columns = f"{self.table}_text", ", ".join(self.columns)
        content = f"{name}_rows" if self.only else self.table
        options = f"content='{content}', content_rowid='{self.key}', tokenize='unicode61 remove_diacritics 0'"
        looked_at = f"SELECT {self.key}, {columns} FROM {self.table} WHERE {self._if('')}"  # noqa: S608
        return (
            *((f"CREATE VIEW {content} AS {looked_at}",) if self.only else ()),
            f"CREATE VIRTUAL TABLE {name} USING fts5({columns}, {options})",
            f"INSERT INTO {name}({name}) VALUES ('rebuild')",  # noqa: S608
            *self._triggers(name),
        )

    def _triggers(self, name: str) -> Iterator[str]:
        """Keep it in step; conditions stand before what is done, where they cost nothing for rows without words."""
        columns = ", ".join(self.columns)
        new, old = (", ".join(f"{row}.{column}" for column in self.columns) for row in ("new", "old"))
        put = f"INSERT INTO {name}(rowid, {columns}) VALUES (new.{self.key}, {new});"  # noqa: S608
        take = f"INSERT INTO {name}({name}, rowid, {columns}) VALUES ('delete', old.{self.key}, {old});"  # noqa: S608
        came = f" WHEN {self._if('new.')}" if self.only else ""
        gone = f" WHEN {self._if('old.')}" if self.only else ""
        changes = f"UPDATE OF {', '.join((self.key, *self.columns, *self.only_by))} ON {self.table}"
        yield f"CREATE TRIGGER {name}_insert AFTER INSERT ON {self.table}{came} BEGIN {put} END"
        yield f"CREATE TRIGGER {name}_delete AFTER DELETE ON {self.table}{gone} BEGIN {take} END"
        if self.only is None:
            yield f"CREATE TRIGGER {name}_update AFTER {changes} BEGIN {take} {put} END"
        else:
            yield f"CREATE TRIGGER {name}_update_out BEFORE {changes}{gone} BEGIN {take} END"
            yield f"CREATE TRIGGER {name}_update_in AFTER {changes}{came} BEGIN {put} END"

    def _if(self, row: str) -> str:
        return "" if self.only is None else self.only.format(row=row)

    def _postgresql(self) -> tuple[str, ...]:
        name = f"{self.table}_text"
        joined = " || ' ' || ".join(f"coalesce({column}, '')" for column in self.columns)
        # Its parser would keep names.of.files, hosts and the like as one word each.
        words = f"regexp_replace({joined}, '[[:punct:]]+', ' ', 'g')"
        made = f"tsvector GENERATED ALWAYS AS (to_tsvector('simple', {words})) STORED"
        return (
            f"ALTER TABLE {self.table} ADD COLUMN {name} {made}",
            f"CREATE INDEX {name}_index ON {self.table} USING gin ({name})",
        )


def _fts5(query: list[list[Term]]) -> str:
    def spelled(term: Term) -> str:
        return f'"{" ".join(term.words)}"{"*" if term.beginning else ""}'

    wanted = [" OR ".join(map(spelled, terms)) for terms in query if not terms[0].without]
    unwanted = [spelled(term) for terms in query for term in terms if term.without]
    found = " AND ".join(f"({terms})" for terms in wanted)
    return f"({found})" + "".join(f" NOT {term}" for term in unwanted)


def _tsquery(query: list[list[Term]]) -> str:
    def spelled(term: Term) -> str:
        words = [f"'{word}'" for word in term.words]
        words[-1] += ":*" if term.beginning else ""
        return f"{'!' if term.without else ''}({' <-> '.join(words)})"

    return " & ".join(f"({' | '.join(map(spelled, terms))})" for terms in query)
