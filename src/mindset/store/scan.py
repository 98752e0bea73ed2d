"""Looking through the records of a memory: filters, pages, counts, and questions in SQL.

Pages go by id, so that the millionth costs what the first costs. Reads only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mindset.database.engine import reading
from mindset.errors import UsageError
from mindset.store.ledger import Ledger, record_columns, slot_record
from mindset.store.schema import SHARDS, SLOT_TEXT, SLOTS, SOURCE_TEXT, SOURCES
from mindset.store.shard_info import ShardInfo
from mindset.store.slots import SlotRecord

__all__ = ["Answer", "ShardCount", "Where", "ask", "conditions", "count", "counts", "scan"]


_HIGHEST = 2**63 - 1


@dataclass(frozen=True)
class Where:
    """Which slots; None leaves a filter out."""

    layer: int | None = None
    shard: str | None = None
    head: int | None = None
    tag: str | None = None
    pinned: bool | None = None
    text: str | None = None
    """Words of the label, the tags, or the source's name or text, as `database.fulltext` reads them."""
    suppressed: bool | None = None
    """Whether the weight is 0."""


@dataclass(frozen=True)
class _Page:
    """Which of many rows, by their ids."""

    limit: int
    after: int
    newest: bool

    @property
    def between(self) -> tuple[int, int]:
        """The lowest and the highest id that may be on it."""
        if not self.after:
            return 1, _HIGHEST
        return (1, self.after - 1) if self.newest else (self.after + 1, _HIGHEST)

    def ordered(self, query: sa.Select[Any], key: sa.ColumnElement[int]) -> sa.Select[Any]:
        """The first rows of `query` in its order."""
        return query.order_by(key.desc() if self.newest else key).limit(self.limit)


@dataclass(frozen=True)
class ShardCount:
    """A shard and how many slots live in it."""

    shard: ShardInfo
    slots: int
    pinned: int


