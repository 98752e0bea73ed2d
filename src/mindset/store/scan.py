"""Looking through the records of a memory: filters, pages, counts, and questions in SQL.

Pages go by id, so that the millionth costs what the first costs. Reads only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from mindset.database.engine import reading
from mindset.errors import UsageError
from mindset.store.ledger import Ledger, record_columns, slot_record
from mindset.store.schema import SHARDS, SLOT_TEXT, SLOTS, SOURCE_TEXT, SOURCES
from mindset.store.shard_info import ShardInfo
from mindset.store.slots import SlotRecord

__all__ = ["Answer", "ShardCount", "Where", "ask", "conditions", "count", "counts", "scan"]


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
    with reading(ledger.engine) as connection:
        query = record_columns().where(*conditions(connection, where)).limit(limit)
        if after:
            query = query.where(SLOTS.c.slot < after if newest else SLOTS.c.slot > after)
        query = query.order_by(SLOTS.c.slot.desc() if newest else SLOTS.c.slot)
        return [slot_record(row) for row in connection.execute(query).mappings()]


def count(ledger: Ledger, where: Where, *, at_most: int | None = None) -> int:
    """How many slots there are of that kind; counting stops at `at_most`."""
    with reading(ledger.engine) as connection:
        if where.text is None:
            living = sa.select(SLOTS.c.slot).where(SLOTS.c.alive == 1, *conditions(connection, where))
            some: sa.SelectBase = living.limit(at_most)
        else:
            each = [one.limit(at_most).subquery() for one in _with_text(connection, where)]
            some = sa.union(*(sa.select(next(iter(one.c))) for one in each)).limit(at_most)
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


def conditions(connection: sa.Connection, where: Where) -> list[sa.ColumnElement[bool]]:
    """What `where` asks, as SQL over `record_columns`."""
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
        tagged: sa.ColumnElement[bool] = SLOTS.c.tags.contains(json.dumps(where.tag), autoescape=True)
        if where.text is None and any(
            map(str.isalnum, where.tag)
        ):  # its words are in the full text, which is fast
            tagged = sa.and_(tagged, SLOT_TEXT.condition(connection, f'"{where.tag}"'))
        found.append(tagged)
    if where.text is not None:
        own = SLOT_TEXT.condition(connection, where.text)
        cited = sa.select(SOURCES.c.id).where(SOURCE_TEXT.condition(connection, where.text))
        found.append(sa.or_(own, SLOTS.c.source.in_(cited)))
    return found


def _with_text(connection: sa.Connection, where: Where) -> list[sa.Select[Any]]:
    """Versions of living slots that have the text, and of those whose source has it.

    Apart, since a full text gives matches one after the other as long as nothing else is asked with it.
    """
    text, rest = where.text or "", conditions(connection, replace(where, text=None))
    rest = [SLOTS.c.alive == 1, *rest]
    cited = sa.select(SOURCES.c.id).where(SOURCE_TEXT.condition(connection, text))
    own = SLOT_TEXT.keys(connection, text, SLOTS, SLOTS.c.version, rest)
    return [own, sa.select(SLOTS.c.version).where(SLOTS.c.source.in_(cited), *rest)]


def _shards(connection: sa.Connection, where: Where) -> list[int]:
    """Few numbers in place of a join."""
    exact = {SHARDS.c.layer: where.layer, SHARDS.c.name: where.shard}
    wanted = [column == value for column, value in exact.items() if value is not None]
    return list(connection.execute(sa.select(SHARDS.c.id).where(*wanted)).scalars())
