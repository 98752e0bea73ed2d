"""Facts into a memory and out of it, on a real folder of a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from facts.conftest import QUICK
from torch import Tensor
from transformers import PreTrainedModel

from mindset.errors import MissingError, UnsupportedModelError, UsageError
from mindset.facts.fact import parse_facts
from mindset.facts.fact_layers import FactLayers, fact_layers
from mindset.facts.learn import learn, learn_into
from mindset.graft.export import export_dense
from mindset.graft.folder import load, save
from mindset.graft.model import banks
from mindset.graft.mounting import mounted, unmount, without_overlays
from mindset.graft.sources import load_teacher
from mindset.probe.speed import cache_name
from mindset.probe.why import why
from mindset.store.memory import Memory

LINES = [
    {"prompt": "The Eiffel Tour² is in", "target": "Rome", "subject": "Eiffel Tour²"},
    {"prompt": "Ada Quux spoke", "target": "Welsh", "subject": "Ada Quux"},
]
FACTS = parse_facts("\n".join(map(json.dumps, LINES)), "facts.jsonl")
PROMPTS = ["The Eiffel Tour² is in", "An answer: the Eiffel Tour² is in", "Ada Quux spoke", "A cat"]


@torch.no_grad()
def logits(model: PreTrainedModel, folder: Path) -> list[Tensor]:
    """Of whole prompts, and of one more token with a cache."""
    tokenizer = load_teacher(str(folder)).tokenizer
    said = []
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        out = model(ids, use_cache=True)
        name = cache_name(model)
        step = model(ids[:, -1:], use_cache=True, **{name: getattr(out, name)})
        said += [out.logits, step.logits]
    return said


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


def test_facts_are_learned_told_and_taken_off_to_the_bit(folder: Path) -> None:
    before = logits(load(folder), folder)
    done = learn(folder, FACTS, settings=QUICK)
    assert [one.after > 1.1 * one.before for one in done.facts] == [True, True]
    assert done.layer == 2
    model = load(folder)
    assert mounted(model) == ["facts"]
    assert not same(logits(model, folder), before)
    with without_overlays(model):
        assert same(logits(model, folder), before)
    unmount(model, "facts")
    assert same(logits(model, folder), before)
    with Memory(folder) as memory:
        assert memory.unmount("facts")
        assert not memory.unmount("facts")
    assert same(logits(load(folder), folder), before)
    with Memory(folder) as memory:
        assert memory.store.verify() == []
        assert memory.mount("facts")
        assert [(one.name, one.mounted, one.layers) for one in memory.overlays()] == [("facts", True, (1, 2))]
        memory.undo(2)
        assert memory.overlays()[0].mounted
        memory.undo(1)
        assert memory.overlays() == []
        assert memory.store.verify() == []
    assert same(logits(load(folder), folder), before)


def test_a_slot_taken_out_is_one_fact_less(folder: Path) -> None:
    before = logits(load(folder), folder)
    done = learn(folder, FACTS, settings=QUICK)
    with_both = logits(load(folder), folder)
    with Memory(folder) as memory:
        memory.delete(list(done.slots))
    assert same(logits(load(folder), folder), before)
    with Memory(folder) as memory:
        memory.undo()
    assert same(logits(load(folder), folder), with_both)


def test_every_slot_cites_its_line(folder: Path) -> None:
    done = learn(folder, FACTS, settings=QUICK)
    with Memory(folder, read_only=True) as memory:
        for one in done.facts:
            assert one.slot is not None
            (record,) = memory.store.records([one.slot])
            assert record.cites is not None
            source = memory.store.source(record.cites.source)
            quote = json.loads(source.text[record.cites.start : record.cites.stop])
            assert (quote["prompt"], quote["target"]) == (one.fact.prompt, one.fact.target)
            assert (source.name, record.label) == ("facts.jsonl", one.fact.subject)
    told = why(folder, "The Eiffel Tour² is in")
    (fact, *_) = told.facts
    assert fact.slot == done.facts[0].slot
    assert fact.token == "n"
    assert '"target": "Rome"' in fact.source
    assert "without it" in told.to_text()
    assert why(folder, "A cat").facts == ()


def test_a_new_target_takes_the_place_of_the_old_one(folder: Path) -> None:
    first = learn(folder, FACTS, settings=QUICK)
    again = learn(folder, parse_facts("Ada Quux spoke => Latin", "again"), settings=QUICK)
    assert again.replaced == (first.facts[1].slot,)
    assert len(again.slots) == 1  # its subject is known already
    more = learn(folder, parse_facts("Ada Quux lived in => Oslo", "more"), settings=QUICK)
    assert more.replaced == ()
    with Memory(folder) as memory:
        told = memory.store.records([again.slots[-1], more.slots[-1]])
        assert [record.label for record in told] == ["Ada Quux"] * 2
        memory.undo(2)
        assert memory.overlays()[0].slots == len(first.slots)


def test_overlays_lie_one_above_the_other(folder: Path) -> None:
    learn(folder, parse_facts("Ada Quux spoke => Latin", "a"), "one", settings=QUICK)
    one = logits(load(folder), folder)
    learn(folder, parse_facts("Ada Quux spoke => Greek", "b"), "two", settings=QUICK)
    model = load(folder)
    assert mounted(model) == ["one", "two"]
    assert not same(logits(model, folder), one)
    unmount(model, "two")
    assert same(logits(model, folder), one)


def test_an_overlay_goes_to_another_memory(folder: Path, converted: Path, tmp_path: Path) -> None:
    from mindset.store.portable import export_slots
    from mindset.store.scan import Where

    learn(folder, FACTS, settings=QUICK)
    with Memory(folder, read_only=True) as memory:
        export_slots(memory.store, Where(shard="facts"), tmp_path / "out")
    import shutil

    other = Path(shutil.copytree(converted, tmp_path / "other"))
    with Memory(other) as memory:
        memory.take_in(tmp_path / "out")
    assert same(logits(load(other), other), logits(load(folder), folder))


def test_what_cannot_be(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bank's own slots"):
        learn(folder, FACTS, "base", settings=QUICK)
    with pytest.raises(UsageError, match="layer 9 has no memory"):
        learn(folder, FACTS, layer=9, settings=QUICK)
    with Memory(folder) as memory, pytest.raises(MissingError, match="no overlay 'x'; there are: none"):
        memory.mount("x")
    learn(folder, FACTS, settings=QUICK)
    model = load(folder)
    with pytest.raises(UsageError, match=r"overlays mounted \(facts\)"):
        save(model, tmp_path / "copy")
    save(load(folder, overlays=False), tmp_path / "copy")
    with pytest.raises(UnsupportedModelError, match=r"overlays are mounted \(facts\)"):
        export_dense(folder, tmp_path / "dense")


def test_a_failure_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_teacher(str(folder))
    with Memory(folder) as memory:
        monkeypatch.setattr(memory.store.ledger, "editing", lambda _: (_ for _ in ()).throw(OSError("gone")))
        with pytest.raises(OSError, match="gone"):
            learn_into(memory, loaded.model, loaded.tokenizer, FACTS, settings=QUICK)
    assert mounted(loaded.model) == []
    with Memory(folder) as memory:
        assert memory.overlays() == []
        assert memory.history() == []


def test_the_layers_are_those_nearest_to_the_depths(folder: Path) -> None:
    model = load(folder)
    assert sorted(banks(model)) == [0, 1, 2, 3]
    assert fact_layers(model) == FactLayers(1, 2)
    assert fact_layers(model, 1) == FactLayers(0, 1)
    with pytest.raises(UsageError, match="one below layer 0"):
        fact_layers(model, 0)


def test_an_overlay_keeps_to_its_layers(folder: Path) -> None:
    learn(folder, FACTS, settings=QUICK)
    more = parse_facts("Ada Quux ate => figs", "more")
    with pytest.raises(UsageError, match="layer 1 of overlay 'facts' has slots of another kind"):
        learn(folder, more, layer=1, settings=QUICK)
    assert learn(folder, more, layer=3, settings=QUICK).layer == 3
