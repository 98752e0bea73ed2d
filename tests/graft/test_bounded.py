"""A memory of which only so much may be in RAM: the same answers as with all of it, and never more than was allowed."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graft.tiny import tiny_model, tiny_tokenizer, tokens
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from mindset.errors import UsageError
from mindset.graft import bounded, folder
from mindset.graft.bounded import Bounded
from mindset.graft.convert import build_student
from mindset.graft.indexing import activation_in_numpy, recorded_queries
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan
from mindset.graft.recording import record
from mindset.graft.sources import load_teacher
from mindset.store.entries import QueryMoments
from mindset.store.index_choice import Choice, Point, Wanted, highest
from mindset.store.resident import Resident
from mindset.store.search import ShardSearch
from mindset.store.shard_index import IndexPlace, ShardIndex
from mindset.store.slab_store import SlabStore
from mindset.store.slots import Change

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is resident")

PLANS = {
    "all": ConversionPlan(k=4),
    "score": ConversionPlan(k=4, propose="score", candidates=8),
    "score, new slots": ConversionPlan(k=4, slots=6, propose="score", candidates=12, skip="lowrank:2"),
    "proxy": ConversionPlan(k=4, propose="proxy:3", candidates=8),
}
MB = 1 << 20


def save(path: Path, plan: ConversionPlan, family: str = "llama", **more: Any) -> Path:
    folder.save(build_student(tiny_model(family, **more), plan), path, tiny_tokenizer())
    return path


@pytest.fixture
def in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of a few rows, as a memory has them that is much larger than its limit."""
    monkeypatch.setattr(bounded, "SHARE", 1 << 14)


@pytest.mark.usefixtures("in_small_blocks")
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("plan", PLANS)
def test_a_bounded_memory_answers_as_one_in_ram(plan: str, family: str, tmp_path: Path) -> None:
    path = save(tmp_path / "m", PLANS[plan], family)
    ram, few = folder.load(path), folder.load(path, ram=MB)
    for ids in (tokens(), tokens(1, 1), tokens(1, 40)):
        torch.testing.assert_close(ram(ids).logits, few(ids).logits, rtol=1e-4, atol=1e-4)
    asked = {"max_new_tokens": 8, "do_sample": False}
    assert torch.equal(ram.generate(tokens(1, 4), **asked), few.generate(tokens(1, 4), **asked))
    mapped = [shard.key for bank in banks(few).values() for shard in bank.shards.values()]
    assert not any(key.requires_grad for key in mapped)


