"""Reading for one token, compiled: what a decoding step does, in one call a bank.

torch on a CPU has no product of one input with *chosen* rows: `index_select` writes every row once more. And after
each product of some megabytes the processor's caches have forgotten the interpreter, so that each small operation
around it costs several times what it costs alone. With the extra `fast`, numba compiles the whole reading, on torch's
own threads. It wants contiguous float32 or float64 on a CPU, an activation that it knows, and gives no gradients; where
it does not apply torch's steps in `bank` give the same sums.

Ties are broken by the lower slot number; what is not a number is chosen first and spoils the sum, as in torch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from operator import is_
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mindset.graft.one_token_block import FIELDS, KINDS, rule_of
from mindset.graft.propose import ProposerSpec
from mindset.graft.read_log import ReadLog
from mindset.graft.torch_threads import Team, team

__all__ = ["OneTokenReader", "Rows", "has_kernels"]

_DTYPES = (torch.float32, torch.float64)
_WORTH_A_TEAM = 1 << 20
"""Bytes of rows below which one thread is as fast as several."""
_Block = ctypes.c_int64 * len(FIELDS)
_THREADS, _N_SLOTS, _K, _X, _OUT, _FLOATS, _NUMBERS = (
    FIELDS.index(name) for name in ("threads", "n_slots", "k", "x", "out", "floats", "numbers")
)


def has_kernels() -> bool:
    """Whether numba is there."""
    return _loops() is not None


class OneTokenReader:
    """The compiled reading of one bank: prepared once, and again when a tensor or a setting is another one.

    Between products every line of Python counts (see above): `read` does no more than it must.
    """

    def __init__(self) -> None:
        self._prepared: _Prepared | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies are prepared anew."""
        return type(self), ()

    def read(
        self,
        x: Float[Tensor, "... d_model"],
        spec: ProposerSpec,
        k: int,
        rows: Callable[[], Rows],
        reads: ReadLog | None = None,
    ) -> Float[Tensor, "... d_model"] | None:
        """The weighted sum of the values of the k slots chosen for the one token of x.

        None where the loops do not apply: a gradient may be wanted, or x or the rows are not of a kind they know.
        `rows` is asked when there is something to prepare, `reads` told what was chosen.
        """
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or not (x.is_cpu and x.is_contiguous()):
            return None
        ready = self._prepared
        if ready is None or ready.k != k or ready.spec is not spec or ready.stale():
            ready = self._prepared = _Prepared(rows(), spec, k)
        return ready.read(x, reads) if x.dtype is ready.dtype else None


@dataclass(frozen=True, eq=False)
class Rows:
    """What a reading fetches: the tensors of one shard and of its proposer."""

    holders: list[dict[str, Any]]
    """The live dictionaries of modules, parameters and buffers; tensors by the names of `FIELDS`."""
    versions: list[Tensor]
    """Those whose numbers went into `norms` and `scale`, or are kept as a copy."""
    norms: Float[Tensor, " n_slots"]
    """What an absolute weight is multiplied by to give the slot's influence."""
    scale: Float[Tensor, " n_slots"]
    """What it is multiplied by to rank the slot for the proposer."""
    activation: nn.Module | None
    """None: these rows are not to be read by the loops."""


