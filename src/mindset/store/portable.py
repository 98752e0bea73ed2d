"""Slots as a folder that other tools can read: safetensors and JSON lines, whatever store they came from.

    slots.json              format, version, and the shards: layer, name, rule, heads, dtypes, file of vectors
    slots.jsonl             a slot a line, shard by shard: shard, head, label, tags, pinned, weight, created, source,
                            start, stop, crc
    sources.jsonl           a cited text a line: name, text; slots name them by line, from 0
    vectors-NNN.safetensors a shard's `key`, `value` and so on `[slots, d]`, in the order of its lines; bfloat16, which
                            numpy does not have, as uint16 bits

The dtype is kept, so that what is taken in elsewhere and given out again is the same to the bit; only ids differ, since
none is used twice. Taking in is one edit: all of it is there or nothing, and one undo takes it back.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mindset.atomic_file import naming_a_full_disk
from mindset.errors import FormatError, MissingError, UsageError
from mindset.store.edit import NewShard
from mindset.store.interface import SlotStore
from mindset.store.scan import Where
from mindset.store.shard_info import RADIUS, ShardInfo
from mindset.store.slab import STORAGE
from mindset.store.slots import Citation, NewSlot, SlotRecord
from mindset.store.store import Incoming, IncomingSlots, checksums

__all__ = ["export_slots", "read_export"]

FORMAT, VERSION = "mindset slots", 1
_HEAD, _SLOTS, _SOURCES = "slots.json", "slots.jsonl", "sources.jsonl"
_PAGE = 10_000
_CHECKED = ("kind", "heads", "rule", "gated", "fields")
"""What a shard must have in common with the one it is taken in to."""


# ---- out ---------------------------------------------------------------------------------------------------------


def export_slots(store: SlotStore, where: Where, out: Path) -> int:
    """Write the slots that `where` names to the new folder `out`; returns how many."""
    out = Path(out)
    if out.exists():
        raise UsageError(f"{out} is there already; give another --out")
    scratch = out.with_name(f".{out.name}.writing-{os.getpid()}")
    try:
        with naming_a_full_disk(out):
            scratch.mkdir(parents=True)
            count = _write(store, where, scratch)
            scratch.replace(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return count


def _write(store: SlotStore, where: Where, folder: Path) -> int:
    shards: list[dict[str, Any]] = []
    sources, count = _Sources(store), 0
    with (folder / _SLOTS).open("w", encoding="utf-8") as lines:
        for info in store.shards():
            records = list(_records(store, where, info))
            if not records:
                continue
            arrays, crcs = _vectors(store, info, records)
            file = f"vectors-{len(shards):03d}.safetensors"
            save_file(arrays, folder / file)
            for record, crc in zip(records, crcs.tolist(), strict=True):
                line = {"shard": len(shards), **_attributes(record, sources), "crc": crc}
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            known = asdict(info)
            kept = ("layer", "name", *_CHECKED)
            shards.append({name: known[name] for name in kept} | {"slots": len(records), "file": file})
            count += len(records)
    (folder / _SOURCES).write_text("".join(sources.lines), encoding="utf-8")
    head = {"format": FORMAT, "version": VERSION, "slots": count, "shards": shards}
    (folder / _HEAD).write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")
    return count


def _records(store: SlotStore, where: Where, info: ShardInfo) -> Iterator[SlotRecord]:
    if where.layer not in (None, info.layer) or where.shard not in (None, info.name):
        return
    here = replace(where, layer=info.layer, shard=info.name)
    after = 0
    while page := store.scan(here, limit=_PAGE, after=after):
        yield from page
        after = page[-1].id


def _vectors(
    store: SlotStore, info: ShardInfo, records: Sequence[SlotRecord]
) -> tuple[dict[str, np.ndarray], Int64[np.ndarray, " n"]]:
    arrays = store.fetch([record.id for record in records], [*info.fields])
    live = store.live(info.layer, info.name)
    known = dict(zip(live.ids.tolist(), live.crcs.tolist(), strict=True))
    crcs = checksums(arrays)
    for record, crc in zip(records, crcs.tolist(), strict=True):
        if known[record.id] != crc:
            raise FormatError(f"slot {record.id} of {store.place} is damaged; nothing was written")
    return arrays, crcs


class _Sources:
    """Cited texts, numbered as they come."""

    def __init__(self, store: SlotStore) -> None:
        self._store = store
        self._numbers: dict[int, int] = {}
        self.lines: list[str] = []

    def number(self, source: int) -> int:
        if source not in self._numbers:
            text = self._store.source(source)
            self._numbers[source] = len(self.lines)
            self.lines.append(json.dumps({"name": text.name, "text": text.text}, ensure_ascii=False) + "\n")
        return self._numbers[source]


def _attributes(record: SlotRecord, sources: _Sources) -> dict[str, Any]:
    cites = record.cites
    return {
        "head": record.head,
        "label": record.label,
        "tags": list(record.tags),
        "pinned": record.pinned,
        "weight": record.weight,
        "created": record.created,
        "source": None if cites is None else sources.number(cites.source),
        "start": None if cites is None else cites.start,
        "stop": None if cites is None else cites.stop,
    }


# ---- in ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Export:
    shards: list[dict[str, Any]]
    lines: list[list[dict[str, Any]]]
    """Slots, by shard."""
    sources: list[tuple[str, str]]


def read_export(store: SlotStore, folder: Path) -> Incoming:
    """Read and check an export against the memory that is to take it in; nothing is changed yet."""
    folder = Path(folder)
    export = _read(folder)
    parts = []
    for told, lines in zip(export.shards, export.lines, strict=True):
        info = _same_shard(store, told)
        arrays = _load(folder / str(told["file"]), info)
        if any(len(array) != len(lines) for array in arrays.values()):
            raise FormatError(f"{folder / told['file']} has not one row for each of {len(lines)} slots")
        wrong = np.flatnonzero(checksums(arrays) != np.array([line["crc"] for line in lines], np.int64))
        if len(wrong):
            raise FormatError(f"{folder / told['file']}: row {wrong[0]} differs from its checksum")
        parts.append(IncomingSlots(info, [_new_slot(line, info, export) for line in lines], arrays))
    return Incoming(export.sources, parts)


def _read(folder: Path) -> _Export:
    if not (folder / _HEAD).is_file():
        raise MissingError(f"{folder} is no export of slots: it has no {_HEAD}")
    try:
        head = json.loads((folder / _HEAD).read_text(encoding="utf-8"))
        if (named := (head["format"], head["version"])) == (FORMAT, VERSION):
            return _checked(head, _lines(folder / _SLOTS), _lines(folder / _SOURCES))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise FormatError(f"{folder} is damaged ({error!r}); export it again") from error
    raise FormatError(f"{folder} has format and version {named}; this release reads {(FORMAT, VERSION)}")


def _checked(head: dict[str, Any], slots: list[dict[str, Any]], sources: list[dict[str, Any]]) -> _Export:
    shards = head["shards"]
    by_shard: list[list[dict[str, Any]]] = [[] for _ in shards]
    for line in slots:
        if not 0 <= line["shard"] < len(shards) or not isinstance(line["crc"], int):
            raise ValueError(f"a slot of shard {line['shard']}")
        by_shard[line["shard"]].append(line)
    for told, lines in zip(shards, by_shard, strict=True):
        if missing := {"layer", "name", "file", *_CHECKED} - told.keys():
            raise ValueError(f"a shard without {', '.join(sorted(missing))}")
        if len(lines) != told["slots"]:
            raise ValueError(
                f"{len(lines)} slots in layer {told['layer']}, {told['name']}; {told['slots']} are said"
            )
    return _Export(shards, by_shard, [(str(one["name"]), str(one["text"])) for one in sources])


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _same_shard(store: SlotStore, told: dict[str, Any]) -> ShardInfo | NewShard:
    """The shard that the slots go to; an overlay's part that is not there yet is made."""
    layers = {info.layer for info in store.shards()}
    there = [i for i in store.shards() if (i.layer, i.name) == (told["layer"], told["name"])]
    if not there and told["kind"] == RADIUS and told["layer"] in layers:
        return NewShard(told["layer"], told["name"], *(told[name] for name in _CHECKED))
    info = store.shard(told["layer"], told["name"])
    known = asdict(info)
    for name in _CHECKED:
        if told[name] != known[name]:
            raise UsageError(
                f"layer {info.layer}, {info.name}: the slots have {name} {told[name]!r}, the memory {known[name]!r}"
            )
    return info


