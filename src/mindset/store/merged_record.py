"""What is known of a slot that was made of others: where they came from, in one source that tells of all."""

from __future__ import annotations

from collections.abc import Sequence

from mindset.store.ledger import Ledger, Source
from mindset.store.slots import Citation, NewSlot, SlotRecord

__all__ = ["merged_records"]


def merged_records(
    ledger: Ledger, groups: Sequence[Sequence[SlotRecord]]
) -> tuple[list[NewSlot], list[tuple[str, str]]]:
    """A new slot for each group, and the name and text of the source that it cites, by its number."""
    cited = {record.cites.source for group in groups for record in group if record.cites}
    known = {number: ledger.source(number) for number in sorted(cited)}
    new, sources = [], []
    for number, group in enumerate(groups):
        name = f"slots {', '.join(str(record.id) for record in group)}, merged"
        sources.append((name, "\n".join(_line(record, known) for record in group) + "\n"))
        new.append(_merged(group, number))
    return new, sources


def _merged(group: Sequence[SlotRecord], source: int) -> NewSlot:
    labels = dict.fromkeys(record.label for record in group if record.label)
    tags = dict.fromkeys(tag for record in group for tag in record.tags)
    return NewSlot(
        head=group[0].head,
        cites=Citation(source),
        label=" + ".join(labels),
        tags=tuple(tags),
        created=min(record.created for record in group),
    )


def _line(record: SlotRecord, known: dict[int, Source]) -> str:
    label = f" '{record.label}'" if record.label else ""
    cites = record.cites
    if cites is None:
        return f"slot {record.id}{label}, layer {record.layer}, {record.shard}: cites nothing"
    source = known[cites.source]
    at = "" if cites.start is None else f", characters {cites.start} to {cites.stop}"
    quote = source.text[cites.start : cites.stop].rstrip("\n")
    return f"slot {record.id}{label}, layer {record.layer}, {record.shard}: {source.name}{at}: {quote}"