@pytest.mark.usefixtures("in_small_blocks")
def test_a_bounded_bank_that_is_recorded_reads_the_same(tmp_path: Path) -> None:
    path = save(tmp_path / "m", PLANS["score"])
    seen: list[list[torch.Tensor]] = []
    for model in (folder.load(path), folder.load(path, ram=MB)):
        own: list[torch.Tensor] = []
        with record(model, lambda read: own.append(read.weights)), torch.no_grad():  # noqa: B023
            model(tokens())
        seen.append(own)
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@given(
    st.integers(1, 5),
    st.integers(1, 40),
    st.integers(1, 7),
    st.integers(1, 5000),
    st.booleans(),
    st.integers(0, 99),
)
def test_products_in_blocks_are_products(
    n: int, rows: int, d: int, limit: int, biased: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, keys = torch.randn(n, d, generator=generator), torch.randn(rows, d, generator=generator)
    weights = torch.randn(n, rows, generator=generator)
    bias = torch.randn(rows, generator=generator) if biased else None
    reader = Bounded(Resident(limit))
    torch.testing.assert_close(reader.multiply(x, keys, bias), F.linear(x, keys, bias))
    torch.testing.assert_close(reader.combine(weights, keys), weights @ keys, rtol=1e-4, atol=1e-5)
    covered = [row for some in reader.blocks(keys) for row in range(rows)[some]]
    assert covered == list(range(rows))


# ---- how much is in RAM
def test_no_more_is_resident_than_was_allowed(tmp_path: Path) -> None:
    """25 MB of slots in two layers, 8 MB of them allowed."""
    path = save(tmp_path / "m", ConversionPlan(k=4, propose="score", candidates=8, slots=65536))
    model = folder.load(path, ram=8 * MB)
    reader = next(iter(banks(model).values())).reader
    held: Resident = reader.__self__.resident  # type: ignore[union-attr]
    model(tokens())  # what else a pass maps is in by now
    held.give_back()
    before, most = _files(), 0
    for bank in banks(model).values():
        for shard in bank.shards.values():
            plain, own = shard.multiply, []

            def watched(*given: Any, plain: Any = plain, own: list[int] = own) -> Any:
                out = plain(*given)
                own.append(_files())
                return out

            shard.multiply = watched
            shard.seen = own
    for _ in range(5):
        model(tokens())
        most = max(most, _files())
    most = max(
        [most, *(max(s.seen) for bank in banks(model).values() for s in bank.shards.values() if s.seen)]
    )
    assert held.given_back > 5
    assert most - before <= 1.1 * 8 * MB


def _files() -> int:
    found = re.search(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def test_too_little_is_refused_with_what_it_takes(tmp_path: Path) -> None:
    path = save(tmp_path / "m", PLANS["score"])
    with pytest.raises(
        UsageError, match="1,000 bytes are too few for this memory: 384 are kept of every slot"
    ):
        folder.load(path, ram=1000)


@pytest.mark.parametrize("plan", [ConversionPlan(), ConversionPlan("featural", slots=12, heads=2, k=3)])
def test_a_bank_that_reads_everything_cannot_be_bounded(plan: ConversionPlan, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="convert the model with --k"):
        folder.load(save(tmp_path / "m", plan), ram=MB)


def test_models_without_a_memory_and_other_dtypes_are_refused(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "plain")
    tiny_tokenizer().save_pretrained(tmp_path / "plain")
    with pytest.raises(UsageError, match="no memory whose RAM"):
        load_teacher(str(tmp_path / "plain"), ram=MB)
    path = save(tmp_path / "m", PLANS["score"])
    with pytest.raises(UsageError, match="leave dtype and device alone"):
        load_teacher(str(path), ram=MB, dtype=torch.float64)
    assert load_teacher(str(path), ram=MB).model.dtype == torch.float32


# ---- edits and indexes
def test_an_edited_shard_is_in_ram_and_counts(tmp_path: Path) -> None:
    path = save(tmp_path / "m", PLANS["score"])
    with SlabStore(path / "memory") as store:
        info = store.shards()[0]
        store.change(store.ledger.live(info.id).ids[:1], Change(weight=0.0))
    ram, few = folder.load(path), folder.load(path, ram=MB)
    torch.testing.assert_close(ram(tokens()).logits, few(tokens()).logits, rtol=1e-4, atol=1e-4)
    own = 3 * 24 * 16 * 4
    with pytest.raises(UsageError, match=f"{384 + own:,} are kept"):
        folder.load(path, ram=1000)


def test_an_index_that_was_chosen_names_the_slots(tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="needs faiss, the extra `ann`")
    path = save(tmp_path / "m", ConversionPlan(k=4, propose="score", candidates=24))
    _choose(path, probes=5)
    ram, few = folder.load(path), folder.load(path, ram=MB)
    assert all(bank.named_by is not None for bank in banks(few).values())
    torch.testing.assert_close(ram(tokens()).logits, few(tokens()).logits, rtol=1e-4, atol=1e-4)
    with SlabStore(path / "memory") as store:
        info = store.shards()[0]
        store.change(store.ledger.live(info.id).ids[:1], Change(weight=0.0))
    named = [bank.named_by is not None for bank in banks(folder.load(path, ram=MB)).values()]
    assert named == [False, True], "an edited shard is laid out anew"


def _choose(path: Path, probes: int) -> None:
    """Indexes of all lists, as `mindset memory index` leaves them where they pay."""
    model = folder.load(path)
    queries = recorded_queries(model, tokens(8, 20), list(banks(model)))
    with SlabStore(path / "memory") as store:
        for info in store.shards():
            search = ShardSearch(store, info.layer, info.name)
            moments = QueryMoments.of(queries[info.layer])
            activation = activation_in_numpy(banks(model)[info.layer].shards[info.name].activation)
            truth = highest(search, queries[info.layer], 4, moments, activation)
            assert truth.shape == (len(queries[info.layer]), 4)
            index = ShardIndex.of_keys(search, moments, lists=5)
            place = IndexPlace.of(store.folder, info.layer, info.name, store.memory.generation)
            index.save(place)
            best = Point("keys", 0, probes, 1.0, 4.0)
            Choice(info.layer, info.name, 24, "ivf", "a test", best, Wanted(), 256, 1.0, (best,)).save(place)
    assert np.all(truth >= 0)
