"""A shard: rows of slots that are scored by one matrix product.

A slot has a key, optionally a modulator, and a value; its weight is `act(key . x + key_bias)`, times
`modulator . x + modulator_bias` where there is one. The shard knows neither which slots are read nor how many.

Invariant: the activation is a module without parameters, so a shard's state is exactly its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from mindset.errors import UsageError
from mindset.graft.families import FeedForward

__all__ = ["RULES", "Shard", "activation_of"]

FIELDS = ("key", "key_bias", "modulator", "modulator_bias", "value")

RULES = ("relu", "gelu", "silu")
"""Activation rules that a new slot may be given; a mirrored slot has its family's own (`family`)."""


def activation_of(rule: str) -> nn.Module:
    """The activation module of a rule's name."""
    if rule not in RULES:
        raise UsageError(f"'{rule}' is no activation rule for a slot; allowed: {', '.join(RULES)}")
    return cast(nn.Module, ACT2FN[rule])


class Shard(nn.Module):
    """Slots that share an activation rule: `key`, `value` and optional biases and `modulator` as rows."""

    key: nn.Parameter
    value: nn.Parameter
    key_bias: nn.Parameter | None
    modulator: nn.Parameter | None
    modulator_bias: nn.Parameter | None

    def __init__(self, rows: FeedForward, activation: nn.Module, rule: str) -> None:
        super().__init__()
        for field in FIELDS:
            tensor = cast("Tensor | None", getattr(rows, field))
            parameter = None if tensor is None else nn.Parameter(tensor.detach().clone().contiguous())
            self.register_parameter(field, parameter)
        self.activation = activation
        self.rule = rule
        self.multiply: Callable[..., Tensor] = F.linear
        """Who multiplies the rows that are scored: see `few_rows` and `bounded`."""
        self.combine: Callable[[Tensor, Tensor], Tensor] = torch.matmul
        """Who sums values by their weights: see `bounded`."""
        self.fetch: Callable[[Tensor, Tensor], Tensor] | None = None
        """Who fetches chosen rows, where that is not indexing: see `bounded`."""
        self._norm: tuple[tuple[int, int], Tensor] | None = None

    def _apply(self, *args: Any, **kwargs: Any) -> Shard:
        """Moves and casts may put other numbers at the address that `_norm` was measured at."""
        self._norm = None
        return cast(Shard, super()._apply(*args, **kwargs))  # type: ignore[no-untyped-call]

    @property
    def n_slots(self) -> int:
        return int(self.key.shape[0])

    def rows(self) -> list[dict[str, Any]]:
        """The live dictionaries of all rows by name, None where the shard has no such field, and of the activation."""
        return [self._parameters, self._modules]

    @property
    def gated(self) -> bool:
        return self.modulator is not None

    def gates(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens n_slots"]:
        """What the keys alone say: `act(key . x + key_bias)`."""
        return cast(Tensor, self.activation(self.multiply(x, self.key, self.key_bias)))

    def modulations(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens n_slots"] | None:
        """`modulator . x + modulator_bias`, or None for an ungated shard."""
        return None if self.modulator is None else self.multiply(x, self.modulator, self.modulator_bias)

    def weights(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens n_slots"]:
        """Every slot's weight."""
        gates, modulations = self.gates(x), self.modulations(x)
        return gates if modulations is None else gates * modulations

    def weights_at(
        self,
        x: Float[Tensor, "tokens d_model"],
        slots: Int[Tensor, "tokens candidates"],
        gates: Float[Tensor, "tokens candidates"] | None = None,
    ) -> Float[Tensor, "tokens candidates"]:
        """The weights of chosen slots only; fetches no other row. `gates`, where known, are not computed again."""
        if gates is None:
            gates = cast(Tensor, self.activation(self._dots(x, self.key, self.key_bias, slots)))
        if self.modulator is None:
            return gates
        return gates * self._dots(x, self.modulator, self.modulator_bias, slots)

    def sum_values(
        self, slots: Int[Tensor, "tokens k"], weights: Float[Tensor, "tokens k"]
    ) -> Float[Tensor, "tokens d_model"]:
        """The values of chosen slots by their weights; fetches no other row."""
        if self.fetch is None:
            return F.embedding_bag(slots, self.value, per_sample_weights=weights, mode="sum")
        return (weights.unsqueeze(1) @ self.fetch(self.value, slots)).squeeze(1)

    def value_norm(self) -> Float[Tensor, " n_slots"]:
        """The length of every value, kept until a value changes (never while training: every step changes them)."""
        value = self.value
        if self.training or value.is_inference():
            return cast(Tensor, value.detach().norm(dim=-1))
        stamp = (value._version, value.data_ptr())  # noqa: SLF001  torch has no public name for it
        if self._norm is None or self._norm[0] != stamp:
            self._norm = (stamp, value.detach().norm(dim=-1))
        return self._norm[1]

    def keep_norm(self, norm: Float[Tensor, " n_slots"]) -> None:
        """Take the length of every value from somebody who has measured it."""
        self._norm = ((self.value._version, self.value.data_ptr()), norm)  # noqa: SLF001

    def _dots(
        self,
        x: Float[Tensor, "tokens d_model"],
        rows: Float[Tensor, "n_slots d_model"],
        biases: Float[Tensor, " n_slots"] | None,
        slots: Int[Tensor, "tokens candidates"],
    ) -> Float[Tensor, "tokens candidates"]:
        """`rows[slots] . x + biases[slots]` per token, fetching the chosen rows only."""
        fetch = self.fetch or _indexed
        if x.shape[0] == 1:  # one matrix-vector product over a gathered copy
            dots = F.linear(x, fetch(rows, slots[0]))
        else:
            dots = torch.einsum("tcd,td->tc", fetch(rows, slots), x)
        return dots if biases is None else dots + fetch(biases, slots)


def _indexed(rows: Tensor, slots: Tensor) -> Tensor:
    return rows.index_select(0, slots) if slots.ndim == 1 else rows[slots]
