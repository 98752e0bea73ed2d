"""What slots are called and cite, by where a model computes with them.

A model knows a slot as a place: layer, shard, head, row of the head. People know it by its id, which is what `mindset
memory` takes. Opens for reading; a memory that nobody edited has no records yet, and its ids are counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from mindset.store.layout import lay_out
from mindset.store.ledger import Source
from mindset.store.memory_dir import MemoryDir
from mindset.store.slab_store import SlabStore
from mindset.store.slots import SlotRecord

__all__ = ["NamedSlot", "name_slots"]

Place = tuple[int, str, int, int]
"""Layer, shard, head, row of the head."""


@dataclass(frozen=True)
class NamedSlot:
    """A slot as people know it."""

    id: int
    label: str = ""
    source: str = ""
    """Name of the text that it was learned from; empty: none is cited."""
    quote: str = ""
    """The cited range of that text."""


def name_slots(folder: Path, places: list[Place]) -> Mapping[Place, NamedSlot]:
    """The slots in these places of the memory folder `folder`; places where there is none are left out."""
    memory = MemoryDir.open(folder)
    if not (memory.folder / f"slots.g{memory.generation}.sqlite").exists():
        counted = _counted(memory)
        return {place: NamedSlot(number) for place in places if (number := _at(counted, place))}
    with SlabStore(folder, read_only=True) as store:
        wanted = {(layer, shard) for layer, shard, _, _ in places}
        shards = [info for info in store.shards() if (info.layer, info.name) in wanted]
        ids = {(info.layer, info.name): lay_out(info, store.ledger.live(info.id)).ids for info in shards}
        found = {place: number for place in places if (number := _at(ids, place))}
        records = {record.id: record for record in store.records(sorted(set(found.values())))}
        cited = {record.cites.source for record in records.values() if record.cites}
        sources = {number: store.ledger.source(number) for number in cited}
    return {place: _named(records[number], sources) for place, number in found.items()}


def _counted(memory: MemoryDir) -> dict[tuple[int, str], Int64[np.ndarray, "n_heads n_slots"]]:
    """The ids that records will have when they are made: in the order of the banks."""
    ids, first = {}, 1
    for bank in memory.banks():
        for shard in bank.shards:
            count = bank.heads * shard.n_slots
            numbers = np.arange(first, first + count, dtype=np.int64)
            ids[bank.layer, shard.name] = numbers.reshape(bank.heads, shard.n_slots)
            first += count
    return ids


def _at(ids: Mapping[tuple[int, str], Int64[np.ndarray, "n_heads n_slots"]], place: Place) -> int:
    layer, shard, head, row = place
    table = ids.get((layer, shard))
    if table is None or head >= table.shape[0] or row >= table.shape[1]:
        return 0
    return int(table[head, row])


def _named(record: SlotRecord, sources: Mapping[int, Source]) -> NamedSlot:
    if record.cites is None:
        return NamedSlot(record.id, record.label)
    source = sources[record.cites.source]
    return NamedSlot(
        record.id, record.label, source.name, source.text[record.cites.start : record.cites.stop]
    )
