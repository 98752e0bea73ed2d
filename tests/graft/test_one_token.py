"""The compiled loops against torch's steps and the sorted definition."""

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from graft.tiny_banks import make_bank, make_x
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.activations import ACT2FN

from mindset.graft import one_token
from mindset.graft.bank import MirrorBank
from mindset.graft.propose import ProposerSpec
from mindset.graft.skip import build_skip

pytest.importorskip("numba", reason="the extra `fast` is not installed")
one_token_loops = pytest.importorskip("mindset.graft.one_token_loops")
MANY = settings(max_examples=40, deadline=None)


def read_whole(bank, x):
    """The bank's output by the loops; fails where they were not asked."""
    read = []
    real = MirrorBank._read_compiled

    def told(bank, x):
        read.append(real(bank, x))
        return read[-1]

    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(MirrorBank, "_read_compiled", told)
        out = bank(x)
    assert [piece is not None for piece in read] == [True]
    return out


def test_a_gradient_many_tokens_and_other_dtypes_are_left_to_torch():
    bank, x = make_bank(8, 0, 5, k=3), make_x(1, 5)
    assert bank._read_compiled(x) is None  # a gradient may be wanted
    with torch.no_grad():
        assert bank._read_compiled(x) is not None
        assert bank.bfloat16()._read_compiled(x.bfloat16()) is None
        several = make_bank(8, 3, 5, k=3)
        assert several._read_compiled(x) is None
        bank.double().eval()
        torch.testing.assert_close(bank(make_x(4, 5))[:1], bank(make_x(4, 5)[:1]), rtol=0, atol=1e-12)


def test_rows_made_for_inference_alone_are_left_to_torch():
    """They have no version, so that a change could not be seen."""
    with torch.inference_mode():
        bank = make_bank(8, 0, 5, k=3, propose=ProposerSpec("score", 4))
        x = make_x(1, 5)
        assert bank._read_compiled(x) is None
        torch.testing.assert_close(bank(x), bank.read_masked(x) + bank.bias, rtol=0, atol=1e-12)


def test_a_shard_that_comes_later_is_read_too():
    bank, x = make_bank(8, 0, 5, k=3), make_x(1, 5)
    read_whole(bank, x)
    grown = make_bank(8, 4, 5, k=3)
    bank.shards["new"] = grown.shards["new"]
    with torch.no_grad():
        assert bank._read_compiled(x) is None


