"""Decode through the index of a memory: candidates come from its lists, so most keys are not read at all.

What is put into a mirror bank is only who names the candidates of a few tokens at a time; their exact influence picks
the k as ever. Rows are places in the bank's one shard, which has to be as it was saved: an edited shard is laid out
anew when it is loaded, and reads every key.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mindset.errors import UsageError
from mindset.graft.bank import Bank, MirrorBank
from mindset.graft.model import banks
from mindset.store.shard_index import ShardIndex

__all__ = ["IndexProposer", "proposing_by"]


class IndexProposer:
    """Names candidates from the lists of one shard."""

    def __init__(self, index: ShardIndex, probes: int) -> None:
        if index.search_exactly.info.top != index.search_exactly.info.sealed:
            raise UsageError("the shard was edited since it was saved; save the model anew and index it")
        self.index, self.probes = index, probes

    def __call__(self, x: Float[Tensor, "tokens d_model"], count: int) -> Int[Tensor, "tokens candidates"]:
        """At most `count` rows each; a place that is left over holds -1."""
        rows, _ = self.index.search_rows(x.detach().float().cpu().numpy(), count, self.probes)
        return torch.from_numpy(np.ascontiguousarray(rows)).to(x.device)


@contextmanager
def proposing_by(model: nn.Module, proposers: dict[int, IndexProposer]) -> Iterator[None]:
    """Let these banks' candidates be named by an index while the block is open."""
    chosen = {layer: _nameable(banks(model)[layer]) for layer in proposers}
    try:
        for layer, bank in chosen.items():
            bank.named_by = proposers[layer]
        yield
    finally:
        for bank in chosen.values():
            bank.named_by = None


def _nameable(bank: Bank) -> MirrorBank:
    if not isinstance(bank, MirrorBank) or bank.propose.kind != "score" or len(bank.shards) != 1:
        raise UsageError(f"the bank of layer {bank.layer} does not propose by score from one shard")
    return bank
