"""A slot made by hand answers where it was told to, and nowhere near it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mindset.errors import UsageError
from mindset.facts.hand_made import Wish, insert_slot, insert_slot_into
from mindset.graft.folder import load
from mindset.graft.mounting import unmount
from mindset.graft.sources import load_teacher
from mindset.store.memory import Memory

WISH = Wish("My favourite colour is", "turquoise", 0.03)
"""Untrained as it is, the model cannot say anything with a much higher probability."""


def _logits(model: torch.nn.Module, tokenizer: object, text: str) -> torch.Tensor:
    ids = torch.tensor([tokenizer(text)["input_ids"]])  # type: ignore[operator]
    with torch.no_grad():
        return model(ids, use_cache=False).logits[0, -1]


def test_the_word_becomes_as_likely_as_wished(folder: Path) -> None:
    loaded = load_teacher(str(folder))
    elsewhere = "Nothing in particular"
    was = (
        _logits(loaded.model, loaded.tokenizer, elsewhere),
        _logits(loaded.model, loaded.tokenizer, WISH.prompt),
    )
    with Memory(folder) as memory:
        done = insert_slot_into(memory, loaded.model, loaded.tokenizer, WISH)
        (record,) = memory.store.ledger.records([done.slot])
        assert record.cites is not None
        assert memory.store.ledger.source(record.cites.source).text == "My favourite colour is => turquoise"
        assert record.label == "turquoise"
    assert done.before < 0.01
    assert 0.03 <= done.after < 0.04
    assert torch.equal(_logits(loaded.model, loaded.tokenizer, elsewhere), was[0])
    again = load(folder)
    now = _logits(again, loaded.tokenizer, WISH.prompt)
    token = loaded.tokenizer(" turquoise")["input_ids"][0]
    assert float(now.softmax(-1)[token]) == pytest.approx(done.after, abs=1e-6)
    unmount(again, "hand")
    assert torch.equal(_logits(again, loaded.tokenizer, WISH.prompt), was[1])


def test_several_slots_share_an_overlay_and_go_back_one_by_one(folder: Path) -> None:
    first = insert_slot(folder, WISH)
    second = insert_slot(folder, Wish("The best animal is", "otter", 0.03))
    assert second.slot != first.slot
    assert (first.overlay, first.layer) == (second.overlay, second.layer)
    with Memory(folder) as memory:
        assert [one.slots for one in memory.overlays()] == [2]
        memory.undo()
        assert [one.slots for one in memory.overlays()] == [1]
        assert not memory.store.verify()


def test_the_layer_is_a_middle_one(folder: Path) -> None:
    assert insert_slot(folder, WISH, "given", layer=2).layer == 2
    assert insert_slot(folder, Wish("The best animal is", "otter", 0.03), "other").layer == 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: insert_slot(folder, WISH, "base"), "cannot be called 'base'"),
        (lambda folder: insert_slot(folder, WISH, layer=9), "layer 9 has no memory"),
        (lambda folder: insert_slot(folder, Wish("My favourite", "colour", 1e-9)), "nothing is to be done"),
        (lambda folder: Wish("", "x"), "needs a prompt"),
        (lambda folder: Wish("x", "y", 1.0), "between 0 and 1"),
    ],
)
def test_what_cannot_be_changes_nothing(folder: Path, make: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make(folder)  # type: ignore[operator]
    with Memory(folder, read_only=True) as memory:
        assert memory.overlays() == []
