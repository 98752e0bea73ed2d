"""The records of a memory in SQL: what lives, where its vectors lie, which edit made it, and how to go back.

A change is made inside `Ledger.editing`: one transaction, published by its commit. Rows that it hands out are named by
no record before that, so vectors are written first and appear with the commit, or never. Undoing an edit turns it;
forgetting it frees the rows of what it ended.

Does not know files, vectors or counters. Invariant: of one slot at most one version is alive; a row is free, or named
by a version, or above its shard's `top`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import sqlalchemy as sa
from jaxtyping import Int64

from mindset.database.engine import reading, writing
from mindset.errors import MissingError
from mindset.store.bulk import read_columns
from mindset.store.edit import Edit, all_shards, now, raise_number
from mindset.store.schema import EDITS, FREE_ROWS, META, SCHEMA, SHARDS, SLOTS, SOURCES
from mindset.store.shard_info import ShardInfo
from mindset.store.slots import Citation, Ids, SlotRecord

__all__ = ["CHUNK", "Ledger", "LiveRows", "Source", "record_columns", "slot_record"]

_LIVE = np.dtype([("ids", "i8"), ("rows", "i8"), ("heads", "i8"), ("crcs", "i8"), ("weights", "f8")])
_NEXT_EDIT = "SELECT coalesce(max(id), 0) + 1"
"""Numbers of undone edits that were forgotten are given again: nothing names them any more."""
_MAKE_EDIT = sa.text(
    "INSERT INTO edits (id, kind, created, holds, generation) "
    f"{_NEXT_EDIT}, :kind, :created, 1, :generation FROM edits RETURNING id"
)
CHUNK = 500
"""Ids in one question; SQLite allows some thousand parameters."""


@dataclass(frozen=True)
class Source:
    """A text that slots were learned from, stored once."""

    id: int
    name: str
    text: str
    created: str


@dataclass(frozen=True, eq=False)
class LiveRows:
    """The living slots of a shard, by row."""

    ids: Int64[np.ndarray, " n"]
    rows: Int64[np.ndarray, " n"]
    heads: Int64[np.ndarray, " n"]
    crcs: Int64[np.ndarray, " n"]
    weights: np.ndarray
    """float64."""


class Ledger:
    """The records in one database."""

    def __init__(self, engine: sa.Engine, *, read_only: bool = False) -> None:
        """Use `engine`'s database, made or migrated unless `read_only`."""
        self.engine = engine
        if read_only:
            SCHEMA.check(engine)
        else:
            SCHEMA.migrate(engine)

    # ---- changing -----------------------------------------------------------------------------------------------

    @contextmanager
    def editing(self, kind: str) -> Iterator[Edit]:
        """Make one edit; where the block fails nothing of it is kept."""
        with writing(self.engine) as connection:
            row = {"kind": kind, "created": now(), "generation": _next_generation(connection)}
            yield Edit(connection, int(connection.execute(_MAKE_EDIT, row).scalar_one()))

    def turn(self, edit: int, holds: bool) -> None:
        """Undo an edit, or make it hold again; the caller keeps to the order of the journal."""
        with writing(self.engine) as connection:
            self._find(connection, edit)
            change = {"holds": int(holds), "generation": _next_generation(connection)}
            connection.execute(sa.update(EDITS).where(EDITS.c.id == edit).values(change))
            made = sa.and_(SLOTS.c.born == edit, sa.func.coalesce(SLOTS.c.died, 0) != edit)
            ended = sa.and_(SLOTS.c.died == edit, SLOTS.c.born != edit)
            # First what dies, then what lives: of one slot never two versions at once.
            for which, alive in ((ended, 0), (made, 1)) if holds else ((made, 0), (ended, 1)):
                connection.execute(sa.update(SLOTS).where(which).values(alive=alive))

    def forget(self, edit: int) -> int:
        """Free what is kept for undoing (or redoing) an edit; returns how many rows became free.

        May be called again.
        """
        with writing(self.engine) as connection:
            holds = connection.execute(sa.select(EDITS.c.holds).where(EDITS.c.id == edit)).scalar()
            if holds is None:
                return 0
            dead = SLOTS.c.died == edit if holds else SLOTS.c.born == edit
            places = set(connection.execute(sa.select(SLOTS.c.shard, SLOTS.c.row).where(dead)).all())
            connection.execute(sa.delete(SLOTS).where(dead))
            if not holds:  # what it ended lives on, ended by nobody
                connection.execute(sa.update(SLOTS).where(SLOTS.c.died == edit).values(died=None))
                connection.execute(sa.delete(EDITS).where(EDITS.c.id == edit))
            return _free(connection, sorted(tuple(place) for place in places))

    def set_mounted(self, name: str, mounted: bool) -> int:
        """Mount an overlay's shards, or take them off; returns how many there are."""
        with writing(self.engine) as connection:
            _next_generation(connection)
            done = connection.execute(
                sa.update(SHARDS).where(SHARDS.c.name == name).values(mounted=int(mounted))
            )
            if not done.rowcount:
                raise MissingError(f"there is no overlay {name!r}")
            return int(done.rowcount)

    # ---- looking ------------------------------------------------------------------------------------------------

    def generation(self) -> int:
        """A number that grows with every change."""
        with reading(self.engine) as connection:
            return _meta(connection, "generation")

    def next_edit(self) -> int:
        """The number that the next edit will have, if nobody else writes."""
        with reading(self.engine) as connection:
            return int(connection.execute(sa.text(f"{_NEXT_EDIT} FROM edits")).scalar_one())

    def holds(self, edit: int) -> bool:
        """Whether an edit was made and is not undone."""
        with reading(self.engine) as connection:
            return connection.execute(sa.select(EDITS.c.holds).where(EDITS.c.id == edit)).scalar() == 1

    def shards(self) -> list[ShardInfo]:
        """All shards, by layer, in the order in which they were made."""
        with reading(self.engine) as connection:
            return all_shards(connection)

    def live(self, shard: int) -> LiveRows:
        """The living slots of a shard."""
        wanted = (SLOTS.c.slot, SLOTS.c.row, SLOTS.c.head, SLOTS.c.crc, SLOTS.c.weight)
        alive = sa.and_(SLOTS.c.shard == shard, SLOTS.c.alive == 1)
        with reading(self.engine) as connection:
            rows = read_columns(connection, sa.select(*wanted).where(alive).order_by(SLOTS.c.row), _LIVE)
        return LiveRows(*(np.ascontiguousarray(rows[name]) for name in _LIVE.names or ()))

    def pinned(self, shard: int) -> Int64[np.ndarray, " n"]:
        """The pinned slots of a shard."""
        here = sa.and_(SLOTS.c.shard == shard, SLOTS.c.alive == 1, SLOTS.c.pinned == 1)
        with reading(self.engine) as connection:
            return np.array([*connection.execute(sa.select(SLOTS.c.slot).where(here)).scalars()], np.int64)

    def records(self, ids: Ids) -> list[SlotRecord]:
        """The records of living slots, in the order asked for."""
        found: dict[int, SlotRecord] = {}
        with reading(self.engine) as connection:
            for start in range(0, len(ids), CHUNK):
                some = SLOTS.c.slot.in_([int(i) for i in ids[start : start + CHUNK]])
                rows = connection.execute(record_columns().where(some)).mappings()
                found |= {row["slot"]: slot_record(row) for row in rows}
        if missing := [int(i) for i in ids if int(i) not in found]:
            raise MissingError(f"there is no slot {missing[0]}{_others(len(missing) - 1)}")
        return [found[int(i)] for i in ids]

    def shards_of(self, ids: Ids) -> set[int]:
        """The shards that these slots live in."""
        found: set[int] = set()
        with reading(self.engine) as connection:
            for start in range(0, len(ids), CHUNK):
                some = SLOTS.c.slot.in_([int(i) for i in ids[start : start + CHUNK]])
                query = sa.select(SLOTS.c.shard).where(some, SLOTS.c.alive == 1).distinct()
                found |= set(connection.execute(query).scalars())
        return found

    def count(self) -> int:
        """Living slots in all shards."""
        with reading(self.engine) as connection:
            alive = sa.select(sa.func.count()).select_from(SLOTS).where(SLOTS.c.alive == 1)
            return int(connection.execute(alive).scalar_one())

    def source(self, number: int) -> Source:
        """One source."""
        with reading(self.engine) as connection:
            row = connection.execute(sa.select(SOURCES).where(SOURCES.c.id == number)).mappings().first()
        if row is None:
            raise MissingError(f"there is no source {number}")
        return Source(row["id"], row["name"], row["text"], row["created"])

    def named_rows(self, shard: int) -> Int64[np.ndarray, " n"]:
        """Rows that some version names, living or kept for an undo."""
        with reading(self.engine) as connection:
            rows = connection.execute(
                sa.select(SLOTS.c.row).where(SLOTS.c.shard == shard).distinct()
            ).scalars()
            return np.array(sorted(rows), np.int64)

    @staticmethod
    def _find(connection: sa.Connection, edit: int) -> None:
        if connection.execute(sa.select(EDITS.c.id).where(EDITS.c.id == edit)).first() is None:
            raise MissingError(f"there is no edit {edit}")


