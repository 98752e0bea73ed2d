"""Overlays: sets of slots that are mounted on a memory together, and taken off it together.

An overlay is the shards of one name, one in each layer that it has slots in. Whether it is mounted is a mark on them;
mounting moves no slot and no number. Knows the records only: what a mounted overlay does to a model is `graft`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mindset.errors import MissingError, UsageError
from mindset.store.ledger import Ledger
from mindset.store.records import check_names
from mindset.store.scan import counts
from mindset.store.shard_info import OWN_SHARDS, ShardInfo

__all__ = ["MOUNTING", "Mounting", "Overlay", "check_overlay_name", "find_overlay", "list_overlays"]

MOUNTING = "overlay"
"""The kind that mountings have in the history."""


@dataclass(frozen=True)
class Overlay:
    """One overlay."""

    name: str
    mounted: bool
    layers: tuple[int, ...]
    """Layers that it has slots in."""
    slots: int
    """Living slots in all of them."""


def check_overlay_name(name: str) -> None:
    """Refuse what no overlay can be called."""
    if name in OWN_SHARDS:
        raise UsageError(f"an overlay cannot be called {name!r}; these are a bank's own slots")
    check_names(name, ())


def list_overlays(ledger: Ledger) -> list[Overlay]:
    """The overlays that have slots, in the order in which they were made."""
    by_name: dict[str, list[tuple[ShardInfo, int]]] = {}
    for one in sorted(counts(ledger), key=lambda one: one.shard.id):
        if one.shard.is_overlay and one.slots:
            by_name.setdefault(one.shard.name, []).append((one.shard, one.slots))
    return [_overlay(name, parts) for name, parts in by_name.items()]


def _overlay(name: str, parts: Sequence[tuple[ShardInfo, int]]) -> Overlay:
    layers = tuple(sorted(info.layer for info, _ in parts))
    return Overlay(name, all(info.mounted for info, _ in parts), layers, sum(count for _, count in parts))


class Mounting:
    """How the journal takes back that an overlay was mounted or taken off."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def undo(self, payload: dict[str, Any]) -> None:
        self.ledger.set_mounted(payload["name"], not payload["mounted"])

    def redo(self, payload: dict[str, Any]) -> None:
        self.ledger.set_mounted(payload["name"], payload["mounted"])

    def happened(self, payload: dict[str, Any]) -> bool:
        marks = [info.mounted for info in self.ledger.shards() if info.name == payload["name"]]
        return bool(marks) and all(mark == payload["mounted"] for mark in marks)

    def forget(self, payload: dict[str, Any]) -> None:
        """Nothing is kept for it."""


def find_overlay(ledger: Ledger, name: str) -> Overlay:
    """One overlay by its name."""
    found = list_overlays(ledger)
    for overlay in found:
        if overlay.name == name:
            return overlay
    names = ", ".join(overlay.name for overlay in found) or "none"
    raise MissingError(f"there is no overlay {name!r}; there are: {names}")
