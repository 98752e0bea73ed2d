"""Dead slots: rows that no token read are moved to where the error is.

A dead slot of a featural or mirror bank takes the direction of an input whose output was least explained as its key
and a share of what was missing as its value (the neuron resampling of Bricken et al. 2023, in place of a loss term).
Slots moved to inputs that are alike overshoot together; so the share, one for a bank, is what leaves the least error on
the batch. Slots of a mirror bank's base shard are left alone: they are the teacher's own and may be needed by text not
seen yet.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mindset.graft.bank import Bank, MirrorBank
from mindset.graft.featural import FeaturalBank
from mindset.graft.model import banks
from mindset.graft.shard import Shard
from mindset.probe.tap import tap_blocks, tap_states

__all__ = ["revive"]

_SHARES = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05)
"""What a revived slot may add at its input, as a share of the missing output; never nothing, or it is not read."""
_LEAST = 0.05
"""Smallest weight that is divided by."""


@torch.no_grad()
def revive(student: nn.Module, tokens: Tensor, teacher: Any) -> int:
    """Move the dead slots of every bank; returns how many moved."""
    held = {layer: bank for layer, bank in banks(student).items() if _dead(bank) is not None}
    if not held:
        return 0
    with tap_blocks(teacher, tuple(held)) as passes, tap_states(teacher):
        teacher(tokens, use_cache=False)
    return sum(_revive_bank(bank, *passes[layer].both()) for layer, bank in held.items())


def _dead(bank: Bank) -> tuple[Tensor, int] | None:
    """Rows that were not read, and where the rows that may be moved start; None where none may."""
    counter = cast(Tensor, bank.counter)
    if isinstance(bank, MirrorBank) and "new" in bank.shards:
        start = cast(Any, bank.shards["base"]).n_slots
        return (counter[start:] == 0).nonzero()[:, 0], start
    if isinstance(bank, FeaturalBank):
        return (counter == 0).nonzero()[:, 0], 0
    return None


def _revive_bank(bank: Bank, x: Tensor, y: Tensor) -> int:
    found = _dead(bank)
    if found is None:
        return 0
    dead = found[0][: len(x)]
    if not len(dead):
        return 0
    was_training, counter = bank.training, bank.counter
    bank.counter = None
    bank.eval()
    missing = y - bank(x)
    worst = missing.norm(dim=-1).topk(len(dead)).indices
    if isinstance(bank, FeaturalBank):
        values = _move_featural(bank, dead, x[worst], missing[worst])
    else:
        values = _move_mirror(cast(MirrorBank, bank), dead, x[worst], missing[worst])
    _settle(bank, *values, x, y)
    bank.train(was_training)
    bank.counter = counter
    return len(dead)


def _settle(bank: Bank, shard: Any, rows: Any, x: Tensor, y: Tensor) -> None:
    """Scale the new values by the one of `_SHARES` that leaves the least error."""
    whole, errors = shard.value[rows], []
    for share in _SHARES:
        shard.value[rows] = whole * share
        errors.append(float((y - bank(x)).square().sum()))
    shard.value[rows] = whole * _SHARES[errors.index(min(errors))]


def _move_featural(bank: FeaturalBank, dead: Tensor, x: Tensor, missing: Tensor) -> tuple[Any, Any]:
    heads, rows = dead // bank.n_slots, dead % bank.n_slots
    tokens = torch.arange(len(x), device=x.device)
    queries = bank.queries(x)[heads, tokens]
    bank.rows.key[heads, rows] = F.normalize(queries, dim=-1)
    bank.rows.key_bias[heads, rows] = 0.0
    # What of the missing output this head can say, and how much of it a value of that direction gives.
    out = bank.output.weight.view(bank.d_model, bank.n_heads, bank.d_key)[:, heads]
    back = torch.einsum("td,dtk->tk", missing, out)
    reach = torch.einsum("tk,dtk->td", back, out).square().sum(-1).clamp_min(1e-12)
    weight = torch.ones_like(reach)
    if bank.weight != "softmax":
        weight = bank.weights(bank.queries(x))[heads, tokens, rows].clamp_min(_LEAST)
    bank.rows.value[heads, rows] = back * (back.square().sum(-1) / reach / weight)[:, None]
    return bank.rows, (heads, rows)


def _move_mirror(bank: MirrorBank, dead: Tensor, x: Tensor, missing: Tensor) -> tuple[Any, Any]:
    shard = cast(Shard, bank.shards["new"])
    along = F.normalize(x, dim=-1)
    shard.key[dead] = along * shard.key.norm(dim=-1).mean()
    if shard.modulator is not None:
        shard.modulator[dead] = along * shard.modulator.norm(dim=-1).mean()
    for offset in (shard.key_bias, shard.modulator_bias):
        if offset is not None:
            offset[dead] = 0.0
    weight = shard.weights_at(x, dead[:, None])[:, 0]
    shard.value[dead] = missing / weight.clamp_min(_LEAST)[:, None]
    return shard, dead
