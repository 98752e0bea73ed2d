"""The `memory/` folder of a model: `memory.json` says which banks and shards there are, slabs hold the rows.

    memory.json                     format, version, generation, banks -> shards -> fields -> {file, shape}
    layer-03.base.key.g1.slab       layer, shard, field, generation

`memory.json` is the only commit: a write puts its slabs under names of a new generation, which nothing refers
to yet, then replaces `memory.json` in one rename, then removes the slabs that it no longer names. So a folder
shows the old memory or the new one, whenever the writer dies, and an opened MemoryDir goes on showing the
generation it opened. One writer at a time, any number of readers; opening writes nothing.

A slot's identity is (layer, shard, head, row). Records of slots (source text and offset, created, hits, tags
...) have their place in a database in this folder, keyed by that identity; slabs and `memory.json` need no
change for them. Does not know torch, nor what kinds and weight rules mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from mindset.atomic_file import TEMPORARY_SUFFIX, naming_a_full_disk, replacing
from mindset.errors import FormatError, MindsetError, MissingError, UsageError
from mindset.store.records import BankRecord, Rows, ShardRecord, slot_axes
from mindset.store.row_file import RowFile
from mindset.store.slab import Slab

__all__ = ["Damage", "MemoryDir"]

_MANIFEST = "memory.json"
_FORMAT = "mindset-memory"
_VERSION = 1
_GROWN_FILE = re.compile(
    r"(layer-\d+\.[a-z0-9_-]+\.[a-z_]+\.g(\d+)\.(?:grown|counts|pairs|queue)|slots\.g(\d+)\.sqlite(-wal|-shm)?)"
)
_SLAB_FILE = re.compile(r"layer-\d+\.[a-z0-9_-]+\.[a-z_]+\.g(\d+)\.slab")

_REMEDY = "copy the folder again from where it came from, or convert the model anew"

_Place = tuple[int, str, str]
"""Layer, shard, field."""


@dataclass(frozen=True)
class Damage:
    """One thing that `verify` found wrong."""

    file: str
    """The slab's file name."""
    rows: range | None
    """The rows it may be in; None if the file cannot be read as a slab at all."""
    message: str
    """What is wrong, in a sentence."""


