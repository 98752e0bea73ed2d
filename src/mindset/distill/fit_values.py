"""Values and skip of a mirror bank in closed form: the least squares that a local stage's gradients would look for.

With keys and the choice of slots as they are, a bank's output is linear in its values, its skip and its bias. So their
best change is a ridge regression of what is missing on (weights of the slots read, x, 1), from the teacher's own
activations. The penalty is on the change: a slot that is hardly ever read keeps the teacher's value.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from mindset.graft.bank import MirrorBank
from mindset.graft.model import banks
from mindset.graft.recording import Read, record
from mindset.graft.shard import Shard
from mindset.graft.skip import AffineSkip
from mindset.probe.tap import tap_blocks, tap_states

__all__ = ["fit_values"]

RIDGE = 0.02
"""Penalty on a change, as a share of the mean squared length of the regressors over all tokens."""


class _Normal:
    """Sums of the normal equations, in float64."""

    def __init__(self, width: int, d_model: int) -> None:
        self.gram = torch.zeros(width, width, dtype=torch.float64)
        self.cross = torch.zeros(width, d_model, dtype=torch.float64)

    def add(self, regressors: Tensor, missing: Tensor) -> None:
        self.gram += (regressors.T @ regressors).double().cpu()
        self.cross += (regressors.T @ missing).double().cpu()

    def solve(self, groups: list[int]) -> Tensor:
        """The change, each group of regressors penalised by its own mean square."""
        penalty = torch.cat([part.mean().expand_as(part) for part in self.gram.diagonal().split(groups)])
        return cast(Tensor, torch.linalg.solve(self.gram + torch.diag(RIDGE * penalty), self.cross))


@torch.no_grad()
def fit_values(student: nn.Module, teacher: Any, batches: list[Tensor]) -> None:
    """Fit the values, affine skips and biases of the mirror banks of `student` at their present k."""
    held = {
        layer: bank
        for layer, bank in banks(student).items()
        if isinstance(bank, MirrorBank) and not bank.muted
    }
    sums: dict[int, _Normal] = {}
    for tokens in batches:
        with tap_blocks(teacher, tuple(held)) as passes, tap_states(teacher):
            teacher(tokens.to(teacher.device), use_cache=False)
        for layer, bank in held.items():
            x, y = passes[layer].both()
            read = _read(bank, x)
            regressors = torch.cat([read.weights[:, 0], *_affine(bank, x)], dim=1)
            sums.setdefault(layer, _Normal(regressors.shape[1], bank.d_model))
            sums[layer].add(regressors, y - read.output)
    for layer, bank in held.items():
        _apply(bank, sums[layer])


def _read(bank: MirrorBank, x: Tensor) -> Read:
    reads: list[Read] = []
    with record(bank, reads.append):
        bank(x)
    return reads[0]


def _affine(bank: MirrorBank, x: Tensor) -> list[Tensor]:
    """The regressors beside the slots: x and 1 for an affine skip, 1 for a bias alone."""
    ones = x.new_ones(len(x), 1)
    if isinstance(bank.skip, AffineSkip):
        return [x, ones]
    return [] if bank.bias is None else [ones]


def _apply(bank: MirrorBank, sums: _Normal) -> None:
    affine = isinstance(bank.skip, AffineSkip)
    rest = sums.gram.shape[0] - bank.n_slots
    groups = [bank.n_slots, *([bank.d_model, 1] if affine else [1] * rest)]
    change = sums.solve(groups)
    shards = cast("list[Shard]", list(bank.shards.values()))
    for shard, rows in zip(shards, change[: bank.n_slots].split([s.n_slots for s in shards]), strict=True):
        shard.value.add_(rows.to(shard.value))
    if affine:
        skip = cast(AffineSkip, bank.skip)
        skip.weight.add_(change[bank.n_slots : -1].T.to(skip.weight))
        skip.bias.add_(change[-1].to(skip.bias))
    elif bank.bias is not None:
        bank.bias.add_(change[-1].to(bank.bias))