def _load(path: Path, info: ShardInfo | NewShard) -> dict[str, np.ndarray]:
    try:
        found = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise FormatError(f"{path} cannot be read ({error}); export it again") from error
    told = {field: (array.dtype, array.shape[1:]) for field, array in found.items()}
    wanted = {field: (STORAGE[about["dtype"]], (about["d"],)) for field, about in info.fields.items()}
    if told != wanted:
        raise FormatError(f"{path} holds {told}; slots of {info.name!r} have {wanted}")
    return found


def _new_slot(line: dict[str, Any], info: ShardInfo | NewShard, export: _Export) -> NewSlot:
    """A slot whose citation counts the export's sources."""
    try:
        if not 0 <= line["head"] < info.heads:
            raise IndexError(f"head {line['head']} of {info.heads}")
        if line["source"] is not None and not 0 <= line["source"] < len(export.sources):
            raise IndexError(f"source {line['source']} of {len(export.sources)}")
        cites = None if line["source"] is None else Citation(line["source"], line["start"], line["stop"])
        return NewSlot(
            head=int(line["head"]), cites=cites, label=str(line["label"]), tags=tuple(line["tags"]),
            pinned=bool(line["pinned"]), weight=float(line["weight"]), created=str(line["created"]),
        )  # fmt: skip
    except (LookupError, TypeError, ValueError) as error:
        raise FormatError(f"a line of {_SLOTS} is damaged ({error!r}); export it again") from error
