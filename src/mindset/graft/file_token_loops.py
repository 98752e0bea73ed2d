"""The loops of `file_token`, compiled by numba; imported only where numba is there.

One call reads a bank for one token from beginning to end: which lists of the index are promising, their entries from
its file, the best of them, those slots' rows from their slabs, and the sum of the values of the k. Every thread of a
team runs it and takes its share of lists and rows; between the steps they wait for one another. `FIELDS` names what
stands in the block of integers: sizes, addresses of tensors and scratch, and descriptors of files (-1: no such field).

A file that ends too soon, or a row that no slot has, is noted for the step in which it was found, and those that follow
find nothing to do. Compiled once a machine, as `one_token_loops` says.
"""

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from mindset.graft.file_token_block import FIELDS, STEPS
from mindset.graft.one_token_loops import activate, best, call, compiled_for_c, dots, pointer_to, share, types

__all__ = ["reader"]

_compiled = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"})

(
    THREADS, THREAD_NUMBER, THREAD_COUNT, BARRIER, PREAD, N_SLOTS, D_MODEL, CANDIDATES, K, RULE,
    KEY, KEY_BIAS, MODULATOR, MODULATOR_BIAS, VALUE, FIRST_BYTE, NORMS, WHITEN, CENTROIDS, STARTS,
    LISTS, PROBES, MOST, COPIES, INDEX, ENTRIES_AT, ROWS_AT, HOT, HOT_ROWS, HOT_ENTRIES, EVERY,
    X, OUT, FAILED, ASKED, PROMISE, CHOSEN_LISTS, PLACES, ENTRIES, ROWS, SCORES, NAMED,
    FETCHED, WEIGHTS, DOTS, CHOSEN, PARTS,
) = range(len(FIELDS))  # fmt: skip
LISTING, WEIGHING, SUMMING = range(STEPS)
FLOAT = 4
"""Bytes of a number."""


@intrinsic
def read_at(_: Any, address: Any, file: Any, into: Any, count: Any, offset: Any) -> Any:
    """Call `pread`, which lies at an address: the bytes that were read, or -1."""

    def code(_: Any, builder: Any, __: Any, args: Any) -> Any:
        wide = ir.IntType(64)
        function = ir.FunctionType(wide, [ir.IntType(32), wide, wide, wide]).as_pointer()
        descriptor = builder.trunc(args[1], ir.IntType(32))
        return builder.call(builder.inttoptr(args[0], function), [descriptor, *args[2:]])

    return types.int64(address, file, into, count, offset), code


@_compiled
@no_type_check
def floats(block: Any, field: Any, shape: Any) -> Any:
    """The numbers at a block's address."""
    return numba.carray(pointer_to(block[field], np.float32(0)), shape)


@_compiled
@no_type_check
def integers(block: Any, field: Any, count: Any) -> Any:
    """The integers at a block's address."""
    return numba.carray(pointer_to(block[field], np.int64(0)), count)


@_compiled
@no_type_check
def read_rows(block: Any, field: Any, width: Any, slots: Any, first: Any, last: Any, into: Any) -> Any:
    """Rows `slots[first:last]` of a field's slab, one behind the other; False where the file ends too soon."""
    size = width * FLOAT
    for n in range(first, last):
        at = block[FIRST_BYTE] + slots[n] * size
        if read_at(block[PREAD], block[field], into.ctypes.data + n * size, size, at) != size:
            return False
    return True


@_compiled
@no_type_check
def highest(scores: Any, count: Any, out: Any) -> Any:
    """Write the places of the `count` highest scores, rising; returns how many there are."""
    if count >= len(scores):
        for i in range(len(scores)):
            out[i] = i
        return len(scores)
    bound, found = np.partition(scores, len(scores) - count)[len(scores) - count], 0
    ties = count
    for i in range(len(scores)):
        ties -= not scores[i] <= bound
    for i in range(len(scores)):
        tied = (scores[i] == bound) & (ties > 0)
        if found < count and (tied or not scores[i] <= bound):
            out[found] = i
            found += 1
        ties -= tied
    return found


@_compiled
@no_type_check
def promising(block: Any) -> None:
    """Which lists are looked at, and where in the scratch the entries of each of them go."""
    promise, chosen = floats(block, PROMISE, block[LISTS]), integers(block, CHOSEN_LISTS, block[PROBES])
    places, starts = integers(block, PLACES, block[PROBES] + 1), integers(block, STARTS, block[LISTS] + 1)
    found = highest(promise, block[PROBES], chosen)
    places[0] = 0
    for i in range(block[PROBES]):
        length = starts[chosen[i] + 1] - starts[chosen[i]] if i < found else 0
        places[i + 1] = places[i] + length


