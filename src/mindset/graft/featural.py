"""A featural bank: query projection, top-k slots per head, weighted sum of values, output projection.

Weights (`weight`): `relu`, `gelu`, `silu` of the scaled score, which do not compete; `distance`, a Gaussian of the
distance between query and key; `softmax` over the k best scores. Queries are layer-normalised per head (batch
statistics would look into the future). For `softmax` the score picks the k, otherwise the influence does.

Shapes follow a mirror bank's, with a leading head axis: keys `[n_heads, n_slots, d_key]`, values
`[n_heads, n_slots, d_value]`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindset.graft.bank import Bank, top_mask
from mindset.graft.shard import RULES, activation_of

__all__ = ["FeaturalBank", "HeadRows"]


class HeadRows(nn.Module):
    """The slots of all heads: key, value and a per-slot offset of the score."""

    def __init__(self, n_heads: int, n_slots: int, d_key: int, d_value: int, rule: str) -> None:
        super().__init__()
        self.rule = rule
        self.key = nn.Parameter(torch.empty(n_heads, n_slots, d_key))
        self.value = nn.Parameter(torch.empty(n_heads, n_slots, d_value))
        self.key_bias = nn.Parameter(torch.zeros(n_heads, n_slots))

    @property
    def n_slots(self) -> int:
        return int(self.key.shape[1])

    @property
    def gated(self) -> bool:
        return False


class FeaturalBank(Bank):
    """Slots from a random start, read by similarity of a projected query."""

    kind = "featural"

    def __init__(
        self,
        layer: int,
        d_model: int,
        *,
        n_slots: int,
        n_heads: int = 1,
        d_key: int | None = None,
        weight: str = "relu",
        k: int | None = None,
        skip: nn.Module | None = None,
    ) -> None:
        super().__init__(layer, d_model, None, skip)
        self.weight = weight
        self.d_key = d_key or max(8, d_model // n_heads)
        self.query = nn.Linear(d_model, n_heads * self.d_key, bias=False)
        self.query_norm = nn.LayerNorm(self.d_key, elementwise_affine=False)
        self.shards = nn.ModuleDict({"base": HeadRows(n_heads, n_slots, self.d_key, self.d_key, weight)})
        self.output = nn.Linear(n_heads * self.d_key, d_model)
        self.width = nn.Parameter(torch.zeros(n_heads))
        self.set_k(k)

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draw the random start: unit keys, small values, so that the bank begins near zero."""
        rows, d = self.rows, self.d_key
        rows.key.copy_(F.normalize(torch.randn(rows.key.shape, generator=generator), dim=-1))
        rows.value.copy_(torch.randn(rows.value.shape, generator=generator) * 0.02)
        rows.key_bias.zero_()
        self.query.weight.copy_(torch.randn(self.query.weight.shape, generator=generator) / self.d_model**0.5)
        bound = self.output.weight.shape[1] ** -0.5
        self.output.weight.copy_(torch.randn(self.output.weight.shape, generator=generator) * bound)
        self.output.bias.zero_()
        self.width.fill_(0.5 * torch.tensor(2.0 * d).log())

    @property
    def rows(self) -> HeadRows:
        module = self.shards["base"]
        assert isinstance(module, HeadRows)  # noqa: S101  narrows the type: ModuleDict forgets it
        return module

    @property
    def n_slots(self) -> int:
        return self.rows.n_slots

    @property
    def n_heads(self) -> int:
        return int(self.rows.key.shape[0])

    def output_bias(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens d_model"]:
        return self.output.bias.expand_as(x)

    def queries(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "n_heads tokens d_key"]:
        """One normalised query per head."""
        heads = self.query(x).view(x.shape[0], self.n_heads, self.d_key)
        return cast(Tensor, self.query_norm(heads).transpose(0, 1))

    def weights(self, q: Float[Tensor, "n_heads tokens d_key"]) -> Float[Tensor, "n_heads tokens n_slots"]:
        """Weights of all slots; for `softmax`, scores that are still to be normalised over the chosen."""
        rows = self.rows
        score = q @ rows.key.transpose(1, 2) + rows.key_bias[:, None]
        if self.weight in RULES:
            return cast(Tensor, activation_of(self.weight)(score))
        if self.weight == "softmax":
            return score
        square = q.square().sum(-1, keepdim=True) + rows.key.square().sum(-1)[:, None] - 2 * score
        return torch.exp(-square.clamp_min(0) * torch.exp(-2 * self.width)[:, None, None])

    def read(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens d_model"]:
        weights = self.weights(self.queries(x))
        if self.weight == "softmax":
            mask = None if self.k is None else self._mask(weights)
            scores = weights if mask is None else weights.masked_fill(~mask, -torch.inf)
            read = scores.softmax(-1)
        else:
            norm = self.rows.value.detach().norm(dim=-1)[:, None]
            mask = None if self.k is None else self._mask(weights.abs() * norm)
            read = weights if mask is None else weights * mask
        self._count(read.transpose(0, 1).flatten(1))
        mixed = (read @ self.rows.value).transpose(0, 1).reshape(x.shape[0], -1)
        out = cast(Tensor, self.output(mixed))
        self._tell(x, read.transpose(0, 1), out)
        return out

    def _mask(self, influence: Tensor) -> Tensor:
        flat = influence.detach().reshape(-1, self.n_slots)
        return top_mask(flat, self.effective_k()).view_as(influence)

    def describe(self) -> dict[str, Any]:
        return {
            "n_slots": self.n_slots,
            "n_heads": self.n_heads,
            "d_key": self.d_key,
            "weight": self.weight,
        }