@pytest.mark.parametrize("skip", ["none", "affine", "lowrank:2"])
@pytest.mark.parametrize("with_residual", [False, True])
def test_skip_and_residual_are_added_as_ever(skip, with_residual):
    bank, x = make_bank(8, 0, 5, k=3), make_x(4, 5).detach().reshape(2, 2, 5)
    bank.skip = build_skip(skip, 5)
    bank.double()
    if bank.skip is not None:
        for parameter in bank.skip.parameters():
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    residual = x.flip(0) if with_residual else None
    with torch.no_grad():
        many = bank(x, residual)
        one = bank(x[:1, :1], None if residual is None else residual[:1, :1])
    assert bank._one_token._prepared is not None
    torch.testing.assert_close(one, many[:1, :1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["all", "score", "proxy"])
@pytest.mark.parametrize("compiled", [True, False])
def test_two_tokens_are_read_as_each_alone(kind, compiled, monkeypatch):
    bank = make_bank(
        20, 0, 5, k=3, propose=ProposerSpec(kind, 0 if kind == "all" else 6, int(kind == "proxy"))
    )
    many = make_x(20, 5).detach()
    bank.calibrate(many.T @ many / 20, many.mean(0))
    with torch.no_grad():
        apart = torch.cat([bank(row) for row in many[:2].split(1)])
        if not compiled:
            monkeypatch.setattr(bank, "_read_compiled", lambda x: None)
        torch.testing.assert_close(bank(many[:2]), apart, rtol=0, atol=1e-12)


@pytest.mark.parametrize("change", ["transposed", "other dtype", "unknown activation"])
def test_rows_that_the_loops_cannot_read_are_left_to_torch(change):
    bank = make_bank(5, 0, 5, k=2)
    shard, x = bank.shards["base"], make_x(1, 5)
    if change == "transposed":
        shard.value.data = shard.value.data.T
    elif change == "other dtype":
        x = x.float()
    else:
        shard.activation = torch.nn.Tanh()
    with torch.no_grad():
        assert bank._read_compiled(x) is None


@MANY
@given(
    n_slots=st.integers(1, 40), share=st.floats(0, 1), levels=st.integers(1, 30), seed=st.integers(0, 999),
    dtype=st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
def test_the_highest_are_chosen_whatever_the_ties(*, n_slots, share, levels, dtype, seed):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, levels + 1, n_slots).astype(dtype) / 3
    scores[generator.random(n_slots) < 0.1] = generator.choice([np.nan, -np.nan, np.inf, 1e-42])
    count = 1 + round(share * (n_slots - 1))
    slots = np.full(count, -1)
    one_token_loops.best(scores, count, slots, np.int32(0) if dtype == np.float32 else np.int64(0))
    order = sorted(range(n_slots), key=lambda i: (-np.inf if np.isnan(scores[i]) else -scores[i], i))
    assert slots.tolist() == sorted(order[:count])


@pytest.mark.parametrize(("threads", "count"), [(1, 7), (2, 7), (3, 8), (5, 3), (4, 0), (16, 1536)])
def test_shares_are_all_there_is_and_no_more(threads, count):
    shares = [one_token_loops.share(thread, threads, count) for thread in range(threads)]
    assert [i for first, last in shares for i in range(first, last)] == list(range(count))


@MANY
@given(
    n_slots=st.integers(1, 9), d_model=st.integers(1, 6), c_share=st.floats(0, 1), k_share=st.floats(0, 1),
    kind=st.sampled_from(["all", "score", "proxy"]), gated=st.booleans(), bias=st.booleans(),
    rule=st.sampled_from(["gelu", "silu", "gelu_new", "gelu_pytorch_tanh"]), team=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_loops_are_torchs_steps(*, n_slots, d_model, c_share, k_share, kind, gated, bias, rule, team, seed):
    candidates = 1 + round(c_share * (n_slots - 1))
    spec = ProposerSpec(kind, 0 if kind == "all" else candidates, 1 if kind == "proxy" else 0)
    k = 1 + round(k_share * ((n_slots if kind == "all" else candidates) - 1))
    bank = make_bank(n_slots, 0, d_model, gated=gated, bias=bias, k=k, seed=seed, propose=spec)
    bank.shards["base"].activation = ACT2FN[rule]
    many = make_x(20, d_model, seed).detach()  # without moments, or with ReLU, a proxy's ranks would be tied
    bank.calibrate(many.T @ many / 20, many.mean(0))
    x = make_x(1, d_model, seed)
    with torch.no_grad():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(one_token, "_WORTH_A_TEAM", 0)
            patch.setattr(torch, "get_num_threads", lambda: team)
            compiled = read_whole(bank, x) - (0 if bank.bias is None else bank.bias)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MirrorBank, "_read_compiled", lambda *_: None)
            torch.testing.assert_close(bank.read_gathered(x), compiled, rtol=0, atol=1e-9)
            torch.testing.assert_close(bank.read_masked(x), compiled, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["all", "score", "proxy"])
def test_what_is_not_a_number_spoils_the_sum(kind):
    bank = make_bank(
        8, 0, 5, k=3, propose=ProposerSpec(kind, 0 if kind == "all" else 4, int(kind == "proxy"))
    )
    shard, x = bank.shards["base"], make_x(1, 5)
    assert read_whole(bank, x).isfinite().all()
    with torch.no_grad():
        shard.modulator[:] = float("nan")
    assert read_whole(bank, x).isnan().all()


def test_relu_of_tied_slots_is_torchs():
    bank = make_bank(9, 0, 4, gated=False, rule="relu", k=9)
    x = make_x(1, 4)
    with torch.no_grad():
        torch.testing.assert_close(bank(x), bank.read_masked(x) + bank.bias, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bank_worth_a_team_reads_the_same_on_every_number_of_threads(dtype):
    bank = make_bank(2048, 0, 160, gated=True, k=100, propose=ProposerSpec("score", 400)).to(dtype)
    x, before, outs = make_x(1, 160).to(dtype), torch.get_num_threads(), []
    assert bank.shards["base"].key.nbytes >= one_token._WORTH_A_TEAM
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            outs.append(read_whole(bank, x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])
    with torch.no_grad():
        torch.testing.assert_close(outs[0], bank.read_masked(x) + bank.bias, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("limit", ["OMP_THREAD_LIMIT", "OMP_DYNAMIC"])
def test_a_team_smaller_than_asked_for_reads_every_slot(limit):
    """OpenMP may give fewer threads than torch has; in a process of its own, since it reads its limits once."""
    code = (
        "import torch\n"
        "from graft.tiny_banks import make_bank, make_x\n"
        "from mindset.graft import one_token\n"
        "one_token._WORTH_A_TEAM = 0\n"
        "torch.set_num_threads(3)\n"
        "bank, x = make_bank(64, 0, 16, k=9), make_x(1, 16)\n"
        "with torch.no_grad():\n"
        "    read, wanted = bank(x), bank.read_masked(x) + bank.bias\n"
        "assert bank._one_token._prepared.threads == 3\n"
        "torch.testing.assert_close(read, wanted, rtol=0, atol=1e-12)\n"
    )
    few = os.environ | {limit: "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], env=few, check=True, timeout=120)


def test_several_callers_at_once_get_each_their_own():
    bank = make_bank(512, 0, 64, k=20, propose=ProposerSpec("score", 64))
    inputs = [make_x(1, 64, seed).detach() for seed in range(8)]
    wanted = [read_whole(bank, x) for x in inputs]

    def many(i):
        with torch.no_grad():
            return all(torch.equal(bank(inputs[i]), wanted[i]) for _ in range(200))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(many, range(8)))


def test_rows_that_were_changed_replaced_or_moved_are_read_as_they_are_now():
    bank = make_bank(8, 0, 5, k=3, propose=ProposerSpec("score", 5))
    x = make_x(1, 5)

    def same():
        with torch.no_grad():
            wanted = bank.read_masked(x) + bank.bias
        return torch.equal(read_whole(bank, x), read_whole(bank, x)) and torch.allclose(
            read_whole(bank, x), wanted, atol=1e-12, rtol=0
        )

    assert same()
    shard = bank.shards["base"]
    with torch.no_grad():
        shard.value.mul_(torch.linspace(-3, 3, 8)[:, None])
        assert same()
        shard.modulator = torch.nn.Parameter(shard.modulator.flip(0).contiguous())
        assert same()
        bank.modulator_rms.mul_(torch.linspace(1, 9, 8))
        assert same()
        bank.set_k(2)
        assert same()
        shard.key.data = shard.key.data.roll(1, 0)
        assert same()
    copied = copy.deepcopy(bank)
    with torch.no_grad():
        copied.shards["base"].value.zero_()
    assert same()
    assert torch.equal(read_whole(copied, x), copied.bias[None])


def test_a_proxy_that_was_fitted_again_is_asked_as_it_is_now():
    bank = make_bank(40, 0, 5, k=3, propose=ProposerSpec("proxy", 6, 1))
    many = make_x(20, 5).detach()
    x = many[:1]
    for factor in (torch.ones(5), torch.tensor([9.0, 0.1, 1, 1, 1]), torch.tensor([0.1, 0.1, 1, 9, 1])):
        with torch.no_grad():
            spread = many * factor
            bank.calibrate(spread.T @ spread / 20, spread.mean(0))
            wanted = bank.read_masked(x) + bank.bias
        torch.testing.assert_close(read_whole(bank, x), wanted, rtol=0, atol=1e-12)


def test_nothing_is_kept_of_rows_that_moved_away():
    bank = make_bank(8, 0, 5, k=3)
    read_whole(bank, make_x(1, 5))
    bank.to(torch.float32)
    assert bank._one_token._prepared is None


def test_without_numba_the_sums_are_the_same(monkeypatch):
    bank = make_bank(8, 0, 5, gated=True, bias=True, rule="silu", k=3, seed=1)
    x = make_x(1, 5, 1)
    with torch.no_grad():
        compiled = bank(x)
        monkeypatch.setattr(one_token, "_loops", lambda: None)
        torch.testing.assert_close(bank(x), compiled, rtol=0, atol=1e-9)


def test_no_row_is_fetched_but_the_candidates():
    bank = make_bank(50, 0, 4, k=3, propose=ProposerSpec("score", 6))
    x = make_x(1, 4)
    shard = bank.shards["base"]
    with torch.no_grad():
        before = bank(x)
        proposal = shard.gates(x).abs() * bank.modulator_rms * shard.value_norm()
        others = torch.ones(50, dtype=torch.bool).index_fill(0, proposal[0].topk(6).indices, False)
        shard.modulator[others] = float("nan")
        assert torch.equal(bank(x), before)
