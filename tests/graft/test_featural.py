import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mindset.errors import BankSizeError
from mindset.graft.featural import FeaturalBank
from mindset.graft.recording import record
from mindset.graft.skip import build_skip

WEIGHTS = ("relu", "gelu", "silu", "distance", "softmax")


def make_bank(
    weight: str = "relu", *, n_slots: int = 9, n_heads: int = 2, k: int | None = None, seed: int = 0
):
    """A bank in float64 with nothing at its zero start."""
    generator = torch.Generator().manual_seed(seed)
    bank = FeaturalBank(3, 6, n_slots=n_slots, n_heads=n_heads, d_key=4, weight=weight, k=k).double()
    bank.reset(generator)
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return bank.eval()


def make_x(n_tokens: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_tokens, 6, dtype=torch.float64, generator=generator).requires_grad_()


def naive(bank: FeaturalBank, x: Tensor) -> Tensor:
    """Token by token, head by head, slot by slot."""
    rows, act = bank.rows, {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}
    out = []
    for token in x:
        heads = []
        for h in range(bank.n_heads):
            q = bank.query.weight[h * 4 : h * 4 + 4] @ token
            q = (q - q.mean()) / (q.var(unbiased=False) + 1e-5).sqrt()
            weighted = []
            for i in range(bank.n_slots):
                score = q.dot(rows.key[h, i]) + rows.key_bias[h, i]
                if bank.weight in act:
                    weight = act[bank.weight](score)
                elif bank.weight == "distance":
                    square = (q - rows.key[h, i]).square().sum() - 2 * rows.key_bias[h, i]
                    weight = torch.exp(-square.clamp_min(0) / torch.exp(2 * bank.width[h]))
                else:
                    weight = score
                weighted.append((weight, rows.value[h, i]))
            if bank.weight == "softmax":
                best = sorted(weighted, key=lambda pair: -float(pair[0].detach()))[: bank.k]
                total = sum(weight.exp() for weight, _ in best)
                heads.append(sum(weight.exp() / total * value for weight, value in best))
            else:
                best = sorted(weighted, key=lambda pair: -float((pair[0].abs() * pair[1].norm()).detach()))[
                    : bank.k
                ]
                heads.append(sum(weight * value for weight, value in best))
        out.append(bank.output.weight @ torch.cat(heads) + bank.output.bias)
    return torch.stack(out)


@settings(max_examples=40, deadline=None)
@given(
    weight=st.sampled_from(WEIGHTS),
    n_slots=st.integers(1, 7),
    n_heads=st.integers(1, 3),
    n_tokens=st.integers(1, 5),
    k_share=st.none() | st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_reading_is_the_naive_formula(*, weight, n_slots, n_heads, n_tokens, k_share, seed):
    k = None if k_share is None else 1 + round(k_share * (n_slots - 1))
    bank = make_bank(weight, n_slots=n_slots, n_heads=n_heads, k=k, seed=seed)
    x = make_x(n_tokens, seed)
    ours, theirs = bank(x), naive(bank, x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    spread = torch.linspace(-1, 2, ours.numel(), dtype=ours.dtype).view_as(ours)
    named = {"x": x, **dict(bank.named_parameters())}
    one, other = (
        torch.autograd.grad((out * spread).sum(), list(named.values()), allow_unused=True)
        for out in (ours, theirs)
    )
    for name, first, second in zip(named, one, other, strict=True):
        grads = [torch.zeros_like(named[name]) if grad is None else grad for grad in (first, second)]
        torch.testing.assert_close(*grads, rtol=1e-7, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("weight", WEIGHTS)
def test_reset_begins_near_zero_and_is_named_by_its_seed(weight):
    banks = []
    for _ in range(2):
        bank = FeaturalBank(0, 32, n_slots=64, n_heads=2, weight=weight, k=8)
        bank.reset(torch.Generator().manual_seed(1))
        banks.append(bank)
    one, two = (bank.state_dict() for bank in banks)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert banks[0](torch.randn(50, 32)).std() < 0.3
    torch.testing.assert_close(banks[0].rows.key.norm(dim=-1), torch.ones(2, 64))


@pytest.mark.parametrize("weight", WEIGHTS)
def test_at_most_k_slots_a_head_are_read_and_recorded(weight):
    bank = make_bank(weight, k=3)
    bank.counter = torch.zeros(18)
    bank.skip = build_skip("affine", 6).double()
    seen = []
    with record(bank, seen.append):
        out = bank(make_x(11))
    read = seen[0].weights
    assert read.shape == (11, 2, 9)
    assert int((read != 0).sum(-1).max()) <= 3
    assert torch.equal(bank.counter, (read != 0).sum(0).flatten().float())
    torch.testing.assert_close(seen[0].output, out)
    if weight == "softmax":
        torch.testing.assert_close(read.sum(-1), torch.ones(11, 2, dtype=torch.float64))


def test_tokens_do_not_see_each_other():
    bank = make_bank("softmax", k=3).train()
    x = make_x(6)
    torch.testing.assert_close(bank(x)[2:4], bank(x[2:4]))


def test_muted_is_what_the_output_adds_alone():
    bank = make_bank()
    bank.muted = True
    assert torch.equal(bank(make_x(4)), bank.output.bias.expand(4, 6))


def test_a_k_above_the_slots_of_a_head_is_refused():
    with pytest.raises(BankSizeError, match="k = 10, but the bank of layer 3 holds 9 slots"):
        make_bank(k=10)


def test_width_starts_where_a_random_key_is_seen():
    bank = FeaturalBank(0, 32, n_slots=16, d_key=32, weight="distance")
    bank.reset(torch.Generator().manual_seed(0))
    assert float(bank.width.detach()[0]) == pytest.approx(0.5 * math.log(64), abs=1e-6)
