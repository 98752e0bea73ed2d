"""One edit under way: what may be changed in the records, inside one transaction.

Order within an edit is free; slots that it changes twice get one version each time. Does not know vectors: it is
told in which rows they lie and their checksums.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from jaxtyping import Int64

from mindset.errors import MissingError, UsageError
from mindset.store.bulk import VERSION_COLUMNS, Column, Same, put_versions
from mindset.store.records import check_names
from mindset.store.schema import FREE_ROWS, SHARDS, SLOTS, SOURCES
from mindset.store.shard_info import ShardInfo, shard_info
from mindset.store.slab import STORAGE
from mindset.store.slots import Change, Ids, NewSlot

__all__ = ["Edit", "NewShard", "all_shards", "now", "raise_number"]

# Statements that every insert needs stand ready: making one takes as long as running it.
_RAISE = sa.text("UPDATE meta SET value = value + :by WHERE name = :name RETURNING value")
_RAISE_BOTH = sa.text(
    "UPDATE meta SET value = value + :by WHERE name IN ('next_slot', 'next_version') RETURNING name, value"
)
_FREE = sa.text("SELECT row FROM free_rows WHERE shard = :shard ORDER BY row LIMIT :count")
_RAISE_TOP = sa.text("UPDATE shards SET top = top + :more WHERE id = :shard RETURNING top")
_ALL_SHARDS = sa.select(SHARDS).order_by(SHARDS.c.layer, SHARDS.c.id)

_CHUNK = 500
_OF_A_VERSION = ("version", "alive", "born", "died")
"""Columns that an edit gives to what it bears; the others are the slot's."""


class _Nowhere:
    """What a slot cites that cites nothing."""

    source = start = stop = None


@dataclass(frozen=True)
class NewShard:
    """A shard to be made."""

    layer: int
    name: str
    kind: str
    heads: int
    rule: str
    gated: bool
    fields: dict[str, dict[str, Any]]
    """By name: `dtype`, and `d`, the numbers of a row."""
    sealed: int = 0
    """Rows that are there already, named by records in this edit or by nobody."""
    mounted: bool = True

    def __post_init__(self) -> None:
        """Its names become names of files."""
        check_names(self.name, self.fields)
        if self.layer < 0 or self.heads < 1 or self.sealed < 0:
            raise UsageError(f"shard {self.name!r}: layers and rows count from 0, heads from 1")
        for field, what in self.fields.items():
            if what["dtype"] not in STORAGE or what["d"] < 1:
                raise UsageError(
                    f"shard {self.name!r}, {field}: rows of {what['d']} x {what['dtype']!r}; "
                    f"give 1 or more of {', '.join(STORAGE)}"
                )


