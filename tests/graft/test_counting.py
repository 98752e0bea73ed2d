"""Reads are counted the same whichever way they are read, and reach the counters of the slots that were read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graft.test_folder import PLANS, make
from graft.tiny import tokens
from graft.tiny_banks import make_bank, make_x
from hypothesis import given, settings
from hypothesis import strategies as st

from mindset.errors import UsageError
from mindset.graft import folder
from mindset.graft.bank import MirrorBank
from mindset.graft.counting import counting
from mindset.graft.model import banks
from mindset.graft.propose import ProposerSpec
from mindset.graft.read_log import Pass, ReadLog
from mindset.graft.recording import Read, record
from mindset.store.memory import Memory
from mindset.store.tally import PAIR_STRIDE, BankTally

MANY = settings(max_examples=40, deadline=None)


def log_of(bank: MirrorBank, decay: float = 0.01) -> ReadLog:
    now = Pass()
    now.running = True
    bank.reads = ReadLog(bank.n_slots, 1, bank._norms(), decay, now)
    return bank.reads


def read(bank: MirrorBank, x: torch.Tensor, path: str) -> BankTally:
    log = log_of(bank)
    with torch.no_grad():
        if path == "masked":
            bank.read_masked(x)
        elif path == "gathered":
            for pair in x.split(2):
                bank.read_gathered(pair)
        else:
            for row in x.split(1):
                assert bank._read_compiled(row) is not None
    return log.drain()


@MANY
@given(
    n_slots=st.integers(2, 30), share=st.floats(0, 1), tokens=st.integers(1, 20), gated=st.booleans(),
    rule=st.sampled_from(["silu", "relu", "gelu"]), kind=st.sampled_from(["all", "score"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_every_path_counts_the_same(*, n_slots, share, tokens, gated, rule, kind, seed):
    k = 1 + round(share * (n_slots - 1))
    spec = ProposerSpec(kind, 0 if kind == "all" else min(n_slots, k + 2))
    bank = make_bank(n_slots, 0, 6, k=k, gated=gated, rule=rule, propose=spec, seed=seed)
    x = make_x(tokens, 6, seed).detach()
    found = {path: read(bank, x, path) for path in ("masked", "gathered", "compiled")}
    for other in ("gathered", "compiled"):
        np.testing.assert_array_equal(found["masked"].hits, found[other].hits)
        np.testing.assert_array_equal(found["masked"].last, found[other].last)
        np.testing.assert_allclose(found["masked"].influence, found[other].influence, rtol=1e-9)
        np.testing.assert_allclose(found["masked"].log_crf, found[other].log_crf, rtol=1e-9)
        np.testing.assert_array_equal(found["masked"].pairs.pairs, found[other].pairs.pairs)
        assert found[other].tokens == tokens


@MANY
@given(k=st.sampled_from([None, 3]), decay=st.sampled_from([0.0, 0.01, 1.0]), length=st.integers(1, 1500))
def test_what_is_tallied_is_the_plain_sum(*, k, decay, length):
    bank, x = make_bank(9, 4, 5, k=k), make_x(length, 5).detach()
    reads: list[Read] = []
    bank.recorder, log = reads.append, log_of(bank, decay)
    with torch.no_grad():
        for piece in x.split(700):
            bank.read_masked(piece)
    tally = log.drain()
    weights = torch.cat([one.weights[:, 0] for one in reads])
    was_read = (weights != 0).numpy()
    np.testing.assert_array_equal(tally.hits, was_read.sum(0))
    np.testing.assert_allclose(tally.influence, (weights.abs() * bank._norms()).sum(0).numpy())
    for place in range(bank.n_slots):
        times = 1 + np.flatnonzero(was_read[:, place])
        assert tally.last[place] == (times[-1] if len(times) else 0)
        if len(times):
            crf = np.exp2(decay * (times - times[-1])).sum()
            assert tally.log_crf[place] == pytest.approx(decay * times[-1] + np.log2(crf))


def test_two_slots_that_are_the_same_come_back_together():
    bank = make_bank(12, 0, 5, k=6)
    with torch.no_grad():
        for rows in bank.shards["base"].parameters():
            rows[7] = rows[2]
    tally = read(bank, make_x(400, 5).detach(), "masked")
    best = tally.pairs.counts.argmax()
    assert tally.pairs.pairs[best].tolist() == [2, 7]
    assert tally.pairs.counts[best] >= 0.6 * tally.hits[2] / PAIR_STRIDE


def saved(tmp_path, plan="mirror-k"):
    folder.save(make(plan), tmp_path / "m")
    return tmp_path / "m"


def counted(path, layer=0, shard="base"):
    with Memory(path, read_only=True) as memory:
        info = memory.store.shard(layer, shard)
        return memory.store.usage.of(layer, shard).read(info.top)


@pytest.mark.parametrize("plan", PLANS)
def test_a_saved_model_counts_what_it_reads(tmp_path, plan):
    path = saved(tmp_path, plan)
    model = folder.load(path)
    reads: list[Read] = []
    with torch.no_grad():
        with record(model, reads.append):
            before = model(tokens()).logits
        with counting(model, path):
            assert torch.equal(model(tokens()).logits, before)
    for layer, bank in banks(model).items():
        wanted = sum((one.weights != 0).sum(0) for one in reads if one.layer == layer).numpy()
        start = 0
        for name, shard in bank.shards.items():
            hits = counted(path, layer, name)["hits"].reshape(bank.n_heads, -1)
            np.testing.assert_array_equal(hits, wanted[:, start : start + shard.n_slots])
            start += shard.n_slots
        assert bank.reads is None


def test_nothing_is_written_where_nobody_counts(tmp_path):
    path = saved(tmp_path)
    files = sorted(file.name for file in path.rglob("*"))
    with torch.no_grad():
        folder.load(path)(tokens())
    assert sorted(file.name for file in path.rglob("*")) == files
    with Memory(path, read_only=True) as memory:
        assert memory.store.usage.stamp is None


def test_padding_is_not_counted_and_sessions_add_up(tmp_path):
    path = saved(tmp_path)
    model, ids = folder.load(path), tokens()[:1, :6]
    with torch.no_grad():
        with counting(model, path):
            model(ids)
        once = counted(path)
        padded = torch.nn.functional.pad(ids, (0, 3))
        with counting(model, path):
            model(padded, attention_mask=(torch.arange(9) < 6).long()[None])
    twice = counted(path)
    np.testing.assert_array_equal(twice["hits"], 2 * once["hits"])
    np.testing.assert_allclose(twice["influence"], 2 * once["influence"], rtol=1e-5)
    with Memory(path) as memory:
        assert memory.store.usage.stamp == (12, 1e-4)


def test_counts_follow_a_slot_that_an_edit_moves_meanwhile(tmp_path):
    path = saved(tmp_path)
    model = folder.load(path)
    with torch.no_grad():
        with counting(model, path):
            model(tokens())
        hits = counted(path)["hits"]
        one, other = np.argsort(-hits.astype(int))[:2]
        with counting(model, path):
            model(tokens())
            with Memory(path) as memory:
                ids = memory.store.live(0, "base").ids
                same = memory.store.fetch(ids[one : one + 1], ["value"])
                memory.update(ids[one : one + 1], same)
                memory.delete(ids[other : other + 1])
    with Memory(path, read_only=True) as memory:
        (record_,) = memory.store.records(ids[one : one + 1])
    found = counted(path)["hits"]
    assert record_.row >= len(hits)
    assert found[record_.row] == 2 * hits[one]
    assert found[other] == hits[other]


def test_an_edited_memory_is_counted_by_slot(tmp_path):
    path = saved(tmp_path)
    with Memory(path) as memory:
        ids = memory.store.live(0, "base").ids
        memory.delete(ids[:3])
        memory.update(ids[3:5], memory.store.fetch(ids[3:5], ["value"]))
    model = folder.load(path)
    reads: list[Read] = []
    with torch.no_grad(), counting(model, path), record(model, reads.append):
        model(tokens())
    hits = counted(path)["hits"]
    assert hits[:5].sum() == 0
    wanted = sum((one.weights[:, 0] != 0).sum(0) for one in reads if one.layer == 0).numpy()
    np.testing.assert_array_equal(hits[5:], wanted[5:])
    assert wanted[-2:].sum() > 0


def test_a_model_that_is_not_as_the_folder_is_refused(tmp_path):
    path = saved(tmp_path)
    model = folder.load(path)
    with Memory(path) as memory:
        ids = memory.store.live(0, "base").ids
        memory.update(ids[:2], memory.store.fetch(ids[:2], ["value"]))
    with pytest.raises(UsageError, match="load the model again"), counting(model, path):
        pass
    with pytest.raises(UsageError, match="no memory"), counting(torch.nn.Linear(2, 2), path):
        pass
    with pytest.raises(UsageError, match="decay"), counting(model, path, decay=2.0):
        pass
