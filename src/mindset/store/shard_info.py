"""A shard of a bank as its record says it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

__all__ = ["OWN_SHARDS", "RADIUS", "ShardInfo", "shard_info"]

OWN_SHARDS = ("base", "new")
"""Names of the shards that a bank has of its own; every other name is an overlay's."""
RADIUS = "radius"
"""Kind and rule of a shard whose slots answer only within a distance of their key."""


@dataclass(frozen=True)
class ShardInfo:
    """One shard of a bank."""

    id: int
    layer: int
    name: str
    """`base`, `new` or the overlay's name."""
    kind: str
    """How it is read: as its bank is, `mirror`, `featural`, `associative`, or `radius`."""
    heads: int
    rule: str
    """What turns a score into a weight, such as `silu`, `relu`, `radius`."""
    gated: bool
    fields: dict[str, dict[str, Any]]
    """By name: `dtype`, and `d`, the numbers of a row."""
    sealed: int
    """Rows that came with the model, never overwritten."""
    top: int
    """Rows ever used."""
    mounted: bool

    @property
    def is_overlay(self) -> bool:
        """Whether it can be mounted and taken off."""
        return self.name not in OWN_SHARDS


def shard_info(row: Any) -> ShardInfo:
    """A row of `shards`."""
    return ShardInfo(
        row["id"], row["layer"], row["name"], row["kind"], row["heads"], row["rule"], bool(row["gated"]),
        json.loads(row["fields"]), row["sealed"], row["top"], bool(row["mounted"]),
    )  # fmt: skip
