"""The loops of `one_token`, compiled by numba; imported only where numba is there.

One call reads a bank for one token from beginning to end. Every thread of a team runs it and takes its share of the
rows; between the steps they wait for one another. What a step needs stands in a block of integers: sizes, and
addresses of the tensors (`FIELDS` names them; 0 where a tensor is not there).

Sums may be taken in any order, so that they are vectorised; what is not finite stays so. Compiled once a machine: the
result is kept beside this file or, where that is read-only, in the user's cache. `no_type_check` keeps decorators of
type checkers away, which numba could not compile.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, no_type_check

import numba
import numpy as np
from llvmlite import ir
from numba import types as untyped_types
from numba.extending import intrinsic

from mindset.graft.one_token_block import FIELDS, GELU, KINDS, RELU, SILU

__all__ = ["best", "reader"]

types: Any = untyped_types
compiled_for_c: Any = numba.cfunc
_compiled = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"})

(
    THREADS, THREAD_NUMBER, THREAD_COUNT, BARRIER, N_SLOTS, D_MODEL, CANDIDATES, K, KIND, RULE,
    RANK, X, KEY, KEY_BIAS, MODULATOR, MODULATOR_BIAS, VALUE, NORMS, SCALE, PROJECT, KEY_LOW,
    MODULATOR_LOW, EVERY, OUT, FLOATS, NUMBERS,
) = range(len(FIELDS))  # fmt: skip
ALL, SCORE, PROXY = range(len(KINDS))


@intrinsic
def pointer_to(_: Any, address: Any, like: Any) -> Any:
    """A pointer to numbers of the type of `like` at an address."""
    result = types.CPointer(like)

    def code(context: Any, builder: Any, _: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(result))

    return result(address, like), code


@intrinsic
def call(_: Any, address: Any) -> Any:
    """Call the C function `int f(void)` at an address."""

    def code(_: Any, builder: Any, __: Any, args: Any) -> Any:
        function = ir.FunctionType(ir.IntType(32), []).as_pointer()
        return builder.call(builder.inttoptr(args[0], function), [])

    return numba.int32(address), code


@_compiled
@no_type_check
def share(thread: Any, threads: Any, count: Any) -> Any:
    """First and last of a thread's share of `count` things, whole eights but for the last."""
    eights = (count + 7) // 8
    first = thread * eights // threads * 8
    last = (thread + 1) * eights // threads * 8
    return min(first, count), min(last, count)


@_compiled
@no_type_check
def lowest_of_best(scores: Any, count: Any, integer: Any) -> Any:
    """The lowest of the `count` highest scores, none of which is negative.

    Such numbers are in the order of their bits, so a histogram of the highest eleven tells in what octave (in float32:
    eighth of an octave) it lies; `integer` is a number as wide as a score.
    """
    bits = numba.carray(pointer_to(scores.ctypes.data, integer), len(scores))
    shift, unsigned = (20, 2**31 - 1) if bits.itemsize == 4 else (52, 2**63 - 1)
    counts = np.zeros(2048, np.int64)
    for i in range(len(scores)):
        counts[(bits[i] & unsigned) >> shift] += 1
    above, octave = 0, 2047
    while above + counts[octave] < count:
        above += counts[octave]
        octave -= 1
    inside, found = np.empty(counts[octave] + 1, scores.dtype), 0
    for i in range(len(scores)):
        inside[found] = scores[i]
        found += ((bits[i] & unsigned) >> shift) == octave
    place = found - (count - above)
    return np.partition(inside[:found], place)[place]


@_compiled
@no_type_check
def best(scores: Any, count: Any, slots: Any, integer: Any) -> None:
    """Write to `slots` the numbers of the `count` highest scores, rising; ties go to the lower number.

    What is not a number is taken to be higher than any, as `torch.topk` does.
    """
    bound, found = lowest_of_best(scores, count, integer), 0
    if np.isnan(bound):
        for i in range(len(scores)):
            if np.isnan(scores[i]) and found < count:
                slots[found] = i
                found += 1
        return
    ties = count
    for i in range(len(scores)):
        ties -= not scores[i] <= bound
    for i in range(len(scores)):  # without a branch: written always, kept where it counts
        tied = (scores[i] == bound) & (ties > 0)
        slots[found] = i
        found += tied | (not scores[i] <= bound)
        ties -= tied
        if found == count:
            return


