"""A KV cache with room for all positions from the start.

transformers' dynamic cache writes every key and value once more for each new position: at 64 rows and 150 positions
that is a third of the time of a step. Here a new position is written into its place, and attention sees the part that
is filled. Layers that transformers keeps otherwise (sliding windows) stay as they are.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer

__all__ = ["roomy_cache"]


def roomy_cache(config: PreTrainedConfig, length: int) -> DynamicCache:
    """An empty cache for `length` positions of a model of this configuration."""
    cache = DynamicCache(config=config)
    cache.layers = [_RoomyLayer(length) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class _RoomyLayer(DynamicLayer):
    def __init__(self, length: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._length, self._filled = length, 0

    def update(
        self,
        key_states: Float[Tensor, "rows heads new d_head"],
        value_states: Float[Tensor, "rows heads new d_head"],
        *_: Any,
        **__: Any,
    ) -> tuple[Float[Tensor, "rows heads filled d_head"], Float[Tensor, "rows heads filled d_head"]]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._key_room, self._value_room = self._room(key_states), self._room(value_states)
        start, self._filled = self._filled, self._filled + key_states.shape[-2]
        self._key_room[..., start : self._filled, :] = key_states
        self._value_room[..., start : self._filled, :] = value_states
        self.keys = self._key_room[..., : self._filled, :]
        self.values = self._value_room[..., : self._filled, :]
        return self.keys, self.values

    def _room(self, like: Tensor) -> Tensor:
        return like.new_empty((*like.shape[:-2], self._length, like.shape[-1]))