@dataclass(frozen=True)
class Answer:
    """What an SQL question gave."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def scan(
    ledger: Ledger, where: Where, *, limit: int = 100, after: int = 0, newest: bool = False
) -> list[SlotRecord]:
    """A page of records: the next `limit` by id after (or, newest first, before) the id `after`; 0 starts."""
    if limit < 1:
        raise UsageError(f"limit = {limit}; give at least 1")
    page = _Page(limit, after, newest)
    with reading(ledger.engine) as connection:
        query = record_columns()
        if parts := _by_text(connection, where, page.between):
            each = [page.ordered(one, key).subquery() for one, key in parts]
            both = sa.union(*(sa.select(next(iter(one.c)).label("slot")) for one in each)).subquery()
            query = query.where(SLOTS.c.slot.in_(page.ordered(sa.select(both.c.slot), both.c.slot)))
        else:
            query = query.where(*conditions(connection, where), SLOTS.c.slot.between(*page.between))
        query = page.ordered(query, SLOTS.c.slot)
        return [slot_record(row) for row in connection.execute(query).mappings()]


def count(ledger: Ledger, where: Where, *, at_most: int | None = None) -> int:
    """How many slots there are of that kind; counting stops at `at_most`."""
    with reading(ledger.engine) as connection:
        if parts := _by_text(connection, where):
            each = [one.limit(at_most).subquery() for one, _ in parts]
            some: sa.SelectBase = sa.union(*(sa.select(next(iter(one.c))) for one in each)).limit(at_most)
        else:
            living = sa.select(SLOTS.c.slot).where(SLOTS.c.alive == 1, *conditions(connection, where))
            some = living.limit(at_most)
        return int(connection.execute(sa.select(sa.func.count()).select_from(some.subquery())).scalar_one())


def counts(ledger: Ledger) -> list[ShardCount]:
    """Every shard with its slots."""
    per = (
        sa.select(SLOTS.c.shard, sa.func.count(), sa.func.sum(SLOTS.c.pinned))
        .where(SLOTS.c.alive == 1)
        .group_by(SLOTS.c.shard)
    )
    with reading(ledger.engine) as connection:
        found = {shard: (int(n), int(pinned)) for shard, n, pinned in connection.execute(per)}
    return [ShardCount(info, *found.get(info.id, (0, 0))) for info in ledger.shards()]


def ask(ledger: Ledger, statement: str) -> Answer:
    """Run an SQL question; one that would change anything is refused."""
    with reading(ledger.engine) as connection:
        result = connection.exec_driver_sql(statement)
        if not result.returns_rows:
            raise UsageError("only questions: write a SELECT")
        return Answer(tuple(result.keys()), [tuple(row) for row in result])


def conditions(connection: sa.Connection, where: Where) -> list[sa.ColumnElement[bool] | sa.TextClause]:
    """What `where` asks, as SQL over `record_columns`."""
    found: list[sa.ColumnElement[bool] | sa.TextClause] = [*_filters(connection, where)]
    if where.text is not None:
        own = SLOT_TEXT.condition(connection, where.text)
        cited = sa.select(SOURCES.c.id).where(SOURCE_TEXT.condition(connection, where.text))
        found.append(sa.or_(own, SLOTS.c.source.in_(cited)))
    elif (words := _tag_as_text(where.tag)) is not None:
        found.append(SLOT_TEXT.condition(connection, words))  # fast, and in line with the exact one
    return found


def _filters(connection: sa.Connection, where: Where) -> list[sa.ColumnElement[bool]]:
    """All but its words."""
    found: list[sa.ColumnElement[bool]] = []
    if where.head is not None:
        found.append(SLOTS.c.head == where.head)
    if where.layer is not None or where.shard is not None:
        found.append(SLOTS.c.shard.in_(_shards(connection, where)))
    if where.pinned is not None:
        found.append(SLOTS.c.pinned == int(where.pinned))
    if where.suppressed is not None:
        found.append(SLOTS.c.weight == 0 if where.suppressed else SLOTS.c.weight != 0)
    if where.tag is not None:
        found.append(SLOTS.c.tags.contains(json.dumps(where.tag), autoescape=True))
    return found


def _by_text(
    connection: sa.Connection, where: Where, ids: tuple[int, int] = (1, _HIGHEST)
) -> list[tuple[sa.Select[Any], sa.ColumnElement[int]]]:
    """What the full text has of `where`, each part with what it can be ordered by; none if it asks for no words.

    Living slots that have the words, and those whose source has them: apart, since a full text gives matches one after
    the other as long as nothing else is asked with it.
    """
    words = where.text if where.text is not None else _tag_as_text(where.tag)
    if words is None:
        return []
    first, last = _bounds(connection, where) or (1, 0)
    first, last = max(first, ids[0]), min(last, ids[1])
    rest = [SLOTS.c.alive == 1, *_filters(connection, where)]
    own, key = SLOT_TEXT.keys(connection, words, SLOTS, SLOTS.c.slot, rest)
    parts = [(own, key)]
    if where.text is not None:
        cited = sa.select(SOURCES.c.id).where(SOURCE_TEXT.condition(connection, words))
        if connection.execute(cited.limit(1)).first() is not None:
            parts.append((sa.select(SLOTS.c.slot).where(SLOTS.c.source.in_(cited), *rest), SLOTS.c.slot))
    return [(part.where(key.between(first, last)), key) for part, key in parts]


def _tag_as_text(tag: str | None) -> str | None:
    """A question that all slots with the tag answer, and some others; None for a tag without letters and digits."""
    return f'"{tag}"' if tag is not None and any(map(str.isalnum, tag)) else None


def _bounds(connection: sa.Connection, where: Where) -> tuple[int, int] | None:
    """The lowest and highest id in a layer or shard, so that nothing elsewhere is looked at; None if it is empty."""
    if where.layer is None and where.shard is None:
        return 1, _HIGHEST
    ends = [
        connection.execute(
            sa.select(end(SLOTS.c.slot)).where(SLOTS.c.shard == shard, SLOTS.c.alive == 1)
        ).scalar()
        for shard in _shards(connection, where)
        for end in (sa.func.min, sa.func.max)
    ]
    found = [int(end) for end in ends if end is not None]
    return (min(found), max(found)) if found else None


def _shards(connection: sa.Connection, where: Where) -> list[int]:
    """Few numbers in place of a join."""
    exact = {SHARDS.c.layer: where.layer, SHARDS.c.name: where.shard}
    wanted = [column == value for column, value in exact.items() if value is not None]
    return list(connection.execute(sa.select(SHARDS.c.id).where(*wanted)).scalars())
