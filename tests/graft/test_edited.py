"""A saved model whose memory was edited: it computes with the edits, and as before when they are undone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from graft.test_folder import PLANS, make
from graft.tiny import tokens

from mindset.errors import UsageError
from mindset.graft import folder
from mindset.graft.model import banks
from mindset.graft.recording import Read, record
from mindset.store.layout import lay_out
from mindset.store.memory import Memory
from mindset.store.slots import Change, NewSlot

MIRRORS = ["mirror", "mirror-k", "mirror-score", "mirror-proxy-new"]


def logits(path: Path, **options: object) -> torch.Tensor:
    with torch.no_grad():
        return folder.load(path, **options)(tokens()).logits


def saved(tmp_path: Path, plan: str, dtype: torch.dtype = torch.float32) -> Path:
    folder.save(make(plan, dtype=dtype), tmp_path / "m")
    return tmp_path / "m"


def new_rows(memory: Memory, layer: int, count: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng, info = np.random.default_rng(0), memory.store.shard(layer, "base")
    return {
        field: (scale * rng.normal(size=(count, what["d"]))).astype(what["dtype"])
        for field, what in info.fields.items()
    }


@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan != "associative"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("slots", ["ram", "disk"])
def test_when_every_edit_is_undone_the_logits_are_the_same_bits(
    tmp_path: Path, plan: str, dtype: torch.dtype, slots: str
) -> None:
    path = saved(tmp_path, plan, dtype)
    before = logits(path, slots=slots)
    with Memory(path) as memory:
        layer = memory.store.shards()[0].layer
        some = memory.store.live(layer, "base").ids
        memory.delete(some[:5])
        memory.change(some[5:9], Change(weight=0.0))
    edited = logits(path, slots=slots)
    assert not torch.equal(edited, before)
    with Memory(path) as memory:
        memory.undo(2)
    assert torch.equal(logits(path, slots=slots), before)


@pytest.mark.parametrize("plan", MIRRORS)
def test_a_slot_that_is_out_is_a_row_of_zeros(tmp_path: Path, plan: str) -> None:
    path = saved(tmp_path, plan)
    with Memory(path) as memory:
        slot = memory.store.live(1, "base").ids[2:3]
        memory.delete(slot)
    model = folder.load(path)
    shard = banks(model)[1].shards["base"]
    assert shard.key[2].eq(0).all()
    assert shard.value[2].eq(0).all()
    assert shard.key[3].ne(0).any()


@pytest.mark.parametrize("plan", MIRRORS)
def test_a_slot_that_is_put_in_speaks(tmp_path: Path, plan: str) -> None:
    path = saved(tmp_path, plan)
    before = logits(path)
    slots = banks(folder.load(path))[1].n_slots
    with Memory(path) as memory:
        rows = new_rows(memory, 1, 2, scale=3.0)
        memory.insert(1, "base", [NewSlot()] * 2, rows)
    model = folder.load(path)
    bank = banks(model)[1]
    assert bank.n_slots == slots + 2
    per_shard = bank.shards["base"].n_slots
    assert np.array_equal(bank.shards["base"].value[per_shard - 2 :].detach().numpy(), rows["value"])
    if plan != "mirror-proxy-new":  # a proxy proposes new slots once it is fitted again
        assert not torch.equal(model(tokens()).logits, before)
    with Memory(path) as memory:
        memory.undo()
    assert torch.equal(logits(path), before)


def test_an_edited_value_is_what_the_model_computes_with(tmp_path: Path) -> None:
    path = saved(tmp_path, "mirror")
    model = folder.load(path)
    value = torch.arange(model.config.hidden_size, dtype=torch.float32)
    with torch.no_grad():
        banks(model)[0].shards["base"].value[5] = value
        wanted = model(tokens()).logits
    with Memory(path) as memory:
        memory.update(memory.store.live(0, "base").ids[5:6], {"value": value[None].numpy()})
    torch.testing.assert_close(logits(path), wanted, rtol=0, atol=1e-5)


def test_places_say_which_slot_is_where(tmp_path: Path) -> None:
    path = saved(tmp_path, "featural")
    with Memory(path) as memory:
        info = memory.store.shard(0, "base")
        first = memory.store.live(0, "base")
        memory.delete(first.ids[1:2])
        rows = {field: np.ones((1, what["d"]), what["dtype"]) for field, what in info.fields.items()}
        (made,) = memory.insert(0, "base", [NewSlot(head=1)], rows)
        layout = lay_out(memory.store.shard(0, "base"), memory.store.live(0, "base"))
    assert layout.capacity == info.sealed // 2 + 1
    assert layout.ids[0, 1] == 0
    assert layout.ids[1, -1] == made
    assert layout.ids[0, -1] == 0
    bank = banks(folder.load(path))[0]
    assert bank.n_slots == layout.capacity


def test_a_softmax_gives_no_weight_to_a_slot_that_is_out(tmp_path: Path) -> None:
    path = saved(tmp_path, "featural-softmax")
    with Memory(path) as memory:
        memory.delete(memory.store.live(0, "base").ids[:8])
    bank = banks(folder.load(path))[0]
    bank.set_k(None)
    reads: list[Read] = []
    with record(bank, reads.append), torch.no_grad():
        bank(torch.randn(4, bank.d_model, generator=torch.Generator().manual_seed(0)))
    assert reads[0].weights[..., :8].eq(0).all()
    assert reads[0].weights[..., 8:].gt(0).all()


def test_slots_of_an_associative_bank_are_left_alone(tmp_path: Path) -> None:
    path = saved(tmp_path, "associative")
    with Memory(path) as memory, pytest.raises(UsageError, match="associative"):
        memory.delete([1])
