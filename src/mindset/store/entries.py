"""What an index lists of a slot: its key, scaled by what one unit of its score is worth.

A slot's influence is `abs(act(key . x + bias)) * c` with `c = rms(modulator . x + bias) * norm(value)`. Where an
activation lets negative scores through at all (SiLU, GELU) it bounds them, so the highest influences are found by the
highest `c (key . x + bias)`: one side is enough. An index over both signs loses: most scores are negative and count
for next to nothing, yet fill its lists.

Second moments of recorded queries are all that is kept of them. Knows neither torch nor which activation there is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int64

from mindset.store.search import float_rows
from mindset.store.shard_info import ShardInfo
from mindset.store.store import Store

__all__ = ["QueryMoments", "entries", "extended", "unscaled", "worths"]

_SCALED = ("key", "value")
"""Fields that `scale` has a column for, in this order."""


@dataclass(frozen=True, eq=False)
class QueryMoments:
    """What recorded queries, each with a 1 behind it for the biases, were like."""

    square: Float32[np.ndarray, "d1 d1"]
    """`E[q q']`."""

    @classmethod
    def of(cls, queries: Float[np.ndarray, "n d"]) -> QueryMoments:
        """From the queries themselves."""
        rows = extended(queries).astype(np.float64)
        return cls((rows.T @ rows / max(1, len(rows))).astype(np.float32))

    def whitening(self) -> tuple[Float32[np.ndarray, "d1 d1"], Float32[np.ndarray, "d1 d1"]]:
        """What keys and what queries are multiplied by: products stay, and queries are as long in every direction.

        So centroids that are near in distance are near in the scores that these queries give.
        """
        values, vectors = np.linalg.eigh(self.square.astype(np.float64))
        root = np.sqrt(np.maximum(values, values.max() * 1e-6))
        return (vectors * root).astype(np.float32), (vectors / root).astype(np.float32)


def extended(queries: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d1"]:
    """Queries with a 1 behind them, which meets the bias of a key."""
    ones = np.ones((len(queries), 1), np.float32)
    return np.concatenate([queries.astype(np.float32, copy=False), ones], axis=1)


def worths(
    store: Store, info: ShardInfo, rows: Int64[np.ndarray, " n"], moments: QueryMoments
) -> Float32[np.ndarray, " n"]:
    """`c` of the slots in these rows."""
    worth = np.linalg.norm(unscaled(store, info, "value", rows), axis=1)
    if info.gated:
        modulators = _with_bias(store, info, "modulator", rows)
        square = np.einsum("nd,nd->n", modulators @ moments.square, modulators)
        worth = worth * np.sqrt(np.maximum(square, 0))
    return np.asarray(worth, np.float32)


def entries(
    store: Store, info: ShardInfo, rows: Int64[np.ndarray, " n"], moments: QueryMoments
) -> Float32[np.ndarray, "n d1"]:
    """`c (key, bias)` of the slots in these rows; the product with an extended query ranks them."""
    keys = _with_bias(store, info, "key", rows)
    if info.rule != "radius":
        keys *= worths(store, info, rows, moments)[:, None]
    return keys


def unscaled(
    store: Store, info: ShardInfo, field: str, rows: Int64[np.ndarray, " n"]
) -> Float32[np.ndarray, "n d"]:
    """Stored rows as numbers; radius slots keep keys and values as bytes, with a scale for each."""
    stored = float_rows(store.vectors.get(info, field, rows))
    if "scale" not in info.fields or field not in _SCALED:
        return stored
    column = _SCALED.index(field)
    scale = np.asarray(store.vectors.get(info, "scale", rows), np.float32)
    return stored * scale[:, column : column + 1]


def _with_bias(
    store: Store, info: ShardInfo, field: str, rows: Int64[np.ndarray, " n"]
) -> Float32[np.ndarray, "n d1"]:
    out = np.zeros((len(rows), info.fields[field]["d"] + 1), np.float32)
    out[:, :-1] = unscaled(store, info, field, rows)
    if f"{field}_bias" in info.fields:
        out[:, -1:] = float_rows(store.vectors.get(info, f"{field}_bias", rows))
    return out
