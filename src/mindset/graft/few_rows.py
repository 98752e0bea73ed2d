"""Products of a few rows with a matrix, compiled: what a decoding step of several texts does nearly all the time.

torch multiplies one row as fast as memory brings the matrix. For two it rearranges the whole matrix first, which takes
longer than the product, and does so again at every step. With the extra `fast`, numba compiles a loop that reads every
weight once for all rows, on torch's own threads; it takes contiguous float32 or float64 on a CPU and gives no
gradients. Elsewhere, for one row and for many, torch multiplies as ever.

Invariant: what `FewRows` puts into a model, `close` takes out again; a single row has the bits that it always had.
"""

from __future__ import annotations

import ctypes
from functools import cache, partial
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindset.graft.few_rows_block import FIELDS
from mindset.graft.shard import Shard
from mindset.graft.torch_threads import team

__all__ = ["FewRows", "product"]

MOST = 32
"""Rows beyond which torch is as fast."""
TILE = 4
"""Rows that the loop takes at once."""
_DTYPES = (torch.float32, torch.float64)
_WORTH_A_TEAM = 1 << 20
"""Multiplications below which one thread is as fast as several."""
_Block = ctypes.c_int64 * len(FIELDS)


def product(
    x: Float[Tensor, "... d"], weight: Float[Tensor, "n d"], bias: Float[Tensor, " n"] | None = None
) -> Float[Tensor, "... n"]:
    """`F.linear(x, weight, bias)`, by the compiled loop where that is faster."""
    rows = x.numel() // x.shape[-1]
    if not 2 <= rows <= MOST or not _applies(x, weight):
        return F.linear(x, weight, bias)
    if rows % TILE == 0 and x.is_contiguous():
        out = x.new_empty((*x.shape[:-1], len(weight)))
        _multiply(x, weight, out, rows)
    else:
        whole = -(-rows // TILE) * TILE
        padded = F.pad(x.reshape(rows, -1), (0, 0, 0, whole - rows))
        out = x.new_empty(whole, len(weight))
        _multiply(padded, weight, out, whole)
        out = out[:rows].view(*x.shape[:-1], -1)
    return out if bias is None else out.add_(bias)


class FewRows:
    """Lets the linear layers and the shards of a model multiply by `product`, while it is `active`."""

    def __init__(self, model: nn.Module) -> None:
        self.active = True
        self._linear = [module for module in model.modules() if type(module) is nn.Linear]
        shards = [module for module in model.modules() if isinstance(module, Shard)]
        self._shards = [shard for shard in shards if shard.multiply is F.linear]
        if _loops() is None or any("forward" in vars(module) for module in self._linear):
            self._linear, self._shards = [], []
        for module in self._linear:
            module.forward = partial(self._forward, module)  # type: ignore[method-assign]
        for shard in self._shards:
            shard.multiply = self._multiply

    def close(self) -> None:
        """Take it out again."""
        for module in self._linear:
            del module.forward
        for shard in self._shards:
            shard.multiply = F.linear
        self._linear, self._shards = [], []

    def _forward(self, module: nn.Linear, x: Tensor) -> Tensor:
        return self._multiply(x, module.weight, module.bias)

    def _multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return product(x, weight, bias) if self.active else F.linear(x, weight, bias)


def _applies(x: Tensor, weight: Tensor) -> bool:
    return (
        x.dtype in _DTYPES
        and weight.dtype == x.dtype
        and x.is_cpu
        and weight.is_cpu
        and weight.is_contiguous()
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and _loops() is not None
    )


def _multiply(x: Tensor, weight: Float[Tensor, "n d"], out: Tensor, rows: int) -> None:
    """Write the product of so many rows, whole tiles of them, to `out`. Nothing is done that need not be."""
    n, d = weight.shape
    threads = torch.get_num_threads() if rows * n * d >= _WORTH_A_TEAM else 1
    lent = team() if threads > 1 else None
    function, alone = _functions(x.dtype)
    addresses = x.data_ptr(), weight.data_ptr(), out.data_ptr()
    if lent is None:
        block = _Block(1, 0, 0, rows, n, d, *addresses)
        alone(ctypes.addressof(block))
    else:
        block = _Block(threads, lent.thread_number, lent.thread_count, rows, n, d, *addresses)
        lent.run(function, ctypes.addressof(block), threads)


@cache
def _functions(dtype: torch.dtype) -> tuple[int, Any]:
    loops = _loops()
    if loops is None:
        raise RuntimeError("numba is not installed")
    address = loops.multiplier(str(dtype).removeprefix("torch."))
    return address, ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


@cache
def _loops() -> ModuleType | None:
    try:
        import numba  # noqa: F401
    except ImportError:
        return None
    from mindset.graft import few_rows_loops

    return few_rows_loops