@_compiled
@no_type_check
def listed(block: Any, asked: Any, every: Any, thread: Any, threads: Any) -> Any:
    """Read a thread's share of the lists and score what is in them; False where the file does not hold them."""
    wide = block[D_MODEL] + 1
    starts, chosen = integers(block, STARTS, block[LISTS] + 1), integers(block, CHOSEN_LISTS, block[PROBES])
    places, rows = integers(block, PLACES, block[PROBES] + 1), integers(block, ROWS, block[MOST])
    entries, scores = floats(block, ENTRIES, (block[MOST], wide)), floats(block, SCORES, block[MOST])
    for i in range(thread, block[PROBES], threads):
        first, count = places[i], places[i + 1] - places[i]
        if count == 0:
            continue
        source, size = starts[chosen[i]], count * wide * FLOAT
        into = block[ENTRIES] + first * wide * FLOAT
        if read_at(block[PREAD], block[INDEX], into, size, block[ENTRIES_AT] + source * wide * FLOAT) != size:
            return False
        into = block[ROWS] + first * 8
        if read_at(block[PREAD], block[INDEX], into, count * 8, block[ROWS_AT] + source * 8) != count * 8:
            return False
        for n in range(first, first + count):
            if not 0 <= rows[n] < block[N_SLOTS]:
                return False
        dots(asked, entries, every, first, first + count, scores)
    return True


@_compiled
@no_type_check
def once(scores: Any, rows: Any, count: Any, copies: Any) -> None:
    """Of a row that stands among the best several times, leave one: the others' scores become the lowest."""
    picked = np.empty(min(len(scores), count * copies), np.int64)
    found = highest(scores, len(picked), picked)
    order = np.argsort(rows[picked[:found]])
    for n in range(1, found):
        if rows[picked[order[n]]] == rows[picked[order[n - 1]]]:
            scores[picked[order[n]]] = -np.inf


@_compiled
@no_type_check
def name(block: Any, named: Any) -> Any:
    """Write the slots whose rows are worth a look; returns how many they are."""
    count = integers(block, PLACES, block[PROBES] + 1)[block[PROBES]]
    rows, scores = integers(block, ROWS, block[MOST]), floats(block, SCORES, block[MOST])
    wanted = block[CANDIDATES]
    if block[COPIES] > 1:
        once(scores[:count], rows[:count], wanted, block[COPIES])
    hot, promise = integers(block, HOT_ROWS, block[HOT]), floats(block, PROMISE, block[LISTS] + block[HOT])
    for n in range(block[HOT]):
        rows[count + n], scores[count + n] = hot[n], promise[block[LISTS] + n]
    found, kept = highest(scores[: count + block[HOT]], wanted, named), 0
    for n in range(found):
        if scores[named[n]] != -np.inf:
            named[kept] = rows[named[n]]
            kept += 1
    return kept


@_compiled
@no_type_check
def products(block: Any, field: Any, bias: Any, x: Any, slots: Any, first: Any, last: Any, out: Any) -> Any:
    """`out[n] = row(slots[n]) . x + bias` for a thread's share; False where a file ends too soon."""
    fetched = floats(block, FETCHED, (block[CANDIDATES], block[D_MODEL]))
    every = integers(block, EVERY, block[CANDIDATES])
    if not read_rows(block, field, block[D_MODEL], slots, first, last, fetched):
        return False
    dots(x, fetched, every, first, last, out)
    if block[bias] >= 0:
        biases = np.empty(last, np.float32)
        if not read_rows(block, bias, 1, slots, first, last, biases):
            return False
        for n in range(first, last):
            out[n] += biases[n]
    return True


@_compiled
@no_type_check
def weigh(block: Any, x: Any, slots: Any, first: Any, last: Any) -> Any:
    """The weights of named slots, a thread's share."""
    weights, others = floats(block, WEIGHTS, block[CANDIDATES]), floats(block, DOTS, block[CANDIDATES])
    if not products(block, KEY, KEY_BIAS, x, slots, first, last, weights):
        return False
    activate(block[RULE], integers(block, EVERY, block[CANDIDATES]), first, last, weights)
    if block[MODULATOR] >= 0:
        if not products(block, MODULATOR, MODULATOR_BIAS, x, slots, first, last, others):
            return False
        for n in range(first, last):
            weights[n] *= others[n]
    return True


@_compiled
@no_type_check
def choose(block: Any, named: Any, count: Any) -> Any:
    """The places among the named of the k of most influence; returns how many these are."""
    weights, influence = floats(block, WEIGHTS, block[CANDIDATES]), floats(block, DOTS, block[CANDIDATES])
    norms, k = floats(block, NORMS, block[N_SLOTS]), min(block[K], count)
    for n in range(count):
        influence[n] = abs(weights[n]) * norms[named[n]]
    if k:
        best(influence[:count], k, integers(block, CHOSEN, block[K]), np.int32(0))
    return k


