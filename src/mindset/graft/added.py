"""Added slots: an overlay's slots that are read at every token, beside the bank and outside its k.

How a body of text is written into a memory: few slots in many layers, each `act(key . x + bias) * (modulator . x)`
strong. They are no parameters: neither saved with the model nor trained with it unless somebody asks for their
gradients. Invariant: a bank without any runs the instructions that it runs without this file.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindset.errors import UsageError
from mindset.graft.shard import activation_of

__all__ = ["AddedShard"]


class AddedShard(nn.Module):
    """One layer's slots of an overlay."""

    key: Tensor
    key_bias: Tensor
    modulator: Tensor
    value: Tensor

    def __init__(
        self,
        key: Float[Tensor, "n_slots d_model"],
        key_bias: Float[Tensor, " n_slots"],
        modulator: Float[Tensor, "n_slots d_model"],
        value: Float[Tensor, "n_slots d_model"],
        rule: str = "silu",
    ) -> None:
        super().__init__()
        fields = {"key": key, "key_bias": key_bias, "modulator": modulator, "value": value}
        if len({len(rows) for rows in fields.values()}) > 1:
            told = ", ".join(f"{len(rows)} of {name}" for name, rows in fields.items())
            raise UsageError(f"{told}: give one of each for every slot")
        for name, rows in fields.items():
            self.register_buffer(name, rows, persistent=False)
        self.rule = rule
        self.activation = activation_of(rule)

    @property
    def n_slots(self) -> int:
        return int(self.key.shape[0])

    def weights(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens n_slots"]:
        """How strongly each slot speaks."""
        x = x.to(self.key.dtype)
        gates = cast(Tensor, self.activation(F.linear(x, self.key, self.key_bias)))
        return gates * F.linear(x, self.modulator)

    def forward(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens d_model"]:
        """What they add to the bank's output."""
        return (self.weights(x) @ self.value).to(x.dtype)

    def trainable(self) -> list[torch.Tensor]:
        """Its arrays, from now on with gradients."""
        return [rows.requires_grad_() for rows in (self.key, self.key_bias, self.modulator, self.value)]
