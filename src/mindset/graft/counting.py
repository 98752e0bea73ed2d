"""Counting what a saved model reads, when its owner asks for it.

    with counting(model, folder):
        ...                        # every pass of the model inside

A model never changes by being read, and counting changes nothing that it computes: only the counters beside the slabs
(`store.counters`), which eviction, merging and `mindset memory search --sort` go by. Tokens that are padding, and reads
of banks outside a pass of the model, are not counted. What was counted is written every few thousand tokens and as the
block ends, whatever ended it; an edit that others make meanwhile is followed by slot. Where a bank reads all of its
slots for every token, hits tell nothing, and influence does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mindset.errors import BusyError, UsageError
from mindset.graft.bank import Bank
from mindset.graft.model import banks
from mindset.graft.read_log import Pass, ReadLog
from mindset.graft.shard import Shard
from mindset.graft.sources import Loaded
from mindset.store.tally import ReadCount

__all__ = ["counting", "folder_of"]

_TOKENS = 4096
"""After how many tokens the counters are written."""


@contextmanager
def counting(model: nn.Module, folder: str | Path, *, decay: float | None = None) -> Iterator[None]:
    """Count the reads of `model`, which was loaded from `folder` as it is now, while the block is open.

    `decay` is the lambda of LRFU by token; None: the one that this memory is counted with, or 0.0001.
    """
    if decay is not None and not 0 <= decay <= 1:
        raise UsageError(f"decay = {decay}; give 0 (as LFU) to 1 (as LRU)")
    held = banks(model)
    if not held:
        raise UsageError(f"a {type(model).__name__} has no memory whose reads could be counted")
    session = _Session(held, ReadCount(Path(folder), decay))
    with ExitStack() as stack:
        for layer, bank in held.items():
            stack.callback(setattr, bank, "reads", bank.reads)
            bank.reads = session.logs[layer]
        for handle in (
            model.register_forward_pre_hook(session.begin, with_kwargs=True),
            model.register_forward_hook(session.end, always_call=True),
        ):
            stack.callback(handle.remove)
        try:
            yield
        finally:
            session.write()


def folder_of(loaded: Loaded) -> Path:
    """The folder of a loaded MODEL, where its reads can be counted."""
    if loaded.path is None or not (loaded.path / "memory").is_dir():
        raise UsageError(
            f"{loaded.name} has no memory whose reads could be counted; give a folder made by convert"
        )
    return loaded.path


class _Session:
    def __init__(self, held: dict[int, Bank], count: ReadCount) -> None:
        self.count, self.now = count, Pass()
        self.logs = {
            layer: ReadLog(bank.n_heads * bank.n_slots, bank.n_heads, _norms(bank), count.decay, self.now)
            for layer, bank in held.items()
        }
        self.shards = {layer: _places(bank, count) for layer, bank in held.items()}
        self.written = 0

    def begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A pass begins."""
        self.now.running, self.now.kept = True, _kept(args, kwargs)
        for log in self.logs.values():
            log.at = 0

    def end(self, *_: object) -> None:
        """A pass ends; its counts are written where it is time."""
        self.now.running = False
        first = next(iter(self.logs.values()))
        if first.tokens - self.written >= _TOKENS:
            try:
                self.write(wait_seconds=0.0)
            except BusyError:  # an edit is under way: next time
                self.written = first.tokens

    def write(self, wait_seconds: float = 10.0) -> None:
        tallies = {layer: log.drain() for layer, log in self.logs.items()}
        self.count.write(tallies, self.shards, wait_seconds=wait_seconds)
        self.written = next(iter(self.logs.values())).tokens


def _places(bank: Bank, count: ReadCount) -> list[tuple[str, Any]]:
    """By shard: where in the bank's flat order each of its places is."""
    found, start = [], 0
    per_head = torch.arange(bank.n_heads * bank.n_slots).view(bank.n_heads, bank.n_slots)
    for name, shard in cast(nn.ModuleDict, bank.shards).items():
        stop = start + int(cast(Any, shard).n_slots)
        known = count.positions.shards.get((bank.layer, name))
        if known is None or known.ids.shape != (bank.n_heads, stop - start):
            raise UsageError(
                f"{count.folder}: layer {bank.layer}, {name} is not as the model has it; load the model again"
            )
        found.append((name, per_head[:, start:stop].numpy()))
        start = stop
    return found


def _norms(bank: Bank) -> Float[Tensor, " places"]:
    """The length of every value, heads after one another."""
    shards = cast(nn.ModuleDict, bank.shards).values()
    found = [
        s.value_norm() if isinstance(s, Shard) else cast(Any, s).value.detach().norm(dim=-1) for s in shards
    ]
    return torch.cat([norms.view(bank.n_heads, -1) for norms in found], dim=1).flatten()


def _kept(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Of the tokens of a pass those that are no padding, as numpy; None: all of them."""
    mask = kwargs.get("attention_mask")
    ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0] if args else None
    if mask is None or mask.ndim != 2 or ids is None or bool(mask.all()):
        return None
    return mask[:, -ids.shape[1] :].bool().flatten().cpu().numpy()
