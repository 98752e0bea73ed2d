"""Opening a model folder's memory for a command, and telling what was done to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindset.cli import render

if TYPE_CHECKING:
    from mindset.store.memory import Memory
    from mindset.store.slots import SlotRecord

__all__ = ["counted", "reading", "tell", "writing"]


def reading(folder: Path) -> Memory:
    """Open DIR to look."""
    from mindset.store.memory import Memory

    return Memory(folder, read_only=True)


def writing(folder: Path) -> Memory:
    """Open DIR to change it."""
    from mindset.store.memory import Memory

    return Memory(folder)


def tell(opened: Memory, as_json: bool) -> None:
    """Say what was done last, and how to take it back."""
    entry = opened.journal.done[-1]
    if as_json:
        render.print_json(asdict(entry))
    else:
        render.say(f"{entry.title}; back with: mindset undo {opened.folder}")


def counted(opened: Memory, records: Sequence[SlotRecord]) -> list[dict[str, Any]]:
    """What was counted of slots: `hits`, `last` (the token of the last read) and `influence`."""
    tables: dict[tuple[int, str], Any] = {}
    used = []
    for record in records:
        place = (record.layer, record.shard)
        if place not in tables:
            top = opened.store.shard(*place).top
            tables[place] = opened.store.usage.of(*place).read(top)
        row = tables[place][record.row]
        hits = int(row["hits"])
        used.append(
            {"hits": hits, "last": int(row["last"]) if hits else 0, "influence": float(row["influence"])}
        )
    return used