class Edit:
    """Handed out by `Ledger.editing`."""

    def __init__(self, connection: sa.Connection, number: int) -> None:
        self.connection = connection
        self.id = number
        """Its number, which the journal keeps."""

    def add_shard(self, new: NewShard) -> int:
        """Make a shard; returns its id."""
        taken = sa.and_(SHARDS.c.layer == new.layer, SHARDS.c.name == new.name)
        if self.connection.execute(sa.select(SHARDS.c.id).where(taken)).first() is not None:
            raise UsageError(f"layer {new.layer} has a shard {new.name!r} already")
        number = 1 + int(
            self.connection.execute(sa.select(sa.func.coalesce(sa.func.max(SHARDS.c.id), 0))).scalar_one()
        )
        row = {
            "id": number, "layer": new.layer, "name": new.name, "kind": new.kind, "heads": new.heads,
            "rule": new.rule, "gated": int(new.gated), "fields": json.dumps(new.fields, sort_keys=True),
            "sealed": new.sealed, "top": new.sealed, "mounted": int(new.mounted),
        }  # fmt: skip
        self.connection.execute(sa.insert(SHARDS).values(row))
        return number

    def shards(self) -> list[ShardInfo]:
        """All shards as they are by now, as `all_shards` gives them."""
        return all_shards(self.connection)

    def shard(self, number: int) -> ShardInfo:
        """A shard as it is by now."""
        row = self.connection.execute(sa.select(SHARDS).where(SHARDS.c.id == number)).mappings().first()
        if row is None:
            raise MissingError(f"there is no shard {number}")
        return shard_info(row)

    def add_source(self, name: str, text: str) -> int:
        """Keep a text, once however often it is given; returns its id."""
        digest = hashlib.sha256(json.dumps([name, text]).encode()).hexdigest()
        there = self.connection.execute(sa.select(SOURCES.c.id).where(SOURCES.c.digest == digest)).scalar()
        if there is not None:
            return int(there)
        number = 1 + int(
            self.connection.execute(sa.select(sa.func.coalesce(sa.func.max(SOURCES.c.id), 0))).scalar_one()
        )
        row = {"id": number, "digest": digest, "name": name, "text": text, "created": now()}
        self.connection.execute(sa.insert(SOURCES).values(row))
        return number

    def take_rows(self, shard: int, count: int) -> Int64[np.ndarray, " count"]:
        """Rows that no record names, free ones first; they are the caller's to write to before the commit."""
        free = self.connection.execute(_FREE, {"shard": shard, "count": count}).scalars()
        rows = [int(row) for row in free]
        for start in range(0, len(rows), _CHUNK):
            some = sa.and_(FREE_ROWS.c.shard == shard, FREE_ROWS.c.row.in_(rows[start : start + _CHUNK]))
            self.connection.execute(sa.delete(FREE_ROWS).where(some))
        more = count - len(rows)
        if more:
            top = self.connection.execute(_RAISE_TOP, {"more": more, "shard": shard}).scalar()
            if top is None:
                raise MissingError(f"there is no shard {shard}")
            rows += range(int(top) - more, int(top))
        return np.array(rows, np.int64)

    def insert(
        self,
        shard: int,
        new: Sequence[NewSlot],
        rows: Int64[np.ndarray, " n"],
        crcs: Int64[np.ndarray, " n"],
    ) -> Int64[np.ndarray, " n"]:
        """New slots whose vectors lie in `rows`; returns their ids."""
        if not len(new) == len(rows) == len(crcs):
            raise ValueError(f"{len(new)} slots, {len(rows)} rows and {len(crcs)} checksums")
        slots, made = self._slots(len(new)), now()
        cites = [one.cites or _Nowhere for one in new]
        self._put_columns(
            **slots, shard=Same(shard),
            head=[one.head for one in new], row=_in_a_run(rows), crc=crcs.tolist(),
            source=[one.source for one in cites], start=[one.start for one in cites], stop=[one.stop for one in cites],
            created=[one.created or made for one in new], label=[one.label for one in new],
            tags=[json.dumps(one.tags) if one.tags else "[]" for one in new],
            pinned=[int(one.pinned) for one in new], weight=[one.weight for one in new],
        )  # fmt: skip
        return np.array(slots["slot"], np.int64)

    def fill(
        self,
        shard: int,
        heads: Int64[np.ndarray, " n"],
        rows: Int64[np.ndarray, " n"],
        crcs: Int64[np.ndarray, " n"],
    ) -> None:
        """New slots of which nothing is known but where they stand, however many: those that came with a model."""
        self._put_columns(
            **self._slots(len(rows)), shard=Same(shard), head=heads.tolist(),
            row=_in_a_run(rows), crc=crcs.tolist(), source=Same(None), start=Same(None), stop=Same(None),
            created=Same(now()), label=Same(""), tags=Same("[]"), pinned=Same(0), weight=Same(1.0),
        )  # fmt: skip

    def move(self, ids: Ids, rows: Int64[np.ndarray, " n"], crcs: Int64[np.ndarray, " n"]) -> None:
        """The slots' vectors are now in other rows, which hold what they were edited to."""
        places = zip(self._end(ids), rows, crcs, strict=True)
        self._put([value | {"row": int(row), "crc": int(crc)} for value, row, crc in places])

    def change(self, ids: Ids, change: Change) -> None:
        """Give the slots other attributes; their vectors stay where they are."""
        given = change.given()
        self._put([value | _columns(given) for value in self._end(ids)])

    def delete(self, ids: Ids) -> None:
        """Let slots die; they stay on disk until the edit is forgotten."""
        wanted, ended = _once(ids), 0
        for start in range(0, len(wanted), _CHUNK):
            alive = sa.and_(SLOTS.c.slot.in_(wanted[start : start + _CHUNK]), SLOTS.c.alive == 1)
            done = self.connection.execute(sa.update(SLOTS).where(alive).values(alive=0, died=self.id))
            ended += done.rowcount
        if ended < len(wanted):
            dead = set(
                self.connection.execute(sa.select(SLOTS.c.slot).where(SLOTS.c.died == self.id)).scalars()
            )
            raise MissingError(f"there is no slot {next(i for i in wanted if i not in dead)}")

    def _end(self, ids: Ids) -> list[dict[str, Any]]:
        """Let the living versions die; returns what they were, in the order of `ids`."""
        wanted = _once(ids)
        found: dict[int, dict[str, Any]] = {}
        for start in range(0, len(wanted), _CHUNK):
            alive = sa.and_(SLOTS.c.slot.in_(wanted[start : start + _CHUNK]), SLOTS.c.alive == 1)
            rows = self.connection.execute(sa.select(SLOTS).where(alive)).mappings()
            found |= {row["slot"]: dict(row) for row in rows}
            self.connection.execute(sa.update(SLOTS).where(alive).values(alive=0, died=self.id))
        if missing := [i for i in wanted if i not in found]:
            raise MissingError(f"there is no slot {missing[0]}")
        return [found[i] for i in wanted]

    def _put(self, values: list[dict[str, Any]]) -> None:
        names = [name for name in VERSION_COLUMNS if name not in _OF_A_VERSION]
        columns = {name: [value[name] for value in values] for name in names}
        self._put_columns(self._versions(len(values)), **columns)

    def _put_columns(self, version: range, **given: Column) -> None:
        """New versions that this edit bore, column by column."""
        own = {"alive": Same(1), "born": Same(self.id), "died": Same(None)}
        put_versions(self.connection, version, given | own)

    def _slots(self, count: int) -> dict[str, range]:
        """Numbers that were never given before, of new slots and of their first versions."""
        reached = self.connection.execute(_RAISE_BOTH, {"by": count}).all()
        return {name.removeprefix("next_"): range(value - count, value) for name, value in reached}

    def _versions(self, count: int) -> range:
        """Numbers of versions that were never given before."""
        reached = raise_number(self.connection, "next_version", count)
        return range(reached - count, reached)


