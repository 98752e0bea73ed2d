"""How much each slot of a bank can say: the values as they reach the residual stream, and where a slot lies.

A slot's influence on a token is abs(weight) times the length of its value as the bank adds it; a featural or
associative value goes through its head's part of the output projection first. Knows no tokens.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mindset.graft.bank import Bank, MirrorBank
from mindset.graft.shard import Shard

__all__ = ["located", "residual_norms", "residual_values"]


def residual_values(bank: Bank) -> Float[Tensor, "n_heads n_slots d_model"]:
    """The value of every slot as its bank adds it to its output, per unit of weight."""
    shards = [cast(Tensor, shard.value) for shard in cast(nn.ModuleDict, bank.shards).values()]
    if isinstance(bank, MirrorBank):
        return torch.cat(shards).detach()[None]
    (value,) = shards
    weight = cast(nn.Linear, bank.output).weight.view(bank.d_model, bank.n_heads, -1)
    return torch.einsum("hsv,dhv->hsd", value, weight).detach()


def residual_norms(bank: Bank) -> Float[Tensor, "n_heads n_slots"]:
    """What an absolute weight is multiplied by to give the influence of its slot."""
    if isinstance(bank, MirrorBank):  # which keeps them, and need not have its values in RAM
        norms = [cast(Shard, shard).value_norm() for shard in bank.shards.values()]
        return torch.cat(norms).float()[None]
    return cast(Tensor, residual_values(bank).float().norm(dim=-1))


def located(bank: Bank, row: int) -> tuple[str, int]:
    """Shard and row in it of a slot that is counted over all shards of a bank."""
    for name, shard in cast(nn.ModuleDict, bank.shards).items():
        n_slots = int(cast(Any, shard).n_slots)
        if row < n_slots:
            return name, row
        row -= n_slots
    raise IndexError(row)
