"""Models whose memories were evicted and merged: what they compute, and that it goes back to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from graft.test_edited import logits, saved
from graft.test_folder import make
from graft.tiny import tokens

from mindset.graft import folder
from mindset.graft.counting import counting
from mindset.graft.model import banks
from mindset.store.eviction_plan import EvictionSettings, plan_eviction
from mindset.store.memory import Memory
from mindset.store.merging import MergeSettings, plan_merging
from mindset.store.slots import NewSlot


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_evicted_slots_add_nothing_and_come_back_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    path = saved(tmp_path, "mirror-k", dtype)
    before = logits(path)
    model = folder.load(path)
    with torch.no_grad(), counting(model, path):
        model(tokens())
    with Memory(path) as memory:
        plan = plan_eviction(memory.store, EvictionSettings("influence", keep=12))
        memory.evict(plan)
    smaller = folder.load(path)
    for layer, bank in banks(smaller).items():
        dead = bank.shards["base"].value.norm(dim=-1) == 0
        assert int(dead.sum()) == sum(head.evicted for head in plan.heads if head.layer == layer)
    assert not torch.equal(logits(path), before)
    with Memory(path) as memory:
        memory.undo()
    assert torch.equal(logits(path), before)


@pytest.mark.parametrize("slots", ["ram", "disk"])
def test_two_slots_that_are_the_same_become_one_with_the_same_output(tmp_path: Path, slots: str) -> None:
    path = saved(tmp_path, "mirror")
    with Memory(path) as memory:
        ids = memory.store.live(0, "base").ids
        fields = [*memory.store.shard(0, "base").fields]
        rows = memory.store.fetch(ids[2:5], fields)
        rows["value"] = np.random.default_rng(0).normal(size=rows["value"].shape).astype(np.float32)
        memory.insert(0, "base", [NewSlot()] * 3, rows)
    before = logits(path, slots=slots)
    with Memory(path) as memory:
        plan = plan_merging(memory.store, MergeSettings(within=0.0))
        assert len(plan.groups) == 3
        assert plan.change[0] == 0
        memory.merge(plan)
    merged = logits(path, slots=slots)
    torch.testing.assert_close(merged, before, rtol=1e-4, atol=1e-5)
    with Memory(path) as memory:
        memory.undo()
    assert torch.equal(logits(path, slots=slots), before)


def test_a_model_made_in_ram_is_not_counted(tmp_path: Path) -> None:
    """Its memory is nowhere; a folder of another shape is refused."""
    path = saved(tmp_path, "mirror-k")
    with pytest.raises(ValueError, match="load the model again"), counting(make("mirror-new-gelu"), path):
        pass
