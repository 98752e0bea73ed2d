"""One edit under way: what may be changed in the records, inside one transaction.

Order within an edit is free; slots that it changes twice get one version each time. Does not know vectors: it is
told in which rows they lie and their checksums.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from jaxtyping import Int64

from mindset.errors import MissingError, UsageError
from mindset.store.bulk import VERSION_COLUMNS, put_versions
from mindset.store.records import check_names
from mindset.store.schema import FREE_ROWS, SHARDS, SLOTS, SOURCES
from mindset.store.shard_info import ShardInfo, shard_info
from mindset.store.slab import STORAGE
from mindset.store.slots import Change, Ids, NewSlot

__all__ = ["Edit", "NewShard", "now", "raise_number"]

_RAISE = sa.text("UPDATE meta SET value = value + :by WHERE name = :name RETURNING value")

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
        free = self.connection.execute(
            sa.select(FREE_ROWS.c.row)
            .where(FREE_ROWS.c.shard == shard)
            .order_by(FREE_ROWS.c.row)
            .limit(count)
        )
        rows = [int(row) for row in free.scalars()]
        for start in range(0, len(rows), _CHUNK):
            some = sa.and_(FREE_ROWS.c.shard == shard, FREE_ROWS.c.row.in_(rows[start : start + _CHUNK]))
            self.connection.execute(sa.delete(FREE_ROWS).where(some))
        more = count - len(rows)
        if more:
            top = self._top(shard)
            rows += range(top, top + more)
            self.connection.execute(sa.update(SHARDS).where(SHARDS.c.id == shard).values(top=top + more))
        return np.array(rows, np.int64)

    def insert(
        self,
        shard: int,
        new: Sequence[NewSlot],
        rows: Int64[np.ndarray, " n"],
        crcs: Int64[np.ndarray, " n"],
    ) -> Int64[np.ndarray, " n"]:
        """New slots whose vectors lie in `rows`; returns their ids."""
        first, made = self._reserve("next_slot", len(new)), now()
        if not len(new) == len(rows) == len(crcs):
            raise ValueError(f"{len(new)} slots, {len(rows)} rows and {len(crcs)} checksums")
        cites = [one.cites or _Nowhere for one in new]
        self._put_columns(
            len(new), slot=range(first, first + len(new)), shard=itertools.repeat(shard),
            head=[one.head for one in new], row=rows.tolist(), crc=crcs.tolist(), source=[one.source for one in cites],
            start=[one.start for one in cites], stop=[one.stop for one in cites],
            created=[one.created or made for one in new], label=[one.label for one in new],
            tags=[json.dumps(one.tags) if one.tags else "[]" for one in new],
            pinned=[int(one.pinned) for one in new], weight=[one.weight for one in new],
        )  # fmt: skip
        return np.arange(first, first + len(new), dtype=np.int64)

    def fill(
        self,
        shard: int,
        heads: Int64[np.ndarray, " n"],
        rows: Int64[np.ndarray, " n"],
        crcs: Int64[np.ndarray, " n"],
    ) -> None:
        """New slots of which nothing is known but where they stand, however many: those that came with a model."""
        slot = self._reserve("next_slot", len(rows))
        plain = {name: itertools.repeat(None) for name in ("source", "start", "stop")}
        self._put_columns(
            len(rows), slot=itertools.count(slot), shard=itertools.repeat(shard), head=heads.tolist(),
            row=rows.tolist(), crc=crcs.tolist(), created=itertools.repeat(now()), label=itertools.repeat(""),
            tags=itertools.repeat("[]"), pinned=itertools.repeat(0), weight=itertools.repeat(1.0), **plain,
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
        self._put_columns(len(values), **{name: [value[name] for value in values] for name in names})

    def _put_columns(self, count: int, **given: Iterable[Any]) -> None:
        """New versions that this edit bore, column by column."""
        if not count:
            return
        version = self._reserve("next_version", count)
        columns = given | {
            "version": range(version, version + count),
            "alive": itertools.repeat(1),
            "born": itertools.repeat(self.id),
            "died": itertools.repeat(None),
        }
        put_versions(self.connection, zip(*map(columns.__getitem__, VERSION_COLUMNS), strict=False))

    def _reserve(self, name: str, count: int) -> int:
        """The first of `count` numbers that were never given before."""
        return raise_number(self.connection, name, count) - count

    def _top(self, shard: int) -> int:
        top = self.connection.execute(sa.select(SHARDS.c.top).where(SHARDS.c.id == shard)).scalar()
        if top is None:
            raise MissingError(f"there is no shard {shard}")
        return int(top)


def raise_number(connection: sa.Connection, name: str, by: int) -> int:
    """Add to a number of `meta`; returns what it is then."""
    return int(connection.execute(_RAISE, {"name": name, "by": by}).scalar_one())


def now() -> str:
    """The time, as records say it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


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
