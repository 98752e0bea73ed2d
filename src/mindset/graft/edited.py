"""What edits make of a saved memory: the arrays and parts of the shards that are not as they were saved.

A memory nobody edited has no records, and costs nothing here; one whose edits are all undone is loaded as it was saved,
bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from mindset.store.layout import Layout, lay_out
from mindset.store.memory_dir import MemoryDir
from mindset.store.records import slot_axes
from mindset.store.slab_store import SlabStore

__all__ = ["Edited", "edited", "fit_buffers", "grow"]


@dataclass(frozen=True, eq=False)
class Edited:
    """One shard as edits left it."""

    layout: Layout
    fields: dict[str, Shaped[np.ndarray, "*axes"]]
    """In the shape that the bank has, dead slots zero; bfloat16 as uint16 bits."""


@contextmanager
def edited(memory: MemoryDir) -> Iterator[dict[tuple[int, str], Edited]]:
    """The edited shards by layer and name."""
    if not (memory.folder / f"slots.g{memory.generation}.sqlite").exists():
        yield {}
        return
    with SlabStore(memory.folder, read_only=True) as store:
        found = {}
        for info in store.shards():
            layout = lay_out(info, store.ledger.live(info.id))
            if info.mounted and info.sealed and not layout.untouched:
                shapes = {field: memory.array(info.layer, info.name, field).shape for field in info.fields}
                fields = {field: _array(store, layout, field, shape) for field, shape in shapes.items()}
                found[info.layer, info.name] = Edited(layout, fields)
        yield found


def grow(parts: list[dict[str, Any]], changed: dict[tuple[int, str], Edited]) -> list[dict[str, Any]]:
    """The parts with the capacities that the edited shards have now."""
    layers = {layer for layer, _ in changed}
    return [_grown_part(part, changed) if part.get("layer") in layers else part for part in parts]


def fit_buffers(state: dict[str, Tensor], before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    """Give what a proposer keeps of every slot, in `state`, the new number of rows."""
    for old, new in zip(before, after, strict=True):
        if old is new or "shards" not in old:
            continue
        sizes = [
            (o["name"], o["n_slots"], n["n_slots"]) for o, n in zip(old["shards"], new["shards"], strict=True)
        ]
        rms = f"{old['path']}.modulator_rms"
        pieces = state[rms].split([size for _, size, _ in sizes])
        state[rms] = torch.cat(
            [_longer(piece, now) for piece, (_, _, now) in zip(pieces, sizes, strict=True)]
        )
        for name, _, now in sizes:
            for low in ("key_low", "modulator_low"):
                path = f"{old['path']}.proxies.{name}.{low}"
                if path in state and len(state[path]):
                    state[path] = _longer(state[path], now)


def _longer(rows: Tensor, count: int) -> Tensor:
    """New slots get the mean; in a proxy nothing, so that they are not proposed until it is fitted again."""
    filler = rows.mean(dim=0, keepdim=True) if rows.ndim == 1 else torch.zeros_like(rows[:1])
    return torch.cat([rows, filler.expand(count - len(rows), *rows.shape[1:])])


def _grown_part(part: dict[str, Any], changed: dict[tuple[int, str], Edited]) -> dict[str, Any]:
    sizes = {name: one.layout.capacity for (layer, name), one in changed.items() if layer == part["layer"]}
    if "shards" not in part:
        return part | {"n_slots": max(sizes.values())}
    return part | {"shards": [s | {"n_slots": sizes.get(s["name"], s["n_slots"])} for s in part["shards"]]}


def _array(
    store: SlabStore, layout: Layout, field: str, shape: tuple[int, ...]
) -> Shaped[np.ndarray, "*axes"]:
    """In the axes of `shape`, which counts slots by head or not, and numbers of a row or not."""
    array, heads = layout.array(store.vectors, field), layout.shard.heads
    if field == "value" and not (layout.weights == 1).all():
        array = _weighted(array, layout, layout.shard.fields[field]["dtype"])
    if field == "key_bias" and layout.shard.rule == "softmax":
        array = _never_chosen(array, layout)
    axes = slot_axes(shape, heads, layout.shard.sealed // heads)
    array = array[0] if axes == 1 else array
    return array[..., 0] if len(shape) == axes else array


def _never_chosen(array: np.ndarray, layout: Layout) -> np.ndarray:
    """Scores of empty places that a softmax gives no weight to; elsewhere a value of zero is enough."""
    if array.dtype == np.uint16:
        return np.where((layout.rows < 0)[..., None], np.uint16(0xFF80), array)  # -inf in bfloat16
    return np.where((layout.rows < 0)[..., None], array.dtype.type(-np.inf), array)


def _weighted(array: np.ndarray, layout: Layout, dtype: str) -> np.ndarray:
    weights = torch.from_numpy(layout.weights)[..., None]
    rows = torch.from_numpy(array)
    if dtype == "bfloat16":
        return (rows.view(torch.bfloat16) * weights.bfloat16()).view(torch.uint16).numpy()
    return (rows * weights.to(rows.dtype)).numpy()