@_compiled
@no_type_check
def add_values(block: Any, named: Any, chosen: Any, first: Any, last: Any, part: Any) -> Any:
    """A thread's share of the weighted values, summed."""
    fetched, weights = (
        floats(block, FETCHED, (block[CANDIDATES], block[D_MODEL])),
        floats(block, WEIGHTS, block[CANDIDATES]),
    )
    slots = np.empty(last, np.int64)
    for n in range(first, last):
        slots[n] = named[chosen[n]]
    part[:] = 0
    if not read_rows(block, VALUE, block[D_MODEL], slots, first, last, fetched):
        return False
    for n in range(first, last):
        weight, row = weights[chosen[n]], fetched[n]
        for j in range(len(part)):
            part[j] += weight * row[j]
    return True


@_compiled
@no_type_check
def together(block: Any) -> None:
    """Wait until all threads of the team are here."""
    if block[THREADS] > 1:
        call(block[BARRIER])


@_compiled
@no_type_check
def ask(block: Any, x: Any, thread: Any, threads: Any) -> Any:
    """The whitened query; beside it how promising every list is, and what the hot slots score."""
    wide, lists, hot = block[D_MODEL] + 1, block[LISTS], block[HOT]
    asked, plain = np.empty(wide, np.float32), np.empty(wide, np.float32)
    plain[: wide - 1], plain[wide - 1] = x, np.float32(1)
    every, promise = integers(block, EVERY, max(lists, hot, wide)), floats(block, PROMISE, lists + hot)
    dots(plain, floats(block, WHITEN, (wide, wide)), every, 0, wide, asked)
    first, last = share(thread, threads, lists)
    dots(asked, floats(block, CENTROIDS, (lists, wide)), every, first, last, promise)
    first, last = share(thread, threads, hot)
    dots(plain, floats(block, HOT_ENTRIES, (hot, wide)), every, first, last, promise[lists:])
    return asked


@_compiled
@no_type_check
def look(block: Any, x: Any, named: Any, thread: Any, threads: Any) -> None:
    """The first step: name the slots whose rows are read."""
    asked = ask(block, x, thread, threads)
    together(block)
    if thread == 0:
        promising(block)
    together(block)
    failed = integers(block, FAILED, STEPS)
    if not listed(block, asked, integers(block, EVERY, block[MOST]), thread, threads):
        failed[LISTING] = 1
    together(block)
    if thread == 0:
        named[block[CANDIDATES]] = 0 if failed[LISTING] else name(block, named)
    together(block)


@_compiled
@no_type_check
def rescore(block: Any, x: Any, named: Any, chosen: Any, thread: Any, threads: Any) -> None:
    """The second: weigh the named and choose the k of them."""
    failed, count = integers(block, FAILED, STEPS), named[block[CANDIDATES]]
    first, last = share(thread, threads, count)
    if not weigh(block, x, named, first, last):
        failed[WEIGHING] = 1
    together(block)
    if thread == 0:
        chosen[block[K]] = 0 if failed[WEIGHING] else choose(block, named, count)
    together(block)


@_compiled
@no_type_check
def read(block: Any) -> None:
    """All steps, as one thread of the team. After a failure there is nothing left for the steps that follow."""
    thread, threads = numba.int32(0), numba.int32(1)
    if block[THREADS] > 1:  # as many as OpenMP gave, which may be fewer
        thread, threads = call(block[THREAD_NUMBER]), call(block[THREAD_COUNT])
    x, out = floats(block, X, block[D_MODEL]), floats(block, OUT, block[D_MODEL])
    named, chosen = integers(block, NAMED, block[CANDIDATES] + 1), integers(block, CHOSEN, block[K] + 1)
    parts = floats(block, PARTS, (block[THREADS], block[D_MODEL]))
    look(block, x, named, thread, threads)
    rescore(block, x, named, chosen, thread, threads)
    first, last = share(thread, threads, chosen[block[K]])
    if not add_values(block, named, chosen, first, last, parts[thread]):
        integers(block, FAILED, STEPS)[SUMMING] = 1
    together(block)
    first, last = share(thread, threads, len(out))
    out[first:last] = parts[0, first:last]
    for n in range(1, threads):
        for j in range(first, last):
            out[j] += parts[n, j]


@no_type_check
def read_block(block: Any) -> None:
    """`read` for C."""
    read(numba.carray(block, len(FIELDS)))


@cache
def reader() -> int:
    """Address of the C function that reads for a block."""
    signature = types.void(types.CPointer(numba.int64))
    address: int = compiled_for_c(signature, cache=True)(read_block).address
    return address
