"""Read a memory from its files with no more of it in RAM than its owner allows.

    model = mindset.load("smol", ram=500 << 20)

Rows are mapped. A bank takes a few tokens at a time: candidates are named by the shard's index where `mindset memory
index` chose one, else every key is scored, block by block, and before a block that would pass the limit all that has
come in is given back; then candidates' rows are read from the files and dropped. What is kept of every slot (lengths,
bookkeeping of an index) and shards that were edited, which lie in RAM, count too.

Knows no clients. Invariant: without an index a bounded model computes what the same model in RAM does, to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mindset.errors import UsageError
from mindset.graft.bank import Bank, MirrorBank
from mindset.graft.file_token import FileTokenReader
from mindset.graft.indexed import IndexProposer
from mindset.graft.model import banks
from mindset.graft.shard import Shard
from mindset.store.file_lists import FileLists
from mindset.store.index_choice import read_choice
from mindset.store.memory_dir import MemoryDir
from mindset.store.resident import FAULT_BYTES, Resident
from mindset.store.row_file import RowFile
from mindset.store.search import ShardSearch
from mindset.store.shard_index import IndexPlace, ShardIndex
from mindset.store.slab_store import SlabStore

__all__ = ["Bounded", "bound"]

SHARE = 16
"""A step may bring in the limit's share of one in so many."""
MOST_TOKENS = 16
"""Tokens of a step at most."""


