"""The compiled loops against torch's steps and the sorted definition."""

import pytest
import torch
from graft.tiny_banks import make_bank, make_x
from hypothesis import given, settings
from hypothesis import strategies as st

from mindset.graft import bank as bank_module
from mindset.graft import one_token
from mindset.graft.propose import ProposerSpec

pytest.importorskip("numba", reason="the extra `fast` is not installed")
MANY = settings(max_examples=40, deadline=None)


def test_a_gradient_many_tokens_and_other_dtypes_are_left_to_torch():
    rows = torch.ones(3, 4)
    assert not one_token.usable(torch.ones(1, 4), rows)  # a gradient may be wanted
    with torch.no_grad():
        assert one_token.usable(torch.ones(1, 4), rows)
        assert not one_token.usable(torch.ones(2, 4), rows)
        assert not one_token.usable(torch.ones(1, 4), rows.double())
        assert not one_token.usable(torch.ones(1, 4).bfloat16(), rows.bfloat16())
        assert not one_token.usable(torch.ones(1, 4), torch.ones(4, 3).T)


@MANY
@given(n_slots=st.integers(1, 9), share=st.floats(0, 1), levels=st.integers(1, 9), seed=st.integers(0, 999))
def test_the_highest_are_summed_whatever_the_ties(n_slots, share, levels, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randint(-levels, levels + 1, (n_slots,), generator=generator).double()
    value = torch.eye(n_slots).double()
    k = 1 + round(share * (n_slots - 1))
    read = one_token.read_weighted(weights, torch.ones_like(weights), value, k)
    assert (read[read != 0] == weights[read != 0]).all()
    best = weights.abs().sort(descending=True).values[:k]
    torch.testing.assert_close(read.abs().sort(descending=True).values[:k], best)
    assert int((read != 0).sum()) <= k


@MANY
@given(
    n_slots=st.integers(1, 9), d_model=st.integers(1, 6), c_share=st.floats(0, 1), k_share=st.floats(0, 1),
    kind=st.sampled_from(["all", "score", "proxy"]), gated=st.booleans(), bias=st.booleans(),
    rule=st.sampled_from(["gelu", "silu"]), seed=st.integers(0, 999),
)  # fmt: skip
def test_loops_are_torchs_steps(*, n_slots, d_model, c_share, k_share, kind, gated, bias, rule, seed):
    candidates = 1 + round(c_share * (n_slots - 1))
    spec = ProposerSpec(kind, 0 if kind == "all" else candidates, 1 if kind == "proxy" else 0)
    k = 1 + round(k_share * ((n_slots if kind == "all" else candidates) - 1))
    bank = make_bank(n_slots, 0, d_model, gated=gated, bias=bias, rule=rule, k=k, seed=seed, propose=spec)
    many = make_x(20, d_model, seed).detach()  # without moments, or with ReLU, a proxy's ranks would be tied
    bank.calibrate(many.T @ many / 20, many.mean(0))
    x = make_x(1, d_model, seed)
    with torch.no_grad():
        compiled = bank.read_gathered(x)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bank_module, "usable", lambda *_: False)
            torch.testing.assert_close(bank.read_gathered(x), compiled, rtol=0, atol=1e-9)
            torch.testing.assert_close(bank.read_masked(x), compiled, rtol=0, atol=1e-9)


def test_what_is_not_a_number_spoils_the_sum_and_nothing_else():
    weights = torch.tensor([1.0, float("nan"), 2.0])
    assert one_token.read_weighted(weights, torch.ones(3), torch.eye(3), 3).isnan().any()
    alone = torch.full((3,), float("nan"))
    assert one_token.read_weighted(alone, torch.ones(3), torch.eye(3), 2).isnan().all()


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