class MemoryDir:
    """An open memory, read-only."""

    def __init__(
        self, folder: Path, generation: int, banks: tuple[BankRecord, ...], slabs: dict[_Place, Slab]
    ) -> None:
        """For `open`, which is how to get one."""
        self.folder = folder
        self.generation = generation
        self._banks = banks
        self._slabs = slabs

    @classmethod
    def write(cls, folder: Path, banks: Iterable[BankRecord]) -> MemoryDir:
        """Make `banks` the content of `folder`, all or nothing.

        They are taken one at a time, so a generator over a large model holds one layer only.
        """
        existed = folder.exists()
        with naming_a_full_disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
        generation = 1 + max(_generations(folder), default=0)
        try:
            entries = [_write_bank(folder, generation, bank) for bank in _distinct(banks)]
            manifest = {"format": _FORMAT, "version": _VERSION, "generation": generation, "banks": entries}
            with replacing(folder / _MANIFEST) as file:
                file.write(json.dumps(manifest, indent=1).encode())
        finally:
            _remove_unnamed(folder)
            if not existed and not any(folder.iterdir()):
                folder.rmdir()
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> MemoryDir:
        """Map the memory in `folder` for reading."""
        manifest = _read_manifest(folder)
        try:
            return cls._mapped(folder, manifest)
        except MissingError as error:
            # A writer may have published and removed between the two readings.
            newer = _read_manifest(folder)
            if newer == manifest:
                raise FormatError(f"{folder}: is incomplete: {error}") from error
            return cls._mapped(folder, newer)

    @classmethod
    def _mapped(cls, folder: Path, manifest: dict[str, Any]) -> MemoryDir:
        slabs: dict[_Place, Slab] = {}
        try:
            banks = tuple(_open_bank(folder, entry, slabs) for entry in manifest["banks"])
            return cls(folder, int(manifest["generation"]), tuple(_distinct(banks)), slabs)
        except (FormatError, MissingError):
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(
                f"{folder / _MANIFEST}: does not describe a memory ({error!r}); {_REMEDY}"
            ) from error

    def banks(self) -> list[BankRecord]:
        """All banks in the order of their writing; their arrays are the maps, nothing is copied."""
        return list(self._banks)

    def array(
        self, layer: int, shard: str, field: str, head: int | None = None, *, copy: bool = False
    ) -> Shaped[np.ndarray, "*shape"]:
        """Hand out a field's array in the shape it was written, or one head of it.

        By default a read-only map of the file. With `copy` a writable array in RAM, checked on the way.
        """
        bank, record = self._shard(layer, shard)
        slab = self._slab(layer, shard, field)
        shape = record.fields[field].array.shape
        array = (slab.load() if copy else slab.rows).reshape(shape)
        if head is None:
            return array
        if not 0 <= head < bank.heads:
            raise MissingError(
                f"{self.folder}: layer {layer} has no head {head}; it has {bank.heads}, from 0"
            )
        return array[head] if slot_axes(shape, bank.heads, record.n_slots) == 2 else array

    def rows(self, layer: int, shard: str, field: str) -> Shaped[np.ndarray, "n d"]:
        """A field's rows as they lie in its file, those of head 0 first: a read-only map."""
        return self._slab(layer, shard, field).rows

    def row_file(self, layer: int, shard: str, field: str) -> RowFile:
        """The same rows, to be read without a map."""
        return RowFile(self._slab(layer, shard, field))

    def dtype(self, layer: int, shard: str, field: str) -> str:
        """Name a field's dtype; only for `bfloat16` it differs from the array's own."""
        return self._slab(layer, shard, field).header.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all rows: what the memory takes in RAM."""
        return sum(slab.nbytes for slab in self._slabs.values())

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of all files, header pages and free rows included."""
        slabs = sum(slab.header.file_bytes for slab in self._slabs.values())
        return slabs + (self.folder / _MANIFEST).stat().st_size

    def verify(self) -> list[Damage]:
        """Read every byte of every slab and compare it with its checksum; an empty list means all is well."""
        return [damage for slab in self._slabs.values() for damage in _damage(slab)]

    def _shard(self, layer: int, shard: str) -> tuple[BankRecord, ShardRecord]:
        for bank in self._banks:
            for record in bank.shards:
                if (bank.layer, record.name) == (layer, shard):
                    return bank, record
        known = ", ".join(f"{bank.layer}/{record.name}" for bank in self._banks for record in bank.shards)
        raise MissingError(
            f"{self.folder}: layer {layer} has no shard {shard!r}; there are {known or 'none'}"
        )

    def _slab(self, layer: int, shard: str, field: str) -> Slab:
        _, record = self._shard(layer, shard)
        if field not in record.fields:
            raise MissingError(
                f"{self.folder}: layer {layer}, shard {shard!r} has no field {field!r}; "
                f"it has {', '.join(record.fields)}"
            )
        return self._slabs[layer, shard, field]


def _distinct(banks: Iterable[BankRecord]) -> Iterable[BankRecord]:
    seen: set[int] = set()
    for bank in banks:
        if bank.layer in seen:
            raise UsageError(f"layer {bank.layer} has two banks; give one with all its shards")
        seen.add(bank.layer)
        yield bank


def _slab_name(layer: int, shard: str, field: str) -> str:
    return f"layer-{layer:02d}.{shard}.{field}"


def _write_bank(folder: Path, generation: int, bank: BankRecord) -> dict[str, Any]:
    """Write a bank's slabs and return its entry in `memory.json`."""
    shards = [_write_shard(folder, generation, bank, shard) for shard in bank.shards]
    return {"layer": bank.layer, "kind": bank.kind, "heads": bank.heads, "shards": shards}


