"""The skip: a small affine path beside a bank that carries what needs no memory.

`affine` is a full `d_model x d_model` map with a bias; `lowrank:R` two factors of rank R. Both start at zero, so that
putting one in changes nothing, or are fitted in closed form (ridge regression) to what a bank leaves out.
"""

from __future__ import annotations

import re

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mindset.errors import UsageError

__all__ = ["AffineSkip", "LowRankSkip", "build_skip", "parse_skip"]

_RIDGE = 1e-3
"""Ridge penalty, as a share of the inputs' mean squared length per dimension."""


def parse_skip(text: str) -> tuple[str, int]:
    """`none`, `affine` or `lowrank:R` as (kind, rank); rank 0 where it has no meaning."""
    if text in ("none", "affine"):
        return text, 0
    match = re.fullmatch(r"lowrank:([1-9]\d*)", text)
    if match is None:
        raise UsageError(f"'{text}' is no skip; allowed: none, affine, lowrank:R (R a whole number from 1)")
    return "lowrank", int(match[1])


def _ridge(inputs: Tensor, cross: Tensor) -> Tensor:
    """`(second moment + ridge)^-1 cross` in float64: the least-squares map from x to the residual."""
    moment = inputs.double()
    ridge = _RIDGE * moment.diagonal().mean() * torch.eye(moment.shape[0], dtype=torch.float64)
    solved: Tensor = torch.linalg.solve(moment + ridge.to(moment.device), cross.double())
    return solved


class AffineSkip(nn.Module):
    """`W x + b`, zero at first."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(d_model, d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens d_model"]:
        return nn.functional.linear(x, self.weight, self.bias)

    @torch.no_grad()
    def fit(self, moment: Tensor, cross: Tensor, mean_x: Tensor, mean_y: Tensor) -> None:
        """Add the least-squares map of centred moments `E[xx']`, `E[xy']` to what is there."""
        slope = _ridge(moment, cross).T
        self.weight.add_(slope.to(self.weight))
        self.bias.add_((mean_y.double() - slope @ mean_x.double()).to(self.bias))


class LowRankSkip(nn.Module):
    """`U (V x) + b` with `V [rank, d_model]`, `U [d_model, rank]`; U is zero at first."""

    def __init__(self, d_model: int, rank: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, d_model, generator=generator) / d_model**0.5)
        self.up = nn.Parameter(torch.zeros(d_model, rank))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens d_model"]:
        low = nn.functional.linear(x, self.down)
        return nn.functional.linear(low, self.up, self.bias)

    @torch.no_grad()
    def fit(self, moment: Tensor, cross: Tensor, mean_x: Tensor, mean_y: Tensor) -> None:
        """Add the least-squares map to what is there, and keep its best rank R (Izenman 1975, eq. 2.3)."""
        present = self.up.double() @ self.down.double()
        mean_y = mean_y.double() + present @ mean_x.double()
        slope = _ridge(moment, cross).T + present
        root = torch.linalg.cholesky(
            moment.double() + 1e-9 * moment.double().diagonal().mean() * _eye(moment)
        )
        left, _, _ = torch.linalg.svd(slope @ root, full_matrices=False)
        basis = left[:, : self.down.shape[0]]
        self.up.copy_(basis.to(self.up))
        self.down.copy_((basis.T @ slope).to(self.down))
        self.bias.add_((mean_y - basis @ (basis.T @ (slope @ mean_x.double()))).to(self.bias))


def _eye(like: Tensor) -> Tensor:
    return torch.eye(like.shape[0], dtype=torch.float64, device=like.device)


def build_skip(text: str, d_model: int, generator: torch.Generator | None = None) -> nn.Module | None:
    """The skip module of a plan's text; None for `none`."""
    kind, rank = parse_skip(text)
    if kind == "none":
        return None
    return AffineSkip(d_model) if kind == "affine" else LowRankSkip(d_model, rank, generator)
