"""Reading for one token, compiled: what a decoding step does after the keys' product.

torch on a CPU has no product of one input with *chosen* rows: `index_select` writes every row once more, and the
selections around it are ten small operations a layer. With the extra `fast`, numba compiles the plain loops. They want
contiguous float32 or float64 on a CPU and give no gradients; `usable` says whether they apply, and where they do not
torch's steps in `bank` give the same sums. One thread: the rows come from memory, not from arithmetic.

Ties are broken by the lower slot number; numbers that are not finite are chosen last and spoil the sum, as in torch.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["has_kernels", "proposed_dots", "read_weighted", "usable"]

_DTYPES = (torch.float32, torch.float64)


def has_kernels() -> bool:
    """Whether numba is there."""
    return _loops() is not None


def usable(x: Float[Tensor, "tokens d_model"], *rows: Tensor) -> bool:
    """Whether the compiled loops may read `rows` for `x`: one token, on a CPU, no gradient wanted."""
    if len(x) != 1 or x.dtype not in _DTYPES or torch.is_grad_enabled():
        return False
    same = all(r.device.type == "cpu" and r.dtype == x.dtype and r.is_contiguous() for r in (x, *rows))
    return same and not torch.compiler.is_compiling() and has_kernels()


def read_weighted(
    weights: Float[Tensor, " n_slots"],
    norms: Float[Tensor, " n_slots"],
    value: Float[Tensor, "n_slots d_model"],
    k: int,
) -> Float[Tensor, " d_model"]:
    """Sum the values of the `k` slots of the highest `abs(weight) * norm`."""
    out = torch.zeros(value.shape[1], dtype=value.dtype)
    cast(ModuleType, _loops()).read_weighted(
        weights.numpy(), norms.numpy(), value.detach().numpy(), k, out.numpy()
    )
    return out


def proposed_dots(
    x: Float[Tensor, " d_model"],
    proposal: Float[Tensor, " n_slots"],
    candidates: int,
    rows: Float[Tensor, "n_slots d_model"],
    bias: Float[Tensor, " n_slots"] | None,
) -> Float[Tensor, " n_slots"]:
    """`row . x + bias` of the `candidates` best proposals, 0 for all others, whose rows are not fetched."""
    dots = torch.zeros_like(proposal)
    plus = dots if bias is None else bias.detach()
    cast(ModuleType, _loops()).proposed_dots(
        x.detach().numpy(), proposal.numpy(), candidates, rows.detach().numpy(), plus.numpy(), dots.numpy()
    )
    return dots


@cache
def _loops() -> ModuleType | None:
    try:
        import numba  # noqa: F401
    except ImportError:
        return None
    from mindset.graft import one_token_loops

    return one_token_loops