@_compiled
@no_type_check
def dots(x: Any, rows: Any, slots: Any, first: Any, last: Any, out: Any) -> None:
    """`out[slot] = rows[slot] . x` for `slots[first:last]`, eight rows at a time: memory answers many at once."""
    zero = x.dtype.type(0)
    eights = first + (last - first) // 8 * 8
    for n in range(first, eights, 8):
        a, b, c, d = rows[slots[n]], rows[slots[n + 1]], rows[slots[n + 2]], rows[slots[n + 3]]
        e, f, g, h = rows[slots[n + 4]], rows[slots[n + 5]], rows[slots[n + 6]], rows[slots[n + 7]]
        sum_a, sum_b, sum_c, sum_d = zero, zero, zero, zero
        sum_e, sum_f, sum_g, sum_h = zero, zero, zero, zero
        for j in range(rows.shape[1]):
            y = x[j]
            sum_a += a[j] * y
            sum_b += b[j] * y
            sum_c += c[j] * y
            sum_d += d[j] * y
            sum_e += e[j] * y
            sum_f += f[j] * y
            sum_g += g[j] * y
            sum_h += h[j] * y
        out[slots[n]], out[slots[n + 1]], out[slots[n + 2]], out[slots[n + 3]] = sum_a, sum_b, sum_c, sum_d
        out[slots[n + 4]], out[slots[n + 5]] = sum_e, sum_f
        out[slots[n + 6]], out[slots[n + 7]] = sum_g, sum_h
    for n in range(eights, last):
        row, total = rows[slots[n]], zero
        for j in range(rows.shape[1]):
            total += row[j] * x[j]
        out[slots[n]] = total


@_compiled
@no_type_check
def activate(rule: Any, slots: Any, first: Any, last: Any, z: Any) -> None:
    """The activation of `z[slot]`, in place."""
    half, one, zero = z.dtype.type(0.5), z.dtype.type(1), z.dtype.type(0)
    root, cubic = z.dtype.type(math.sqrt(2 / math.pi)), z.dtype.type(0.044715)
    narrow = z.dtype.type(math.sqrt(0.5))
    for n in range(first, last):
        at = slots[n]
        y = z[at]
        if rule == SILU:
            z[at] = y / (one + math.exp(-y))
        elif rule == RELU:
            z[at] = zero if y < zero else y
        elif rule == GELU:
            z[at] = half * y * (one + math.erf(y * narrow))
        else:
            z[at] = half * y * (one + math.tanh(root * (y + cubic * y * y * y)))


@_compiled
@no_type_check
def mixed(x: Any, columns: Any, first: Any, last: Any, out: Any) -> None:
    """`out[first:last] = columns[:, first:last].T @ x`: dots of short rows that lie column by column."""
    piece = out[first:last]
    piece[:] = 0
    for r in range(len(x)):
        column, y = columns[r, first:last], x[r]
        for i in range(len(piece)):  # from 0: an index that might be negative is not vectorised
            piece[i] += y * column[i]


@_compiled
@no_type_check
def gated(block: Any, slots: Any, first: Any, last: Any, weights: Any) -> None:
    """Make gates of the keys' dots, in place: `act(dot + key_bias)`."""
    if block[KEY_BIAS] != 0:
        bias = numba.carray(pointer_to(block[KEY_BIAS], weights[0]), block[N_SLOTS])
        for n in range(first, last):
            weights[slots[n]] += bias[slots[n]]
    activate(block[RULE], slots, first, last, weights)


@_compiled
@no_type_check
def modulated(block: Any, slots: Any, first: Any, last: Any, dots_: Any, weights: Any) -> None:
    """Multiply gates by the modulators' dots: `weight *= dot + modulator_bias`."""
    if block[MODULATOR_BIAS] != 0:
        bias = numba.carray(pointer_to(block[MODULATOR_BIAS], weights[0]), block[N_SLOTS])
        for n in range(first, last):
            dots_[slots[n]] += bias[slots[n]]
    for n in range(first, last):
        weights[slots[n]] *= dots_[slots[n]]


@_compiled
@no_type_check
def estimate(block: Any, x: Any, every: Any, first: Any, last: Any, weights: Any, products: Any) -> None:
    """What the proxy takes the weights to be; `project . x` is done by every thread for itself."""
    rank, n = block[RANK], block[N_SLOTS]
    inner = np.empty(rank, x.dtype)
    project = numba.carray(pointer_to(block[PROJECT], x[0]), (rank, block[D_MODEL]))
    dots(x, project, every, 0, rank, inner)
    mixed(inner, numba.carray(pointer_to(block[KEY_LOW], x[0]), (rank, n)), first, last, weights)
    gated(block, every, first, last, weights)
    if block[MODULATOR_LOW] != 0:
        columns = numba.carray(pointer_to(block[MODULATOR_LOW], x[0]), (rank, n))
        mixed(inner, columns, first, last, products)
        modulated(block, every, first, last, products, weights)


