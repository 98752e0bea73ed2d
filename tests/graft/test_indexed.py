"""Candidates named by an index: what is read is what the proposer itself would have read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from graft.tiny_banks import make_bank, make_x
from torch import nn

from mindset.errors import UsageError
from mindset.graft.indexed import IndexProposer, proposing_by
from mindset.graft.propose import ProposerSpec
from mindset.store import BankRecord, MemoryDir, Rows, ShardRecord
from mindset.store.entries import QueryMoments
from mindset.store.search import ShardSearch
from mindset.store.shard_index import ShardIndex
from mindset.store.slab_store import SlabStore
from mindset.store.slots import NewSlot

pytest.importorskip("faiss", reason="needs faiss, the extra `ann`")


class Model(nn.Module):
    def __init__(self, bank: nn.Module) -> None:
        super().__init__()
        self.bank = bank


@pytest.fixture
def store(tmp_path: Path) -> SlabStore:
    shard = make_bank(60, 0, 6).shards["base"]
    fields = {
        name: Rows(getattr(shard, name).detach().numpy(), "float64")
        for name in ("key", "key_bias", "modulator", "modulator_bias", "value")
    }
    MemoryDir.write(
        tmp_path / "m", [BankRecord(0, "mirror", 1, (ShardRecord("base", "silu", True, 60, fields),))]
    )
    return SlabStore(tmp_path / "m")


def test_every_list_probed_and_every_slot_named_is_the_bank_itself(store: SlabStore) -> None:
    bank = make_bank(60, 0, 6, k=4, propose=ProposerSpec("score", 60))
    x = make_x(2, 6).detach()
    with store, torch.no_grad():
        queries = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
        index = ShardIndex.of_keys(ShardSearch(store, 0, "base"), QueryMoments.of(queries), lists=5)
        with proposing_by(Model(bank), {0: IndexProposer(index, 5)}):
            named = bank(x)
        assert bank.named_by is None
        torch.testing.assert_close(named, bank.read_masked(x) + bank.bias)
        torch.testing.assert_close(bank(x[:1]), named[:1])


def test_places_that_are_left_over_add_nothing(store: SlabStore) -> None:
    bank = make_bank(60, 0, 6, k=4, propose=ProposerSpec("score", 8))
    with torch.no_grad():
        bank.named_by = lambda x, count: torch.tensor([[3] + [-1] * (count - 1)])
        x = make_x(1, 6).detach()
        shard = bank.shards["base"]
        alone = shard.weights(x)[:, 3:4] @ shard.value[3:4] + bank.bias
        torch.testing.assert_close(bank(x), alone)
    store.close()


def test_what_cannot_be_named_is_refused(store: SlabStore) -> None:
    by_influence = Model(make_bank(60, 0, 6, k=4))
    with store:
        search = ShardSearch(store, 0, "base")
        index = ShardIndex.of_keys(search, QueryMoments.of(np.ones((9, 6), np.float32)), lists=2)
        proposer = IndexProposer(index, 1)
        with (
            pytest.raises(UsageError, match="does not propose by score"),
            proposing_by(by_influence, {0: proposer}),
        ):
            pass
        new = {name: np.zeros((1, what["d"])) for name, what in search.info.fields.items()}
        store.insert(0, "base", [NewSlot()], new)
        search.refresh()
        with pytest.raises(UsageError, match="was edited"):
            IndexProposer(index, 1)
