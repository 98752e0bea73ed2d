"""Overlays of a memory folder in a model: put in where they are mounted, taken off again exactly.

A mounted overlay lies beside its banks, not in them: neither weights nor shapes of the model change, so a model whose
overlays are taken off is the model that never had any. Knows the store; does not know what slots say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from mindset.errors import FormatError, MissingError
from mindset.graft.added import AddedShard
from mindset.graft.leaning import Leaning
from mindset.graft.model import banks
from mindset.graft.radius import RadiusShard
from mindset.graft.shard import RULES
from mindset.graft.trail import Trail
from mindset.store.layout import Layout, lay_out
from mindset.store.memory_dir import MemoryDir
from mindset.store.shard_info import RADIUS, ShardInfo
from mindset.store.slab_store import SlabStore
from mindset.store.store import Store

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["follow", "mount", "mount_all", "mounted", "unmount", "without_overlays"]


def mount_all(model: PreTrainedModel, memory: MemoryDir) -> None:
    """Put in every overlay that is mounted in the folder `memory`, in the order in which they were made."""
    if not (memory.folder / f"slots.g{memory.generation}.sqlite").exists():
        return
    with SlabStore(memory.folder, read_only=True) as store:
        for info in sorted(store.shards(), key=lambda info: info.id):
            if info.is_overlay and info.mounted:
                _put_in(model, store, info)


def mount(model: PreTrainedModel, store: Store, name: str) -> None:
    """Put an overlay of `store` into `model` as it is now, above those that are there."""
    parts = [info for info in store.shards() if info.is_overlay and info.name == name]
    if not parts:
        raise MissingError(f"there is no overlay {name!r} in {store.place}")
    unmount(model, name)
    for info in parts:
        _put_in(model, store, info)


def unmount(model: PreTrainedModel, name: str) -> None:
    """Take an overlay off; nothing happens if it is not there."""
    for bank in banks(model).values():
        bank.unmount(name)
    follow(model)


def mounted(model: PreTrainedModel) -> list[str]:
    """Names of the overlays in a model, in the order of mounting."""
    return list(
        dict.fromkeys(name for bank in banks(model).values() for name in (*bank.added, *bank.overlays))
    )


@contextmanager
def without_overlays(model: PreTrainedModel) -> Iterator[None]:
    """The model without any overlay while the block is open."""
    held = {bank: bank.added | bank.overlays for bank in banks(model).values()}
    try:
        for name in mounted(model):
            unmount(model, name)
        yield
    finally:
        for bank, overlays in held.items():
            for name, shard in overlays.items():
                bank.mount(name, shard)
        follow(model)


def follow(model: PreTrainedModel) -> None:
    """Keep marks if some slot leaves or awaits one, and not otherwise."""
    all_banks = list(banks(model).values())
    trail = next((bank.trail for bank in all_banks if bank.trail is not None), None)
    shards = [shard for bank in all_banks for shard in bank.overlays.values()]
    if trail is None and any(shard.needs_trail for shard in shards):
        trail = Trail(model.base_model)
        trail.leaning = Leaning(model, all_banks, trail)
    elif trail is not None and not any(shard.needs_trail for shard in shards):
        trail.stop()
        trail = None
    for bank in all_banks:
        bank.trail = trail


def _put_in(model: PreTrainedModel, store: Store, info: ShardInfo) -> None:
    bank = banks(model).get(info.layer)
    if bank is None or info.rule not in (RADIUS, *RULES):
        raise FormatError(
            f"overlay {info.name!r} has slots of rule {info.rule!r} for layer {info.layer}, which this model "
            "has no place for"
        )
    layout = lay_out(info, store.live(info.layer, info.name))
    if not layout.capacity:
        return
    rows = {field: torch.from_numpy(layout.array(store.vectors, field)[0]) for field in info.fields}
    like = next(bank.parameters())
    radius = info.rule == RADIUS
    shard = _radius_shard(layout, rows, like) if radius else _added_shard(layout, rows, like, info.rule)
    bank.mount(info.name, shard)
    follow(model)


def _radius_shard(layout: Layout, rows: dict[str, torch.Tensor], like: torch.Tensor) -> RadiusShard:
    key, bias = (rows[field].to(like.device, torch.float32) for field in ("key", "key_bias"))
    scale = rows["scale"].to(like.device) if "scale" in rows else None
    if scale is not None:
        key = key * scale[:, :1]
    value = None
    if "value" in rows:
        value = rows["value"].to(like) * _weights(layout, like)
        if scale is not None:
            value = value * scale[:, 1:].to(like)
    others: dict[str, torch.Tensor] = {
        name: rows[name][:, 0].to(like.device)
        for name in ("mark", "after", "until", "token", "lean")
        if name in rows
    }
    if "spelled" in rows:
        others["spelled"] = rows["spelled"].to(like.device).view(len(key), 2, -1)
    shard = RadiusShard(key, bias[:, 0], value, **others)
    shard.muted = set(np.flatnonzero(layout.rows[0] < 0).tolist())
    return shard


def _added_shard(layout: Layout, rows: dict[str, torch.Tensor], like: torch.Tensor, rule: str) -> AddedShard:
    key, bias, modulator, value = (rows[name].to(like) for name in ("key", "key_bias", "modulator", "value"))
    return AddedShard(key, bias[:, 0], modulator, value * _weights(layout, like), rule)


def _weights(layout: Layout, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(layout.weights[0])).to(like)[:, None]
