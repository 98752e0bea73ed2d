"""Dead slots: rows that no token read are moved to where the error is.

A dead slot of a featural or mirror bank takes the direction of an input whose output was least explained as its key and
a share of what was missing as its value (the neuron resampling of Bricken et al. 2023, in place of a loss term). Slots of
a mirror bank's base shard are left alone: they are the teacher's own and may be needed by text not seen yet.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mindset.distill.tap import tap_blocks, tap_states
from mindset.graft.bank import Bank, MirrorBank
from mindset.graft.featural import FeaturalBank
from mindset.graft.model import banks

__all__ = ["revive"]

_SHARE = 0.2
"""Length of a revived value, as a share of the missing output."""


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
    was_training, counter = bank.training, bank.counter
    bank.counter = None
    bank.eval()
    missing = y - bank(x)
    bank.train(was_training)
    bank.counter = counter
    worst = missing.norm(dim=-1).topk(len(dead)).indices
    if isinstance(bank, FeaturalBank):
        _move_featural(bank, dead, x[worst], missing[worst])
    else:
        _move_mirror(cast(MirrorBank, bank), dead, x[worst], missing[worst])
    return len(dead)


def _move_featural(bank: FeaturalBank, dead: Tensor, x: Tensor, missing: Tensor) -> None:
    heads, rows = dead // bank.n_slots, dead % bank.n_slots
    queries = bank.queries(x)[heads, torch.arange(len(x), device=x.device)]
    bank.rows.key[heads, rows] = F.normalize(queries, dim=-1)
    back = missing @ bank.output.weight.view(bank.d_model, bank.n_heads, bank.d_key)[:, 0]
    length = queries.norm(dim=-1, keepdim=True).clamp_min(1.0)
    bank.rows.value[heads, rows] = _SHARE * back / length
    bank.rows.key_bias[heads, rows] = 0.0


def _move_mirror(bank: MirrorBank, dead: Tensor, x: Tensor, missing: Tensor) -> None:
    shard = cast(Any, bank.shards["new"])
    typical = shard.key.norm(dim=-1).mean()
    shard.key[dead] = F.normalize(x, dim=-1) * typical
    shard.value[dead] = _SHARE * F.normalize(missing, dim=-1) * shard.value.norm(dim=-1).mean()
