"""The skips in closed form, before any gradient.

A skip becomes the least-squares map from a block's input to what its bank leaves out. At a small k the many slots that
are left out add up to something nearly linear in x. A ridge regression finds it from a few thousand tokens in seconds;
training goes on from there.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from mindset.graft.bank import Bank
from mindset.graft.model import banks
from mindset.probe.tap import tap_blocks, tap_states

__all__ = ["fit_skips"]


class _Sums:
    """Moments of x and of the residual r, in float64."""

    def __init__(self, d_model: int) -> None:
        self.count = 0
        self.x, self.r = (torch.zeros(d_model, dtype=torch.float64) for _ in range(2))
        self.xx, self.xr = (torch.zeros(d_model, d_model, dtype=torch.float64) for _ in range(2))

    def add(self, x: Tensor, r: Tensor) -> None:
        x, r = x.double().cpu(), r.double().cpu()
        self.count += len(x)
        self.x += x.sum(0)
        self.r += r.sum(0)
        self.xx += x.T @ x
        self.xr += x.T @ r

    def fit(self, skip: Any) -> None:
        mean_x, mean_r = self.x / self.count, self.r / self.count
        moment = self.xx / self.count - torch.outer(mean_x, mean_x)
        cross = self.xr / self.count - torch.outer(mean_x, mean_r)
        device = next(skip.parameters()).device
        skip.fit(*(t.to(device) for t in (moment, cross, mean_x, mean_r)))


@torch.no_grad()
def fit_skips(student: nn.Module, teacher: Any, batches: list[Tensor]) -> None:
    """Fit every skip of `student` at its present k to the tokens of `batches`."""
    held: dict[int, Bank] = {layer: bank for layer, bank in banks(student).items() if bank.skip is not None}
    if not held:
        return
    sums = {layer: _Sums(bank.d_model) for layer, bank in held.items()}
    for tokens in batches:
        with tap_blocks(teacher, tuple(held)) as passes, tap_states(teacher):
            teacher(tokens.to(teacher.device), use_cache=False)
        for layer, bank in held.items():
            x, y = passes[layer].both()
            sums[layer].add(x, y - bank(x))
    for layer, bank in held.items():
        sums[layer].fit(cast(Any, bank.skip))
