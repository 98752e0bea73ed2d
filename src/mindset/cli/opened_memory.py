"""Opening a model folder's memory for a command, and telling what was done to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindset.cli import render

if TYPE_CHECKING:
    from mindset.store.interface import SlotMemory
    from mindset.store.slab_store import SlabStore
    from mindset.store.slots import SlotRecord

__all__ = ["counted", "counting_store", "reading", "tell", "writing"]


def reading(place: Path | str) -> SlotMemory:
    """Open DIR, or what a daemon serves, to look."""
    from mindset.store.place import open_memory

    return open_memory(place, read_only=True)


def writing(place: Path | str) -> SlotMemory:
    """Open DIR, or what a daemon serves, to change it."""
    from mindset.store.place import open_memory

    return open_memory(place)


def tell(opened: SlotMemory, as_json: bool) -> None:
    """Say what was done last, and how to take it back."""
    entry = opened.last_change()
    if as_json:
        render.print_json(asdict(entry))
    else:
        render.say(f"{entry.title}; back with: mindset undo {opened.place}")


def counting_store(opened: SlotMemory) -> SlabStore | None:
    """Where reads are counted: in a folder, not by a daemon."""
    from mindset.store.slab_store import SlabStore

    return opened.store if isinstance(opened.store, SlabStore) else None


def counted(opened: SlotMemory, records: Sequence[SlotRecord]) -> list[dict[str, Any]]:
    """What was counted of slots: `hits`, `last` (the token of the last read) and `influence`; a daemon's: nothing."""
    store = counting_store(opened)
    if store is None:
        return [{} for _ in records]
    tables: dict[tuple[int, str], Any] = {}
    used = []
    for record in records:
        place = (record.layer, record.shard)
        if place not in tables:
            top = store.shard(*place).top
            tables[place] = store.usage.of(*place).read(top)
        row = tables[place][record.row]
        hits = int(row["hits"])
        used.append(
            {"hits": hits, "last": int(row["last"]) if hits else 0, "influence": float(row["influence"])}
        )
    return used
