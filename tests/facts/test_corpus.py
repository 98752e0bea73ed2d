"""A body of text in new slots: what it does to the model, what it leaves, and what it cites."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mindset.errors import DataError, UsageError
from mindset.facts.corpus import CorpusText, learn_corpus, learn_corpus_into, read_corpus_text
from mindset.facts.corpus_slots import CorpusSettings
from mindset.graft.folder import load
from mindset.graft.model import banks
from mindset.graft.mounting import mounted, unmount
from mindset.graft.sources import load_teacher
from mindset.probe.speed import cache_name
from mindset.store.memory import Memory
from mindset.store.scan import Where, scan

TEXT = "The rats in the walls were heard again. Nobody dared to sleep! Was it the wind? " * 6
QUICK = CorpusSettings(slots=3, passes=12, window=64, batch=2, learning_rate=2e-2)
IDS = torch.tensor([list(range(60, 90))])


def _logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS, use_cache=False).logits


def _loss(loaded: object, text: str) -> float:
    ids = torch.tensor([loaded.tokenizer(text)["input_ids"][:200]])  # type: ignore[attr-defined]
    with torch.no_grad():
        logits = loaded.model(ids, use_cache=False).logits[0, :-1]  # type: ignore[attr-defined]
    return float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]))


def test_the_text_becomes_likelier_and_is_taken_off_to_the_bit(folder: Path) -> None:
    loaded = load_teacher(str(folder))
    before, loss = _logits(loaded.model), _loss(loaded, TEXT)
    with Memory(folder) as memory:
        done = learn_corpus_into(
            memory, loaded.model, loaded.tokenizer, CorpusText("rats.txt", TEXT), settings=QUICK
        )
    assert mounted(loaded.model) == ["corpus"]
    assert _loss(loaded, TEXT) < loss - 0.3
    assert done.loss[1] < done.loss[0]
    assert len(done.slots) == 3 * len(done.layers) == 12
    anew = load(folder)
    assert torch.equal(_logits(anew), _logits(loaded.model))
    unmount(loaded.model, "corpus")
    assert torch.equal(_logits(loaded.model), before)
    with Memory(folder) as memory:
        memory.undo()
        assert not memory.store.verify()
    assert torch.equal(_logits(load(folder)), before)


def test_nothing_of_the_model_itself_is_trained(folder: Path) -> None:
    loaded = load_teacher(str(folder))
    weights = {name: rows.detach().clone() for name, rows in loaded.model.named_parameters()}
    wanted = {name: rows.requires_grad for name, rows in loaded.model.named_parameters()}
    names = set(loaded.model.state_dict())
    with Memory(folder) as memory:
        learn_corpus_into(
            memory, loaded.model, loaded.tokenizer, CorpusText("rats.txt", TEXT), settings=QUICK
        )
    assert set(loaded.model.state_dict()) == names
    for name, rows in loaded.model.named_parameters():
        assert torch.equal(rows, weights[name])
        assert rows.requires_grad == wanted[name]
        assert rows.grad is None


def test_one_token_at_a_time_is_the_whole_text(folder: Path) -> None:
    learn_corpus(folder, CorpusText("rats.txt", TEXT), settings=QUICK)
    model = load(folder)
    whole = _logits(model)
    steps, cache, name = [], None, cache_name(model)
    with torch.no_grad():
        for token in IDS[0]:
            out = model(token.view(1, 1), use_cache=True, **{name: cache})
            cache = out[name]
            steps.append(out.logits[0, -1])
    torch.testing.assert_close(torch.stack(steps), whole[0], rtol=1e-4, atol=1e-4)


def test_every_slot_cites_a_sentence(folder: Path) -> None:
    learn_corpus(folder, CorpusText("rats.txt", TEXT), settings=QUICK)
    sentences = {"The rats in the walls were heard again.", "Nobody dared to sleep!", "Was it the wind?"}
    with Memory(folder, read_only=True) as memory:
        records = list(scan(memory.store.ledger, Where(shard="corpus"), limit=100))
    assert len(records) == 12
    for record in records:
        assert record.cites is not None
        assert TEXT[record.cites.start : record.cites.stop] in sentences


def test_the_same_seed_makes_the_same_slots(folder: Path) -> None:
    loaded = load_teacher(str(folder))
    said = []
    for name in ("one", "two"):
        with Memory(folder) as memory:
            learn_corpus_into(
                memory, loaded.model, loaded.tokenizer, CorpusText("rats.txt", TEXT), name, settings=QUICK
            )
        said.append(_logits(loaded.model))
        unmount(loaded.model, name)
    assert torch.equal(*said)


def test_beside_facts_and_other_texts(folder: Path) -> None:
    loaded = load_teacher(str(folder))
    with Memory(folder) as memory:
        for name in ("one", "two"):
            text = CorpusText(f"{name}.txt", TEXT.replace("rats", name))
            learn_corpus_into(memory, loaded.model, loaded.tokenizer, text, name, settings=QUICK)
            if name == "one":
                alone = _logits(loaded.model)
                unmount(loaded.model, "one")
        assert mounted(load(folder)) == ["one", "two"]
        memory.unmount("two")
    assert torch.equal(_logits(load(folder)), alone)
    assert all(list(bank.added) == ["two"] for bank in banks(loaded.model).values())


def test_what_cannot_be_learned_changes_nothing(folder: Path, tmp_path: Path) -> None:
    loaded = load_teacher(str(folder))
    before = _logits(loaded.model)
    with Memory(folder) as memory:
        entries = len(memory.history())
        with pytest.raises(DataError, match="too short"):
            learn_corpus_into(memory, loaded.model, loaded.tokenizer, CorpusText("x", "a"), settings=QUICK)
        with pytest.raises(UsageError, match="cannot be called 'base'"):
            learn_corpus_into(
                memory, loaded.model, loaded.tokenizer, CorpusText("x", TEXT), "base", settings=QUICK
            )
        assert len(memory.history()) == entries
        learn_corpus_into(
            memory, loaded.model, loaded.tokenizer, CorpusText("x", TEXT), "mine", settings=QUICK
        )
        with pytest.raises(UsageError, match="already"):
            learn_corpus_into(
                memory, loaded.model, loaded.tokenizer, CorpusText("x", TEXT), "mine", settings=QUICK
            )
    unmount(loaded.model, "mine")
    assert torch.equal(_logits(loaded.model), before)
    (tmp_path / "empty.txt").write_text(" ")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xff")
    for name, said in (("empty.txt", "no text"), ("bytes.txt", "no UTF-8"), ("none.txt", "cannot be read")):
        with pytest.raises(DataError, match=said):
            read_corpus_text(tmp_path / name)


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"minutes": 0}, {"passes": -1}, {"guards": -1}])
def test_settings_that_cannot_be_meant(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        CorpusSettings(**wrong)  # type: ignore[arg-type]