class Bounded:
    """Reads the banks of one model in steps, and keeps to the limit between them."""

    def __init__(self, resident: Resident) -> None:
        self.resident = resident
        self.files: dict[int, RowFile] = {}
        """By the address of mapped rows."""
        self._compiled: dict[int, FileTokenReader] = {}
        """By layer."""
        self._steps: dict[tuple[int, int | None], int] = {}
        """By layer and k: tokens of a step."""

    def read(self, bank: MirrorBank, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens d_model"]:
        """What the bank reads, its output bias left out."""
        compiled = self._compiled.setdefault(bank.layer, FileTokenReader())
        if (out := compiled.read(bank, self.files, x)) is not None:
            return out
        return torch.cat([bank.read_gathered(piece) for piece in x.split(self._step(bank))])

    def fetch(self, rows: Float[Tensor, "n ..."], slots: Int[Tensor, ...]) -> Float[Tensor, ...]:
        """`rows[slots]`, from the file where the rows are mapped."""
        file = self.files.get(rows.data_ptr())
        if file is None:
            return rows[slots]
        if slots.ndim == 1 or len(slots) == 1:  # of one token all are different
            wanted, places = slots.flatten(), None
        else:
            wanted, places = torch.unique(slots, return_inverse=True)
        out = torch.empty((len(wanted), *rows.shape[1:]), dtype=rows.dtype)
        file.read(wanted.tolist(), out.view(torch.uint8).numpy().data.cast("B"))
        return out.view(*slots.shape, *rows.shape[1:]) if places is None else out[places]

    def multiply(self, x: Tensor, rows: Float[Tensor, "n d"], bias: Tensor | None = None) -> Tensor:
        """`F.linear`, block by block."""
        blocks = self.blocks(rows)
        parts = [F.linear(x, rows[some], None if bias is None else bias[some]) for some in blocks]
        return torch.cat(parts, dim=-1)

    def combine(
        self, weights: Float[Tensor, "tokens n"], rows: Float[Tensor, "n d"]
    ) -> Float[Tensor, "tokens d"]:
        """`weights @ rows`, block by block."""
        out = weights.new_zeros(len(weights), rows.shape[1])
        for some in self.blocks(rows):
            out += weights[:, some] @ rows[some]
        return out

    def blocks(self, rows: Float[Tensor, "n d"]) -> Iterator[slice]:
        """The rows in pieces that may be brought in one after the other."""
        each = rows.shape[1] * rows.element_size()
        step = max(1, self.resident.limit // SHARE // each)
        for start in range(0, len(rows), step):
            self.resident.make_room(step * each)
            yield slice(start, start + step)

    def _step(self, bank: MirrorBank) -> int:
        """By the rows that are fetched for a token, and the numbers that it has for every slot."""
        key = (bank.layer, bank.k)
        if key not in self._steps:
            numbers = 0 if bank.named_by is not None else bank.n_slots * bank.modulator_rms.element_size()
            each = max(token_bytes(bank), numbers)
            self._steps[key] = max(1, min(MOST_TOKENS, self.resident.limit // SHARE // each))
        return self._steps[key]


def bound(model: nn.Module, memory: MemoryDir, ram: int) -> Resident:
    """Let the banks of a model whose rows are mapped from `memory` be read with at most `ram` bytes of them in RAM."""
    held = {layer: _bounded(bank) for layer, bank in banks(model).items()}
    resident = Resident(ram)
    reader = Bounded(resident)
    kept = _watch(held, memory, reader)
    for bank in held.values():
        for shard in cast("list[Shard]", list(bank.shards.values())):
            _measure(shard, reader)
            shard.multiply, shard.combine, shard.fetch = reader.multiply, reader.combine, reader.fetch
        bank.reader = reader.read
        kept += bank.n_slots * 2 * bank.modulator_rms.element_size()
    kept += _index(held, memory)
    need = 2 * max((token_bytes(bank) for bank in held.values()), default=0) + FAULT_BYTES
    if ram - kept < need:
        raise UsageError(
            f"{ram:,} bytes are too few for this memory: {kept:,} are kept of every slot, and reading takes {need:,}"
        )
    resident.limit = ram - kept
    resident.give_back()
    return resident


def token_bytes(bank: MirrorBank) -> int:
    """Bytes of the rows that are fetched for one token, the keys that are scored not counted."""
    k = bank.effective_k()
    candidates = min(bank.propose.candidates or k, bank.n_slots)
    return (2 * candidates + k) * bank.d_model * bank.modulator_rms.element_size()


def _bounded(bank: Bank) -> MirrorBank:
    if not isinstance(bank, MirrorBank) or bank.k is None:
        raise UsageError(
            f"the bank of layer {bank.layer} reads all of its slots for every token, so no limit of RAM can hold; "
            "convert the model with --k"
        )
    return bank


def _watch(held: dict[int, MirrorBank], memory: MemoryDir, reader: Bounded) -> int:
    """Count what is mapped; returns the bytes of rows that lie in RAM."""
    loose = 0
    for bank in held.values():
        for name, shard in bank.shards.items():
            for field, rows in shard.named_parameters():
                place = (bank.layer, name, field)
                if _is_mapped(rows, memory, place):
                    reader.resident.watch(memory.rows(*place))
                    reader.files[rows.data_ptr()] = memory.row_file(*place)
                else:
                    loose += rows.numel() * rows.element_size()
    return loose


def _is_mapped(rows: Tensor, memory: MemoryDir, place: tuple[int, str, str]) -> bool:
    return rows.data_ptr() == memory.rows(*place).ctypes.data


def _measure(shard: Shard, reader: Bounded) -> None:
    """The lengths of values, block by block."""
    value = shard.value.detach()
    shard.keep_norm(torch.cat([value[some].norm(dim=-1) for some in reader.blocks(value)]))


def _index(held: dict[int, MirrorBank], memory: MemoryDir) -> int:
    """Let candidates be named by indexes that were chosen; returns the bytes that these take."""
    chosen = {layer: found for layer, bank in held.items() if (found := _chosen(bank, memory)) is not None}
    if not chosen:
        return 0
    taken = 0
    with SlabStore(memory.folder, read_only=True) as store:
        for layer, (place, probes) in chosen.items():
            index = ShardIndex.opened(ShardSearch(store, layer, place.shard), place, in_file=True)
            if index is not None:
                held[layer].named_by = IndexProposer(index, probes)
                taken += index.nbytes
                taken += index.ivf.bytes_of(probes) if isinstance(index.ivf, FileLists) else 0
    return taken


def _chosen(bank: MirrorBank, memory: MemoryDir) -> tuple[IndexPlace, int] | None:
    """Where the index of a bank is and how many of its lists are looked at, where it has one that names its rows."""
    if bank.propose.kind != "score" or len(bank.shards) != 1:
        return None
    ((name, shard),) = bank.shards.items()
    place = IndexPlace.of(memory.folder, bank.layer, name, memory.generation)
    choice = read_choice(place)
    if choice is None or choice.engine == "exact" or choice.best is None:
        return None
    as_saved = _is_mapped(cast(Shard, shard).key, memory, (bank.layer, name, "key"))
    return (place, choice.best.probes) if as_saved else None
