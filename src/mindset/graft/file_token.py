"""Reading from files for one token, compiled: what a decoding step of a bounded memory does, in one call a bank.

Fetched row by row through the interpreter, three hundred rows of a token cost several times what the system's cache
takes to hand them over. With the extra `fast`, numba compiles the whole reading (`file_token_loops`): the lists of an
index that stay in their file, their best slots, those slots' rows. It wants slabs of float32, one shard and an
activation that it knows, and gives no gradients; elsewhere `bounded` takes torch's steps to the same sums.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mindset.errors import FormatError
from mindset.graft.bank import MirrorBank
from mindset.graft.file_token_block import FIELDS, STEPS
from mindset.graft.indexed import IndexProposer
from mindset.graft.one_token import has_kernels
from mindset.graft.one_token_block import rule_of
from mindset.graft.shard import Shard
from mindset.graft.torch_threads import Team, team
from mindset.store.file_lists import FileLists
from mindset.store.ivf import COPIES_SOUGHT
from mindset.store.row_file import RowFile

__all__ = ["FileTokenReader"]

_ROWS = ("key", "key_bias", "modulator", "modulator_bias", "value")
_WORTH_A_TEAM = 1 << 18
"""Bytes of lists below which one thread is as fast as several."""
_Block = ctypes.c_int64 * len(FIELDS)


class FileTokenReader:
    """The compiled reading of one bank: prepared once, and again when something it was made from is another one."""

    def __init__(self) -> None:
        self._prepared: _Prepared | None = None
        self._alone = threading.Lock()

    def read(
        self, bank: MirrorBank, files: dict[int, RowFile], x: Float[Tensor, "tokens d_model"]
    ) -> Float[Tensor, "tokens d_model"] | None:
        """The weighted sums of the values of the k slots chosen for each token; None where the loops do not apply.

        `files` are the slabs of mapped rows, by the address of these.
        """
        if torch.is_grad_enabled() or x.dtype is not torch.float32 or not x.is_cpu or bank.reads is not None:
            return None
        source = _source(bank, files)
        if source is None:
            return None
        out = torch.empty(x.shape)
        with self._alone:  # all readings share one scratch
            if self._prepared is None or self._prepared.source != source:
                self._prepared = _Prepared(source)
            for one, sums in zip(x.contiguous(), out, strict=True):
                self._prepared.read(one, sums)
        return out


@dataclass(frozen=True)
class _Source:
    """All that a reading is made from."""

    files: tuple[RowFile | None, ...]
    """In the order of `_ROWS`."""
    named_by: IndexProposer
    probes: int
    norms: int
    """Address of the values' lengths."""
    n_slots: int
    candidates: int
    k: int
    rule: int
    threads: int


def _source(bank: MirrorBank, files: dict[int, RowFile]) -> _Source | None:
    named_by, shards = bank.named_by, cast("list[Shard]", list(bank.shards.values()))
    if _loops() is None or len(shards) != 1 or not isinstance(named_by, IndexProposer):
        return None
    shard, rule = shards[0], rule_of(shards[0].activation)
    rows = [cast("Tensor | None", getattr(shard, name)) for name in _ROWS]
    found = tuple(None if row is None else files.get(row.data_ptr()) for row in rows)
    loose = any(row is not None and file is None for row, file in zip(rows, found, strict=True))
    if loose or rule is None or not isinstance(named_by.index.ivf, FileLists):
        return None
    if any(file is not None and file.dtype != "float32" for file in found):
        return None
    norms = shard.value_norm()
    candidates = min(bank.propose.candidates, bank.n_slots)
    return _Source(found, named_by, named_by.probes, norms.data_ptr(), bank.n_slots, candidates, bank.effective_k(),
                   rule, torch.get_num_threads())  # fmt: skip


class _Prepared:
    """The block of one source, and what its addresses point to."""

    def __init__(self, source: _Source) -> None:
        self.source = source
        index = source.named_by.index
        lists = cast(FileLists, index.ivf)
        probes, wide = min(source.probes, lists.lists), lists.centroids.shape[1]
        hot = np.zeros((0, wide), np.float32) if index.hot_entries is None else index.hot_entries
        most = lists.most(probes) + len(index.hot)
        longest = max(most, lists.lists, len(index.hot), wide, source.candidates)
        lent = team() if lists.most(probes) * wide * 4 >= _WORTH_A_TEAM else None
        self.threads = 1 if lent is None else source.threads
        self.failed = np.zeros(STEPS, np.int64)
        arrays = {
            "whiten": np.ascontiguousarray(lists.to_queries.T), "centroids": lists.centroids,
            "starts": lists.starts.astype(np.int64), "hot_rows": index.hot.astype(np.int64), "hot_entries": hot,
            "every": np.arange(longest), "failed": self.failed,
            "promise": np.empty(lists.lists + len(index.hot), np.float32),
            "chosen_lists": np.empty(probes, np.int64), "places": np.empty(probes + 1, np.int64),
            "entries": np.empty((most, wide), np.float32), "rows": np.empty(most, np.int64),
            "scores": np.empty(most, np.float32), "named": np.empty(source.candidates + 1, np.int64),
            "fetched": np.empty((source.candidates, wide - 1), np.float32),
            "weights": np.empty(source.candidates, np.float32), "dots": np.empty(source.candidates, np.float32),
            "chosen": np.empty(source.k + 1, np.int64), "parts": np.empty((self.threads, wide - 1), np.float32),
        }  # fmt: skip
        self.kept = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        """What the block's addresses point to."""
        numbers = {
            "threads": self.threads,
            "thread_number": 0 if lent is None else lent.thread_number,
            "thread_count": 0 if lent is None else lent.thread_count,
            "barrier": 0 if lent is None else lent.barrier,
            "pread": _address_of_pread(),
            "n_slots": source.n_slots,
            "d_model": wide - 1,
            "candidates": source.candidates,
            "k": source.k,
            "rule": source.rule,
            "first_byte": next(file.first_byte for file in source.files if file is not None),
            "norms": source.norms,
            "lists": lists.lists,
            "probes": probes,
            "most": most,
            "copies": 1 if lists.kind == "keys" else min(probes, COPIES_SOUGHT),
            "index": lists.file.descriptor,
            "entries_at": lists.file.start_of("entries"),
            "rows_at": lists.file.start_of("rows"),
            "hot": len(index.hot),
        }
        numbers |= {
            name: -1 if file is None else file.descriptor
            for name, file in zip(_ROWS, source.files, strict=True)
        }
        numbers |= {name: array.ctypes.data for name, array in self.kept.items()}
        self.block = _Block(*[numbers.get(name, 0) for name in FIELDS])
        self.address = ctypes.addressof(self.block)
        self.function = cast(ModuleType, _loops()).reader()
        self.alone = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.function)

    def read(self, x: Float[Tensor, " d_model"], out: Float[Tensor, " d_model"]) -> None:
        self.block[_X], self.block[_OUT] = x.data_ptr(), out.data_ptr()
        if self.threads > 1:
            cast(Team, team()).run(self.function, self.address, self.threads)
        else:
            self.alone(self.address)
        if self.failed.any():
            self.failed[:] = 0
            raise FormatError(
                "a file of the memory is cut off or was replaced while it was read; load the model again"
            )


_X, _OUT = FIELDS.index("x"), FIELDS.index("out")


@cache
def _address_of_pread() -> int:
    return cast(int, ctypes.cast(ctypes.CDLL(None).pread, ctypes.c_void_p).value)


@cache
def _loops() -> ModuleType | None:
    if not has_kernels():
        return None
    from mindset.graft import file_token_loops

    return file_token_loops
