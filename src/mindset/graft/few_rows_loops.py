"""The loops of `few_rows`, compiled by numba; imported only where numba is there.

A tile is four rows of x by three of the weights: twelve sums that stay in registers. A piece of the weights that fits
into a core's own cache is read for all rows of x before the next one, so that each weight comes from memory once. Every
thread of a team takes its share of the weights' rows. Compiled once a machine.
"""

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

import numba
import numpy as np

from mindset.graft.few_rows_block import FIELDS
from mindset.graft.one_token_loops import call, compiled_for_c, pointer_to, share, types

__all__ = ["multiplier"]

_compiled = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
THREADS, THREAD_NUMBER, THREAD_COUNT, ROWS, N, D, X, WEIGHT, OUT = range(len(FIELDS))
PIECE = 1 << 18
"""Bytes of weights that are kept near."""


@_compiled
@no_type_check
def three(x: Any, weight: Any, out: Any, r: Any, n: Any) -> None:
    """Four rows of x by three of the weights."""
    zero = x.dtype.type(0)
    x0, x1, x2, x3 = x[r], x[r + 1], x[r + 2], x[r + 3]
    w0, w1, w2 = weight[n], weight[n + 1], weight[n + 2]
    a0, a1, a2, b0, b1, b2 = zero, zero, zero, zero, zero, zero
    c0, c1, c2, d0, d1, d2 = zero, zero, zero, zero, zero, zero
    for j in range(x.shape[1]):
        u, v, w = w0[j], w1[j], w2[j]
        y = x0[j]
        a0 += y * u
        a1 += y * v
        a2 += y * w
        y = x1[j]
        b0 += y * u
        b1 += y * v
        b2 += y * w
        y = x2[j]
        c0 += y * u
        c1 += y * v
        c2 += y * w
        y = x3[j]
        d0 += y * u
        d1 += y * v
        d2 += y * w
    out[r, n], out[r, n + 1], out[r, n + 2] = a0, a1, a2
    out[r + 1, n], out[r + 1, n + 1], out[r + 1, n + 2] = b0, b1, b2
    out[r + 2, n], out[r + 2, n + 1], out[r + 2, n + 2] = c0, c1, c2
    out[r + 3, n], out[r + 3, n + 1], out[r + 3, n + 2] = d0, d1, d2


@_compiled
@no_type_check
def one(x: Any, weight: Any, out: Any, r: Any, n: Any) -> None:
    """Four rows of x by one of the weights."""
    zero = x.dtype.type(0)
    x0, x1, x2, x3, w = x[r], x[r + 1], x[r + 2], x[r + 3], weight[n]
    a, b, c, d = zero, zero, zero, zero
    for j in range(x.shape[1]):
        y = w[j]
        a += x0[j] * y
        b += x1[j] * y
        c += x2[j] * y
        d += x3[j] * y
    out[r, n], out[r + 1, n], out[r + 2, n], out[r + 3, n] = a, b, c, d


@_compiled
@no_type_check
def multiply(block: Any, zero: Any) -> None:
    """`out = x @ weight.T`, as one thread of the team; `zero` tells the type of the numbers."""
    thread, threads = numba.int32(0), numba.int32(1)
    if block[THREADS] > 1:  # as many as OpenMP gave, which may be fewer
        thread, threads = call(block[THREAD_NUMBER]), call(block[THREAD_COUNT])
    rows, n, d = block[ROWS], block[N], block[D]
    x = numba.carray(pointer_to(block[X], zero), (rows, d))
    weight = numba.carray(pointer_to(block[WEIGHT], zero), (n, d))
    out = numba.carray(pointer_to(block[OUT], zero), (rows, n))
    first, last = share(thread, threads, n)
    piece = max(1, PIECE // (3 * d * x.itemsize)) * 3
    for start in range(first, last, piece):
        stop = min(last, start + piece)
        threes = start + (stop - start) // 3 * 3
        for r in range(0, rows, 4):
            for m in range(start, threes, 3):
                three(x, weight, out, r, m)
            for m in range(threes, stop):
                one(x, weight, out, r, m)


@no_type_check
def multiply_float32(block: Any) -> None:
    """`multiply` of float32 numbers."""
    multiply(numba.carray(block, len(FIELDS)), np.float32(0))


@no_type_check
def multiply_float64(block: Any) -> None:
    """`multiply` of float64 numbers."""
    multiply(numba.carray(block, len(FIELDS)), np.float64(0))


@cache
def multiplier(dtype: str) -> int:
    """Address of the C function that multiplies for a block, for numbers of `float32` or `float64`."""
    function = multiply_float32 if dtype == "float32" else multiply_float64
    signature = types.void(types.CPointer(numba.int64))
    address: int = compiled_for_c(signature, cache=True)(function).address
    return address