class _Prepared:
    """What differs between tokens is left out of the block; what it was made from is kept to see when it changes."""

    def __init__(self, rows: Rows, spec: ProposerSpec, k: int) -> None:
        self.spec, self.k = spec, k
        self.held = [(holder, [*holder.values()]) for holder in rows.holders]
        self.tensors = [held for _, all_held in self.held for held in all_held if isinstance(held, Tensor)]
        self.addresses = [tensor.data_ptr() for tensor in self.tensors]
        counted = [tensor for tensor in rows.versions if not tensor.is_inference()]
        self.versions = [(tensor, tensor._version) for tensor in counted]  # noqa: SLF001  no public name
        self.of_torch = torch.get_num_threads()
        self.dtype: torch.dtype | None = None
        """Of the numbers; None where the loops cannot read them."""
        self.spare: list[_Scratch] = []
        self._fill(rows)

    def _fill(self, rows: Rows) -> None:
        named = {"norms": rows.norms, "scale": rows.scale}
        for holder, _ in self.held:
            named |= {name: held for name, held in holder.items() if isinstance(held, Tensor) and len(held)}
        given = {name: tensor.detach() for name, tensor in named.items() if name in FIELDS}
        rule = None if rows.activation is None or not has_kernels() else rule_of(rows.activation)
        if rule is None or len(self.versions) < len(rows.versions) or not _are_plain([*given.values()]):
            return
        n_slots, d_model = given["key"].shape
        for name in given.keys() & {
            "key_low",
            "modulator_low",
        }:  # their rows are too short to be summed alone
            given[name] = given[name].T.contiguous()
        given["every"] = torch.arange(max(n_slots, self.spec.rank))
        lent = team() if given["key"].nbytes >= _WORTH_A_TEAM else None
        self.threads = 1 if lent is None else self.of_torch
        numbers = {
            "threads": self.threads,
            "thread_number": 0 if lent is None else lent.thread_number,
            "thread_count": 0 if lent is None else lent.thread_count,
            "barrier": 0 if lent is None else lent.barrier,
            "n_slots": n_slots,
            "d_model": d_model,
            "candidates": self.spec.candidates,
            "k": min(self.k, n_slots),
            "kind": KINDS.index(self.spec.kind),
            "rule": rule,
            "rank": self.spec.rank,
        }
        values = numbers | {name: tensor.data_ptr() for name, tensor in given.items()}
        self.block = _Block(*[values.get(name, 0) for name in FIELDS])
        self.kept = [*given.values()]
        """What the block's addresses point to; nothing else comes to lie there as long as it is kept."""
        self.dtype = given["key"].dtype
        self.function = cast(ModuleType, _loops()).reader(str(self.dtype).removeprefix("torch."))
        self.alone = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.function)

    def stale(self) -> bool:
        """Whether a tensor is another one, lies elsewhere or has other numbers, or torch another number of threads."""
        for holder, held in self.held:
            if len(holder) != len(held) or not all(map(is_, holder.values(), held)):
                return True
        for tensor, version in self.versions:
            if tensor._version != version:  # noqa: SLF001
                return True
        if [tensor.data_ptr() for tensor in self.tensors] != self.addresses:
            return True
        return torch.get_num_threads() != self.of_torch

    def read(
        self, x: Float[Tensor, "... d_model"], reads: ReadLog | None = None
    ) -> Float[Tensor, "... d_model"]:
        out = torch.empty_like(x)
        scratch = self.spare.pop() if self.spare else _Scratch(self.block)  # each caller its own
        scratch.block[_X], scratch.block[_OUT] = x.data_ptr(), out.data_ptr()
        if self.threads > 1:
            cast(Team, team()).run(self.function, scratch.address, self.threads)
        else:
            self.alone(scratch.address)
        if reads is not None:
            reads.one(*scratch.choice(self.dtype))
        self.spare.append(scratch)
        return out


class _Scratch:
    """Room for one reading, and a block that says where it is."""

    def __init__(self, block: Any) -> None:
        n_slots = block[_N_SLOTS]
        self.block = _Block.from_buffer_copy(block)
        self.address = ctypes.addressof(self.block)
        self.room = torch.empty(4 * n_slots, dtype=torch.float64)  # two rows of numbers, two of weights
        self.block[_NUMBERS] = self.room.data_ptr()
        self.block[_FLOATS] = self.room.data_ptr() + 2 * n_slots * self.room.element_size()
        self._choice: tuple[np.ndarray, np.ndarray] | None = None

    def choice(self, dtype: torch.dtype | None) -> tuple[np.ndarray, np.ndarray]:
        """The k slots that the last reading chose, and the weights of all, theirs exact: views, not copies."""
        if self._choice is None:
            n_slots, k = self.block[_N_SLOTS], self.block[_K]
            slots = self.room.view(torch.int64)[n_slots : n_slots + k]
            weights = self.room[2 * n_slots :].view(dtype or torch.float64)[:n_slots]
            self._choice = slots.numpy(), weights.numpy()
        return self._choice


def _are_plain(tensors: list[Tensor]) -> bool:
    dtype = tensors[0].dtype
    return dtype in _DTYPES and all(t.is_cpu and t.dtype == dtype and t.is_contiguous() for t in tensors)


@cache
def _loops() -> ModuleType | None:
    try:
        import numba  # noqa: F401
    except ImportError:
        return None
    from mindset.graft import one_token_loops

    return one_token_loops
