"""A bank and its shards as plain data: what is written to a memory folder and what is read back from it.

A field's array is `[n_slots]` or `[n_slots, d]`, in a bank of several heads `[n_heads, n_slots]` or
`[n_heads, n_slots, d]` (one head may have the axis or not). Row i of every field of a shard belongs to one
slot. Does not know files, nor what an activation rule computes. Invariant: a record that exists is
consistent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from mindset.errors import UsageError
from mindset.store.slab import storage_of

__all__ = ["BankRecord", "Rows", "ShardRecord", "check_names", "slot_axes"]

_FIELD_NAME = re.compile(r"[a-z_]{1,32}")
_SHARD_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, eq=False)
class Rows:
    """One field of all slots of a shard."""

    array: Shaped[np.ndarray, "*shape"]
    """Its numbers, bfloat16 as uint16 bits."""
    dtype: str
    """What the numbers are, a key of `mindset.store.STORAGE`."""

    def __post_init__(self) -> None:
        storage_of(self.array, self.dtype)


@dataclass(frozen=True, eq=False)
class ShardRecord:
    """Slots that are mounted together: a bank's base, its new slots, or one overlay's part in it."""

    name: str
    """`base`, `new` or the overlay's name: lower-case letters, digits, `-` and `_`, at most 64."""
    weight: str
    """The rule that turns a score into a slot's weight, such as `silu`."""
    gated: bool
    """Whether a weight is also multiplied by the modulator's score."""
    n_slots: int
    """Slots in each head."""
    fields: Mapping[str, Rows]
    """By name (`[a-z_]+`): `key`, `value`, if gated `modulator`, and any other that the weight rule reads."""

    def __post_init__(self) -> None:
        check_names(self.name, self.fields)
        if self.n_slots < 0:
            raise UsageError(f"shard {self.name!r}: {self.n_slots} slots; give 0 or more")
        needed = {"key", "value"} | ({"modulator"} if self.gated else set())
        if missing := sorted(needed - self.fields.keys()):
            raise UsageError(
                f"shard {self.name!r}: has no {' and no '.join(missing)}; give an array for each"
            )


@dataclass(frozen=True, eq=False)
class BankRecord:
    """All slots of one layer."""

    layer: int
    """Index of the layer in the model, from 0."""
    kind: str
    """How the bank is read: `mirror`, `featural`, `associative`."""
    heads: int
    """Heads, at least 1; mirror banks have one."""
    shards: tuple[ShardRecord, ...]
    """The base first, then overlays in the order they were mounted."""

    def __post_init__(self) -> None:
        if self.layer < 0 or self.heads < 1:
            raise UsageError(
                f"bank of layer {self.layer} with {self.heads} heads; layers count from 0, heads from 1"
            )
        names = [shard.name for shard in self.shards]
        if len(set(names)) < len(names):
            raise UsageError(f"bank of layer {self.layer}: shards {names}; give each its own name")
        for shard in self.shards:
            for field, rows in shard.fields.items():
                self._check_shape(shard, field, rows.array.shape)

    def _check_shape(self, shard: ShardRecord, field: str, shape: tuple[int, ...]) -> None:
        if slot_axes(shape, self.heads, shard.n_slots) is None:
            slots = f"{self.heads}, {shard.n_slots}" if self.heads > 1 else f"{shard.n_slots}"
            raise UsageError(
                f"layer {self.layer}, shard {shard.name!r}, field {field!r}: shape {list(shape)} for "
                f"{self.heads} head(s) of {shard.n_slots} slots; "
                f"give [{slots}] or [{slots}, d] with d at least 1"
            )


def check_names(shard: str, fields: Iterable[str]) -> None:
    """Refuse names that could not be part of a file's."""
    if not _SHARD_NAME.fullmatch(shard):
        raise UsageError(f"shard name {shard!r}: use 1-64 lower-case letters, digits, '-' and '_'")
    for field in fields:
        if not _FIELD_NAME.fullmatch(field):
            raise UsageError(f"shard {shard!r}: field name {field!r}; use 1-32 of a-z and '_'")


def slot_axes(shape: tuple[int, ...], heads: int, n_slots: int) -> int | None:
    """How many leading axes of `shape` count slots: 1, or 2 with a head axis; None if it does not fit."""
    for leading in ((n_slots,), (heads, n_slots)) if heads == 1 else ((heads, n_slots),):
        row = shape[len(leading) :]
        if shape[: len(leading)] == leading and len(row) <= 1 and 0 not in row:
            return len(leading)
    return None
