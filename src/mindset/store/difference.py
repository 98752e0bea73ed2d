"""What differs between two states of a memory, slot by slot.

A state is the set of edits that hold in it. A version of a slot lives there if the edit that made it holds and the one
that ended it does not; so only versions that a differing edit made or ended have to be looked at. Reads only.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa

from mindset.database.engine import reading
from mindset.store.ledger import CHUNK, Ledger, slot_record
from mindset.store.schema import SHARDS, SLOTS
from mindset.store.slots import SlotRecord

__all__ = ["Changed", "Difference", "difference"]


@dataclass(frozen=True)
class Changed:
    """A slot that lives in both states and is not the same."""

    before: SlotRecord
    after: SlotRecord

    @property
    def what(self) -> tuple[str, ...]:
        """Names of the attributes that differ; `vectors` where it was moved to other rows."""
        names = [field.name for field in fields(SlotRecord) if field.name != "row"]
        differ = [name for name in names if getattr(self.before, name) != getattr(self.after, name)]
        return (*differ, "vectors") if self.before.row != self.after.row else tuple(differ)


@dataclass(frozen=True)
class Difference:
    """By id."""

    put_in: list[SlotRecord]
    taken_out: list[SlotRecord]
    changed: list[Changed]


def difference(
    ledger: Ledger, before: AbstractSet[int], after: AbstractSet[int], history: AbstractSet[int]
) -> Difference:
    """From the state in which of the edits in `history` those of `before` hold, to that of `after`.

    Edits that are not in the history (it forgets the oldest) hold in both.
    """
    differing = sorted(before ^ after)
    states: tuple[tuple[AbstractSet[int], dict[int, SlotRecord]], ...] = (
        (history - before, {}),
        (history - after, {}),
    )
    with reading(ledger.engine) as connection:
        for start in range(0, len(differing), CHUNK):
            for row in _touched(connection, differing[start : start + CHUNK]):
                for undone, lives in states:
                    if row["born"] not in undone and (row["died"] is None or row["died"] in undone):
                        lives[row["slot"]] = slot_record(row)
    then, now = (lives for _, lives in states)
    both = [Changed(then[slot], now[slot]) for slot in sorted(then.keys() & now.keys())]
    return Difference(
        [now[slot] for slot in sorted(now.keys() - then.keys())],
        [then[slot] for slot in sorted(then.keys() - now.keys())],
        [one for one in both if one.what],
    )


def _touched(connection: sa.Connection, edits: list[int]) -> list[Any]:
    joined = sa.join(SLOTS, SHARDS, SLOTS.c.shard == SHARDS.c.id)
    query = sa.select(SLOTS, SHARDS.c.layer, SHARDS.c.name.label("shard_name")).select_from(joined)
    touched = sa.or_(SLOTS.c.born.in_(edits), SLOTS.c.died.in_(edits))
    return [*connection.execute(query.where(touched)).mappings()]
