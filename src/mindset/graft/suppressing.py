"""A model without some of its slots, while a block is open: what a deletion would make of it.

Invariant: afterwards every number is what it was, to the bit; within the block the model computes what it computes
once the slots are deleted and it is loaded anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from mindset.errors import MissingError
from mindset.graft.model import banks
from mindset.graft.radius import RadiusShard

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["suppressed"]

Place = tuple[int, str, int, int]
"""Layer, shard or overlay, head, row."""


@contextmanager
def suppressed(model: PreTrainedModel, places: Sequence[Place]) -> Iterator[None]:
    """Let the slots in these places add nothing and never be chosen."""
    with ExitStack() as stack:
        for layer, name, head, row in places:
            bank = banks(model).get(layer)
            shards = (
                {} if bank is None else {**bank.overlays, **bank.added, **cast("nn.ModuleDict", bank.shards)}
            )
            if name not in shards:
                raise MissingError(f"the model has no {name!r} in layer {layer}; is the overlay mounted?")
            stack.enter_context(_without(shards[name], head, row))
        yield


@contextmanager
def _without(shard: nn.Module, head: int, row: int) -> Iterator[None]:
    if isinstance(shard, RadiusShard):
        before = set(shard.muted)
        shard.muted = before | {row}
        try:
            yield
        finally:
            shard.muted = before
        return
    value = cast(Tensor, shard.value)
    at = (head, row) if value.ndim == 3 else (row,)
    changed = [(value, 0.0)]
    if getattr(shard, "rule", "") == "softmax":  # no value is not enough: it must get no weight either
        changed.append((cast(Tensor, shard.key_bias), -torch.inf))
    kept = [(tensor, tensor.detach()[at].clone()) for tensor, _ in changed]
    try:
        with torch.no_grad():
            for tensor, number in changed:
                tensor[at] = number
        yield
    finally:
        with torch.no_grad():
            for tensor, numbers in kept:
                tensor[at] = numbers
