"""Small mirror banks in float64 with drawn rows, and inputs for them."""

from __future__ import annotations

import torch
from torch import Tensor

from mindset.graft.bank import MirrorBank
from mindset.graft.families import FeedForward
from mindset.graft.propose import ProposerSpec
from mindset.graft.shard import Shard, activation_of


def make_rows(n_slots: int, d_model: int, *, gated: bool, bias: bool, seed: int) -> FeedForward:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return FeedForward(
        key=draw(n_slots, d_model),
        value=draw(n_slots, d_model),
        key_bias=draw(n_slots) if bias else None,
        modulator=draw(n_slots, d_model) if gated else None,
        modulator_bias=draw(n_slots) if gated and bias else None,
        bias=draw(d_model) if bias else None,
    )


def make_bank(
    n_base: int,
    n_new: int,
    d_model: int,
    *,
    gated: bool = True,
    bias: bool = True,
    rule: str = "silu",
    k: int | None = None,
    propose: ProposerSpec | None = None,
    seed: int = 0,
) -> MirrorBank:
    """A mirror bank in float64; new slots, where there are any, are ungated ReLU beside gated SiLU."""
    base = make_rows(n_base, d_model, gated=gated, bias=bias, seed=seed)
    shards = {"base": Shard(base, activation_of(rule), "family")}
    if n_new:
        rows = make_rows(n_new, d_model, gated=False, bias=bias, seed=seed + 1)
        shards["new"] = Shard(rows, activation_of("relu"), "relu")
    bank = MirrorBank(0, shards, base.bias, k=k, propose=propose)
    return bank.double().eval()


def make_x(n_tokens: int, d_model: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 99)
    return torch.randn(n_tokens, d_model, dtype=torch.float64, generator=generator).requires_grad_()