def _write_shard(folder: Path, generation: int, bank: BankRecord, shard: ShardRecord) -> dict[str, Any]:
    slabs = {}
    for field, rows in shard.fields.items():
        name = _slab_name(bank.layer, shard.name, field)
        file = f"{name}.g{generation}.slab"
        shape = rows.array.shape
        axes = slot_axes(shape, bank.heads, shard.n_slots) or 1
        flat = rows.array.reshape(bank.heads * shard.n_slots, *(shape[axes:] or (1,)))
        Slab.write(folder / file, flat, dtype=rows.dtype, name=name)
        slabs[field] = {"file": file, "shape": list(shape)}
    return {
        "name": shard.name,
        "weight": shard.weight,
        "gated": shard.gated,
        "n_slots": shard.n_slots,
        "slabs": slabs,
    }


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError(
            f"{folder}: holds no memory (there is no {_MANIFEST}); name a memory folder"
        ) from error
    except ValueError as error:
        raise FormatError(f"{path}: is damaged, it is not JSON ({error}); {_REMEDY}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise FormatError(f"{path}: is not the description of a memory; {_REMEDY}")
    if manifest.get("version") != _VERSION:
        raise FormatError(
            f"{path}: is a memory of version {manifest.get('version')}, this release reads version "
            f"{_VERSION}; install the mindset that wrote it"
        )
    return manifest


def _open_bank(folder: Path, entry: dict[str, Any], slabs: dict[_Place, Slab]) -> BankRecord:
    """Turn an entry of `memory.json` into a record over maps, and note its slabs in `slabs`."""
    layer, heads = int(entry["layer"]), int(entry["heads"])
    shards = tuple(_open_shard(folder, layer, shard, slabs) for shard in entry["shards"])
    return BankRecord(layer, str(entry["kind"]), heads, shards)


def _open_shard(folder: Path, layer: int, entry: dict[str, Any], slabs: dict[_Place, Slab]) -> ShardRecord:
    name = str(entry["name"])
    fields = {}
    for field, place in entry["slabs"].items():
        slab = _open_slab(folder, place["file"], _slab_name(layer, name, field))
        slabs[layer, name, field] = slab
        fields[field] = Rows(slab.rows.reshape(place["shape"]), slab.header.dtype)
    return ShardRecord(name, str(entry["weight"]), bool(entry["gated"]), int(entry["n_slots"]), fields)


def _open_slab(folder: Path, file: str, name: str) -> Slab:
    if not _SLAB_FILE.fullmatch(file):  # a folder from a stranger is not to point outside itself
        raise FormatError(
            f"{folder / _MANIFEST}: names a file {file!r}, which is no slab of a memory; {_REMEDY}"
        )
    slab = Slab.open(folder / file)
    if slab.header.name != name:
        raise FormatError(f"{slab.path}: holds {slab.header.name!r} in place of {name!r}; {_REMEDY}")
    return slab


def _damage(slab: Slab) -> list[Damage]:
    try:
        runs = slab.damage()
    except (MindsetError, OSError) as error:
        return [Damage(slab.path.name, None, str(error))]
    return [
        Damage(slab.path.name, rows, f"rows {rows.start}-{rows.stop - 1} differ from their checksum")
        for rows in runs
    ]


def _generations(folder: Path) -> list[int]:
    return [int(match[1]) for path in folder.iterdir() if (match := _SLAB_FILE.fullmatch(path.name))]


def _remove_unnamed(folder: Path) -> None:
    """Remove slabs and temporary files that `memory.json` does not name; none if it cannot be read."""
    generation = 0
    try:
        manifest = _read_manifest(folder)
        banks, generation = manifest["banks"], int(manifest["generation"])
        named = {
            place["file"] for bank in banks for shard in bank["shards"] for place in shard["slabs"].values()
        }
    except MissingError:
        named = set()
    except (FormatError, KeyError, TypeError, AttributeError):
        return
    for path in folder.iterdir():
        ours = _SLAB_FILE.fullmatch(path.name) or _is_temporary(path.name)
        if (ours and path.name not in named) or _is_of_another(path.name, generation):
            path.unlink(missing_ok=True)


def _is_of_another(name: str, generation: int) -> bool:
    """Whether a file holds edits of a generation that is gone."""
    match = _GROWN_FILE.fullmatch(name)
    return match is not None and int(match[2] or match[3]) != generation


def _is_temporary(name: str) -> bool:
    of_slab_or_manifest = name.startswith((".layer-", f".{_MANIFEST}"))
    return of_slab_or_manifest and name.endswith(TEMPORARY_SUFFIX)