@_compiled
@no_type_check
def exact(
    block: Any,
    x: Any,
    slots: Any,
    first: Any,
    last: Any,
    keys: Any,
    modulators: Any,
    products: Any,
    weights: Any,
) -> None:
    """The weights of slots, by their keys or modulators or both; `products` is scratch."""
    shape = (block[N_SLOTS], block[D_MODEL])
    if keys:
        dots(x, numba.carray(pointer_to(block[KEY], x[0]), shape), slots, first, last, weights)
        gated(block, slots, first, last, weights)
    if modulators and block[MODULATOR] != 0:
        rows = numba.carray(pointer_to(block[MODULATOR], x[0]), shape)
        dots(x, rows, slots, first, last, products)
        modulated(block, slots, first, last, products, weights)


@_compiled
@no_type_check
def look(block: Any, x: Any, every: Any, first: Any, last: Any, weights: Any, ranks: Any) -> None:
    """The first step: every slot's weight as far as the proposer knows it, and its rank."""
    if block[KIND] == PROXY:
        estimate(block, x, every, first, last, weights, ranks)
    else:
        exact(block, x, every, first, last, True, block[KIND] == ALL, ranks, weights)
    scale = numba.carray(pointer_to(block[SCALE], x[0]), block[N_SLOTS])[first:last]
    share_of_weights, share_of_ranks = weights[first:last], ranks[first:last]
    for i in range(len(scale)):
        share_of_ranks[i] = abs(share_of_weights[i]) * scale[i]


@_compiled
@no_type_check
def choose(block: Any, weights: Any, influence: Any, candidates: Any, chosen: Any, integer: Any) -> None:
    """The k candidates of most influence; `influence` is scratch."""
    count, norms = block[CANDIDATES], numba.carray(pointer_to(block[NORMS], weights[0]), block[N_SLOTS])
    for n in range(count):
        influence[n] = abs(weights[candidates[n]]) * norms[candidates[n]]
    best(influence[:count], block[K], chosen, integer)
    for n in range(block[K]):
        chosen[n] = candidates[chosen[n]]


@_compiled
@no_type_check
def add_values(block: Any, weights: Any, chosen: Any, first: Any, last: Any) -> None:
    """Columns `first` to `last` of the sum of weighted values."""
    shape = (block[N_SLOTS], block[D_MODEL])
    value = numba.carray(pointer_to(block[VALUE], weights[0]), shape)
    out = numba.carray(pointer_to(block[OUT], weights[0]), block[D_MODEL])[first:last]
    out[:] = 0
    for n in range(block[K]):
        weight, row = weights[chosen[n]], value[chosen[n], first:last]
        for j in range(len(out)):  # from 0: an index that might be negative is not vectorised
            out[j] += weight * row[j]


@_compiled
@no_type_check
def together(block: Any) -> None:
    """Wait until all threads of the team are here."""
    if block[THREADS] > 1:
        call(block[BARRIER])


@_compiled
@no_type_check
def read(block: Any, zero: Any, integer: Any) -> None:
    """All steps, as one thread of the team; `zero` tells the type of the numbers, `integer` one as wide."""
    n, thread, threads = block[N_SLOTS], numba.int32(0), numba.int32(1)
    if block[THREADS] > 1:  # as many as OpenMP gave, which may be fewer
        thread, threads = call(block[THREAD_NUMBER]), call(block[THREAD_COUNT])
    x = numba.carray(pointer_to(block[X], zero), block[D_MODEL])
    floats = numba.carray(pointer_to(block[FLOATS], zero), (2, n))
    every = numba.carray(pointer_to(block[EVERY], n), max(n, block[RANK]))
    numbers = numba.carray(pointer_to(block[NUMBERS], n), (2, n))
    weights, ranks, candidates, chosen = floats[0], floats[1], numbers[0], numbers[1]
    first, last = share(thread, threads, n)
    look(block, x, every, first, last, weights, ranks)
    together(block)
    if block[KIND] == ALL:
        if thread == 0:
            best(ranks, block[K], chosen, integer)
    else:
        if thread == 0:
            best(ranks, block[CANDIDATES], candidates, integer)
        together(block)
        first, last = share(thread, threads, block[CANDIDATES])
        exact(block, x, candidates, first, last, block[KIND] == PROXY, True, ranks, weights)
        together(block)
        if thread == 0:
            choose(block, weights, ranks, candidates, chosen, integer)
    together(block)
    first, last = share(thread, threads, block[D_MODEL])
    add_values(block, weights, chosen, first, last)


@no_type_check
def read_float32(block: Any) -> None:
    """`read` of float32 numbers."""
    read(numba.carray(block, len(FIELDS)), np.float32(0), np.int32(0))


@no_type_check
def read_float64(block: Any) -> None:
    """`read` of float64 numbers."""
    read(numba.carray(block, len(FIELDS)), np.float64(0), np.int64(0))


@cache
def reader(dtype: str) -> int:
    """Address of the C function that reads for a block, for numbers of `float32` or `float64`."""
    function = read_float32 if dtype == "float32" else read_float64
    signature = types.void(types.CPointer(numba.int64))
    address: int = compiled_for_c(signature, cache=True)(function).address
    return address
