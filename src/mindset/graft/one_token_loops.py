"""The loops of `one_token`, compiled by numba; imported only where numba is there.

Sums may be taken in any order, so that they are vectorised; what is not finite stays so. Compiled once a machine: the
result is kept beside this file or, where that is read-only, in the user's cache. `no_type_check` keeps decorators of
type checkers away, which numba could not compile.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numba
import numpy as np

__all__ = ["proposed_dots", "read_weighted"]

_compiled = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})


@_compiled
@no_type_check
def best(scores: Any, count: Any) -> Any:
    """Numbers of the `count` highest scores, in no order; what is not a number comes last."""
    slots = np.empty(count, np.int64)
    bound = np.partition(scores, len(scores) - count)[len(scores) - count]
    found = 0
    for i in range(len(scores)):
        if found < count and scores[i] > bound:
            slots[found] = i
            found += 1
    for i in range(len(scores)):
        if found < count and scores[i] == bound:  # ties
            slots[found] = i
            found += 1
    for i in range(len(scores)):
        if found < count and np.isnan(scores[i]):
            slots[found] = i
            found += 1
    return slots[:found]


@_compiled
@no_type_check
def proposed_dots(x: Any, proposal: Any, count: Any, rows: Any, bias: Any, dots: Any) -> None:
    """Write `rows[slot] . x + bias[slot]` for the `count` best proposals."""
    for slot in best(proposal, count):
        row, total = rows[slot], bias[slot]
        for j in range(len(x)):
            total += row[j] * x[j]
        dots[slot] = total


@_compiled
@no_type_check
def read_weighted(weights: Any, norms: Any, value: Any, k: Any, out: Any) -> None:
    """Add to `out` the values of the `k` slots of the highest `abs(weight) * norm`."""
    for slot in best(np.abs(weights) * norms, k):
        row, weight = value[slot], weights[slot]
        for j in range(len(out)):
            out[j] += weight * row[j]