def record_columns() -> sa.Select[Any]:
    """Everything a record needs, of the living."""
    joined = sa.join(SLOTS, SHARDS, SLOTS.c.shard == SHARDS.c.id)
    return (
        sa.select(SLOTS, SHARDS.c.layer, SHARDS.c.name.label("shard_name"))
        .select_from(joined)
        .where(SLOTS.c.alive == 1)
    )


def slot_record(row: Any) -> SlotRecord:
    """A row of `record_columns` as a record."""
    cites = None if row["source"] is None else Citation(row["source"], row["start"], row["stop"])
    return SlotRecord(
        id=row["slot"],
        layer=row["layer"],
        shard=row["shard_name"],
        head=row["head"],
        row=row["row"],
        created=row["created"],
        cites=cites,
        label=row["label"],
        tags=tuple(json.loads(row["tags"])),
        pinned=bool(row["pinned"]),
        weight=row["weight"],
    )


def _meta(connection: sa.Connection, name: str) -> int:
    return int(connection.execute(sa.select(META.c.value).where(META.c.name == name)).scalar_one())


def _next_generation(connection: sa.Connection) -> int:
    return raise_number(connection, "generation", 1)


def _free(connection: sa.Connection, places: list[tuple[int, int]]) -> int:
    """Give back the rows that no version names any more, sealed ones aside."""
    freed = 0
    for shard, of_shard in groupby(places, lambda place: place[0]):
        rows = [row for _, row in of_shard]
        sealed = connection.execute(sa.select(SHARDS.c.sealed).where(SHARDS.c.id == shard)).scalar_one()
        for start in range(0, len(rows), CHUNK):
            some = rows[start : start + CHUNK]
            here = sa.and_(SLOTS.c.shard == shard, SLOTS.c.row.in_(some))
            named = set(connection.execute(sa.select(SLOTS.c.row).where(here)).scalars())
            free = [{"shard": shard, "row": row} for row in some if row not in named and row >= sealed]
            if free:
                connection.execute(sa.insert(FREE_ROWS), free)
            freed += len(free)
    return freed


def _others(count: int) -> str:
    return f", nor {count} of the others" if count else ""
