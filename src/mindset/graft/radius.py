"""Radius slots: slots that answer only within a distance of their key. How a fact is written.

A token fires a slot if `key . x + key_bias > 0`: for inputs that a norm has given one length this is a ball around the
key. Keys and biases are scaled so that the number is 1 at the middle of what the slot was made for and 0 at the
border; of several slots that fire the nearest answers, alone, and its value is added to what the bank read.

Invariant: where none fires nothing is computed with the bank's output, which so stays the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mindset.errors import UsageError

__all__ = ["Answer", "Listener", "RadiusShard"]


@dataclass(frozen=True)
class Answer:
    """Slots of one overlay that answered in one pass through a bank."""

    layer: int
    overlay: str
    tokens: Int[Tensor, " answers"]
    """Places of the tokens that they answered, counted over the whole batch."""
    slots: Int[Tensor, " answers"]
    """The slot that answered each."""
    margins: Float[Tensor, " answers"]
    """How near: 0 at the border, about 1 in the middle."""


Listener = Callable[[Answer], None]


class RadiusShard(nn.Module):
    """One layer's slots of an overlay. They are no parameters: neither saved with the model nor trained with it."""

    key: Tensor
    key_bias: Tensor
    value: Tensor

    def __init__(
        self,
        key: Float[Tensor, "n_slots d_model"],
        key_bias: Float[Tensor, " n_slots"],
        value: Float[Tensor, "n_slots d_model"],
    ) -> None:
        super().__init__()
        if not len(key) == len(key_bias) == len(value):
            raise UsageError(
                f"{len(key)} keys, {len(key_bias)} biases and {len(value)} values; give one each"
            )
        for name, rows in (("key", key), ("key_bias", key_bias), ("value", value)):
            self.register_buffer(name, rows, persistent=False)
        self.muted: set[int] = set()
        """Slots that do not answer, though they are there."""

    @property
    def n_slots(self) -> int:
        return int(self.key.shape[0])

    def nearest(
        self, x: Float[Tensor, "tokens d_model"]
    ) -> tuple[Float[Tensor, " tokens"], Int[Tensor, " tokens"]]:
        """The margin of the nearest slot of every token, not above 0 where none fires; and which it is."""
        margins = F.linear(x.to(self.key.dtype), self.key, self.key_bias)
        if self.muted:
            margins[:, sorted(self.muted)] = -torch.inf
        best = margins.max(dim=-1)
        return best.values, best.indices