def all_shards(connection: sa.Connection) -> list[ShardInfo]:
    """By layer, in the order in which they were made."""
    return [shard_info(row) for row in connection.execute(_ALL_SHARDS).mappings()]


def raise_number(connection: sa.Connection, name: str, by: int) -> int:
    """Add to a number of `meta`; returns what it is then."""
    return int(connection.execute(_RAISE, {"name": name, "by": by}).scalar_one())


def now() -> str:
    """The time, as records say it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _in_a_run(rows: Int64[np.ndarray, " n"]) -> Column:
    """Rows as a range, where they are one."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return range(int(rows[0]), int(rows[-1]) + 1)
    return [int(row) for row in rows]


def _once(ids: Ids) -> list[int]:
    wanted = [int(i) for i in ids]
    if len(set(wanted)) < len(wanted):
        raise UsageError("a slot is named twice in one change; name it once")
    return wanted


def _columns(given: dict[str, Any]) -> dict[str, Any]:
    columns = dict(given)
    if "tags" in columns:
        columns["tags"] = json.dumps(columns["tags"])
    if "pinned" in columns:
        columns["pinned"] = int(columns["pinned"])
    if (cites := columns.pop("cites", None)) is not None:
        columns |= {"source": cites.source, "start": cites.start, "stop": cites.stop}
    return columns
