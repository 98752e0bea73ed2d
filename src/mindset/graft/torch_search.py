"""Exact search of a shard by torch: one product and a top-k over the store's own maps, without a copy.

Where the processor multiplies bfloat16 itself and a timing says that it pays, products are made in bfloat16 and the
best of them again in float32: the order is that of float32, up to what bfloat16 cannot tell apart.
"""

from __future__ import annotations

import time
import warnings

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from mindset.store.search import float_rows

__all__ = ["Bfloat16Searcher", "bfloat16_pays", "torch_searcher"]

_Best = tuple[Int64[np.ndarray, "q k"], Float[np.ndarray, "q k"]]


def torch_searcher(
    keys: Shaped[np.ndarray, "n d"],
    queries: Float[np.ndarray, "q d"],
    k: int,
    alive: Bool[np.ndarray, " n"] | None,
) -> _Best:
    """`(queries @ keys.T).topk(k)` of the living rows."""
    with torch.inference_mode():
        scores = torch.from_numpy(np.ascontiguousarray(queries, np.float32)) @ _tensor(float_rows(keys)).T
        if alive is not None:
            scores.masked_fill_(~torch.from_numpy(alive), -torch.inf)
        best = scores.topk(k, dim=1)
        return best.indices.numpy(), best.values.numpy()


class Bfloat16Searcher:
    """Keeps one shard's keys in bfloat16, made when it first sees them."""

    def __init__(self, again: int = 64) -> None:
        """The best `again` products (at least 4 k) are made once more in float32."""
        self.again = again
        self._held: tuple[np.ndarray, Tensor] | None = None

    def __call__(
        self,
        keys: Shaped[np.ndarray, "n d"],
        queries: Float[np.ndarray, "q d"],
        k: int,
        alive: Bool[np.ndarray, " n"] | None,
    ) -> _Best:
        """The `k` living rows of highest product."""
        if self._held is None or self._held[0] is not keys:
            self._held = (keys, _tensor(float_rows(keys)).bfloat16())
        with torch.inference_mode():
            asked = torch.from_numpy(np.ascontiguousarray(queries, np.float32))
            scores = asked.bfloat16() @ self._held[1].T
            if alive is not None:
                scores.masked_fill_(~torch.from_numpy(alive), -torch.inf)
            some = scores.topk(min(max(self.again, 4 * k), len(keys)), dim=1).indices
            rows = _tensor(float_rows(keys[some.numpy().reshape(-1)])).view(*some.shape, -1)
            exact = torch.einsum("qd,qcd->qc", asked, rows)
            if alive is not None:
                exact.masked_fill_(~torch.from_numpy(alive)[some], -torch.inf)
            best = exact.topk(k, dim=1)
            return some.gather(1, best.indices).numpy(), best.values.numpy()


def bfloat16_pays(n: int = 1 << 16, d: int = 64, batch: int = 64) -> bool:
    """Whether products in bfloat16 take at most half the time here."""
    generator = torch.Generator().manual_seed(0)
    keys, queries = (torch.randn(rows, d, generator=generator) for rows in (n, batch))
    full, half = _seconds(queries, keys), _seconds(queries.bfloat16(), keys.bfloat16())
    return half <= full / 2


def _seconds(queries: Tensor, keys: Tensor) -> float:
    taken = []
    for _ in range(4):
        began = time.perf_counter()
        queries @ keys.T
        taken.append(time.perf_counter() - began)
    return min(taken)


def _tensor(rows: np.ndarray) -> Tensor:
    with warnings.catch_warnings():  # torch warns of read-only maps, which nothing here writes to
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(np.asarray(rows))
