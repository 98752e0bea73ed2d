from __future__ import annotations

import torch
from graft.test_trail import MARK, with_marks
from graft.tiny import tiny_model
from llm.engine.texts import Told, batch_of, model_of, row_of

from mindset.graft.model import banks
from mindset.graft.recording import Read as BankRead
from mindset.graft.recording import record
from mindset.llm.engine.reads import Reads
from mindset.llm.request import Options


def test_the_slots_of_most_influence_are_told_for_the_places_asked() -> None:
    model, seen = model_of("student"), list[BankRead]()
    reads = Reads(model)
    ids = torch.tensor([[5, 7, 9], [3, 3, 11]])
    with torch.no_grad(), record(model, seen.append):
        model(ids)
    with torch.no_grad(), reads.watching([2, 4], 3) as watch:
        model(ids)
    for place in (2, 4):
        wanted = []
        for one in seen:
            influence = one.weights[place, 0].abs() * banks(model)[one.layer].shards["base"].value.norm(
                dim=-1
            )
            best = influence.topk(3)
            wanted += [
                (one.layer, slot, much)
                for slot, much in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
        told = [(read.layer, read.slot) for read in watch.by_bank(place)]
        assert sorted(told) == sorted((layer, slot) for layer, slot, _ in wanted)
        most = watch.most(place, 2)
        first = sorted(wanted, key=lambda one: -one[2])[:2]
        assert [(read.layer, read.slot) for read in most] == [one[:2] for one in first]
    assert all(bank.recorder is None and bank.listener is None for bank in banks(model).values())


def test_slots_of_overlays_are_told_where_they_answered() -> None:
    model = with_marks()
    reads = Reads(model)
    with torch.no_grad(), reads.watching([1, 3], 2) as watch:
        model(torch.tensor([[1, 3, 7, 9]]))
    assert [read.overlay for read in watch.by_bank(1)].count("x") == 0
    (answered,) = [read for read in watch.by_bank(3) if read.overlay == "x"]
    value = banks(model)[1].overlays["x"].value
    assert answered.influence == float(value[0].norm())
    assert (answered.layer, answered.slot) == (1, 0)
    assert MARK


def test_nothing_is_watched_where_nobody_asks() -> None:
    model = model_of("student")
    with torch.no_grad(), Reads(model).watching([], 0):
        assert all(bank.recorder is None for bank in banks(model).values())
    assert not Reads(tiny_model("llama"))


def test_only_who_asks_in_a_batch_is_told() -> None:
    batch = batch_of(model_of("student"))
    told = [Told(), Told()]
    batch.add(row_of([5, 7], Options(max_tokens=4, temperature=1.0, seed=1, reads=3), told[0]))
    batch.add(row_of([9, 3], Options(max_tokens=4, temperature=1.0, seed=2, logprobs=0), told[1]))
    while batch.step():
        pass
    assert [len(token.reads) for token in told[0].tokens] == [3] * len(told[0].tokens)
    assert told[0].tokens
    assert all(token.reads == () for token in told[1].tokens)
