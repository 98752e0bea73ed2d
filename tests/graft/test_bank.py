import pytest
import torch
from graft.tiny_banks import make_bank, make_x
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mindset.errors import BankSizeError, UsageError
from mindset.graft import bank as bank_module
from mindset.graft.bank import MirrorBank
from mindset.graft.families import FeedForward
from mindset.graft.propose import ProposerSpec
from mindset.graft.recording import record
from mindset.graft.shard import RULES, Shard, activation_of
from mindset.graft.skip import build_skip

SIZES = st.integers(1, 7)
FEW = settings(max_examples=40, deadline=None)


def naive(bank: MirrorBank, x: Tensor, allowed: list[set[int]] | None = None) -> Tensor:
    """Design.md's formula, token by token and slot by slot; `allowed`: the candidates of every token."""
    out = []
    for t, token in enumerate(x):
        slots = []
        for shard in bank.shards.values():
            for i in range(shard.n_slots):
                score = shard.key[i].dot(token)
                if shard.key_bias is not None:
                    score = score + shard.key_bias[i]
                weight = shard.activation(score)
                if shard.modulator is not None:
                    modulation = shard.modulator[i].dot(token)
                    if shard.modulator_bias is not None:
                        modulation = modulation + shard.modulator_bias[i]
                    weight = weight * modulation
                slots.append((weight, shard.value[i]))
        ranked = sorted(
            (i for i in range(len(slots)) if allowed is None or i in allowed[t]),
            key=lambda i: -float((slots[i][0].abs() * slots[i][1].norm()).detach()),
        )
        total = sum((slots[i][0] * slots[i][1] for i in ranked[: bank.k]), torch.zeros_like(token))
        out.append(total if bank.bias is None else total + bank.bias)
    return torch.stack(out)


def gradients(bank: MirrorBank, x: Tensor, out: Tensor) -> dict[str, Tensor]:
    """Of a sum with fixed random weights, so that no gradient is the same as another by symmetry."""
    loss = (out * torch.linspace(-1.0, 2.0, out.numel(), dtype=out.dtype).view_as(out)).sum()
    named = {"x": x} | {name: p for name, p in bank.named_parameters() if not name.startswith("bias")}
    grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(named.items(), grads, strict=True)
    }


def assert_same(bank: MirrorBank, x: Tensor, first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=1e-9)
    one, other = gradients(bank, x, first), gradients(bank, x, second)
    for name in one:
        torch.testing.assert_close(
            one[name], other[name], rtol=0, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )


@FEW
@given(
    n_base=SIZES, n_new=st.integers(0, 4), d_model=SIZES, n_tokens=SIZES, k_share=st.floats(0, 1),
    gated=st.booleans(), bias=st.booleans(), rule=st.sampled_from(RULES), seed=st.integers(0, 999),
)  # fmt: skip
def test_masked_is_gathered_is_naive(*, n_base, n_new, d_model, n_tokens, k_share, gated, bias, rule, seed):
    n_slots = n_base + n_new
    k = 1 + round(k_share * (n_slots - 1))
    bank = make_bank(n_base, n_new, d_model, gated=gated, bias=bias, rule=rule, k=k, seed=seed)
    x = make_x(n_tokens, d_model, seed)
    b = 0 if bank.bias is None else bank.bias
    wanted = naive(bank, x)
    assert_same(bank, x, bank.read_masked(x) + b, wanted)
    assert_same(bank, x, bank.read_gathered(x) + b, wanted)
    assert_same(bank, x, bank(x), wanted)


@FEW
@given(
    n_base=SIZES, n_new=st.integers(0, 4), d_model=SIZES, n_tokens=SIZES, gated=st.booleans(), bias=st.booleans()
)  # fmt: skip
def test_k_all_is_the_block(*, n_base, n_new, d_model, n_tokens, gated, bias):
    bank = make_bank(n_base, n_new, d_model, gated=gated, bias=bias)
    x = make_x(n_tokens, d_model)
    assert_same(bank, x, bank(x), naive(bank, x))


@FEW
@given(
    n_base=SIZES, n_new=st.integers(0, 4), d_model=SIZES, n_tokens=SIZES,
    picks=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    kind=st.sampled_from(["score", "proxy"]), gated=st.booleans(), bias=st.booleans(), seed=st.integers(0, 999),
)  # fmt: skip
def test_proposed_masked_is_gathered_is_naive(
    *, n_base, n_new, d_model, n_tokens, picks, kind, gated, bias, seed
):
    candidates = 1 + round(max(picks) * (n_base + n_new - 1))
    k = 1 + round(min(picks) * (candidates - 1))
    spec = ProposerSpec(kind, candidates, max(1, d_model // 2) if kind == "proxy" else 0)
    bank = make_bank(n_base, n_new, d_model, gated=gated, bias=bias, k=k, propose=spec, seed=seed)
    x = make_x(n_tokens, d_model, seed)
    inputs = make_x(50, d_model, seed + 1).detach()
    bank.calibrate(inputs.T @ inputs / 50, inputs.mean(0))
    gates = torch.cat([shard.gates(x) for shard in bank.shards.values()], dim=-1).detach()
    proposed = bank._proposal(x.detach(), gates).topk(candidates).indices
    wanted = naive(bank, x, [set(row) for row in proposed.tolist()])
    b = 0 if bank.bias is None else bank.bias
    assert_same(bank, x, bank.read_masked(x) + b, wanted)
    assert_same(bank, x, bank.read_gathered(x) + b, wanted)


@pytest.mark.parametrize("kind", ["score", "proxy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gathering_works_in_every_dtype(kind, dtype):
    spec = ProposerSpec(kind, 6, 2 if kind == "proxy" else 0)
    bank = make_bank(8, 3, 4, k=3, propose=spec).to(dtype)
    x = make_x(1, 4).to(dtype).detach()
    torch.testing.assert_close(bank.read_gathered(x), bank.read_masked(x), rtol=0.02, atol=0.05)


def test_one_token_fetches_only_what_the_candidates_need(monkeypatch):
    bank = make_bank(50, 0, 4, k=3, propose=ProposerSpec("score", 6))
    fetched = []
    select = torch.Tensor.index_select
    monkeypatch.setattr(bank, "_read_compiled", lambda x: None)  # torch's steps; the loops: test_one_token
    monkeypatch.setattr(Tensor, "index_select", lambda t, d, i: fetched.append(len(i)) or select(t, d, i))
    modulator = bank.shards["base"].modulator
    bank._norms()  # measured once for all tokens
    monkeypatch.setattr(bank.shards["base"], "modulations", lambda x: pytest.fail("every modulator was read"))
    with torch.no_grad():
        bank(make_x(1, 4))
    assert fetched == [6]
    assert modulator.shape[0] == 50


@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("kind", ["all", "score"])
def test_a_long_prompt_before_a_large_memory_is_read_in_pieces(kind, k, monkeypatch):
    spec = ProposerSpec("score", 6) if kind == "score" else None
    bank, x, sizes = make_bank(20, 5, 4, k=k, propose=spec), make_x(11, 4), []
    plain = bank._read_at_once
    monkeypatch.setattr(bank, "_read_at_once", lambda x, watched: sizes.append(len(x)) or plain(x, watched))
    with torch.no_grad():
        whole = bank(x)
        monkeypatch.setattr(bank_module, "MOST_NUMBERS", 4 * bank.n_slots + 1)
        pieces = bank(x)
    assert sizes == [11, 4, 4, 3]
    torch.testing.assert_close(whole, pieces)
    bank(x)  # where gradients are wanted it is one
    assert sizes[4:] == [11]


def test_the_negative_half_of_silu_is_kept():
    """A slot with a negative gate and a long value speaks louder than a weakly positive one."""
    rows = FeedForward(
        key=torch.tensor([[-1.0], [0.1]]), value=torch.tensor([[5.0], [0.5]]), key_bias=None,
        modulator=torch.ones(2, 1), modulator_bias=None, bias=None,
    )  # fmt: skip
    for propose in (ProposerSpec(), ProposerSpec("score", 1)):
        bank = MirrorBank(
            0, {"base": Shard(rows, activation_of("silu"), "family")}, None, k=1, propose=propose
        ).eval()
        x = torch.ones(1, 1)
        expected = torch.nn.functional.silu(torch.tensor(-1.0)) * 5.0
        assert expected < 0
        torch.testing.assert_close(bank.read_masked(x)[0, 0], expected)
        torch.testing.assert_close(bank.read_gathered(x)[0, 0], expected)


def test_new_slots_compete_with_the_mirrored_for_the_k():
    bank = make_bank(4, 4, 3, k=2)
    with torch.no_grad():
        bank.shards["new"].value.mul_(1e3)
        bank.shards["new"].key_bias.fill_(1.0)
    seen = []
    with record(bank, seen.append):
        bank(make_x(9, 3))
    read = seen[0].weights[:, 0] != 0
    assert bool(read[:, 4:].any())
    assert int(read.sum(-1).max()) <= 2


# ---- what is kept between reads
def test_value_norms_follow_every_way_of_changing_a_value():
    bank = make_bank(5, 0, 3, k=2)
    shard = bank.shards["base"]

    def stale() -> bool:
        return not torch.equal(shard.value_norm(), shard.value.detach().norm(dim=-1))

    assert not stale()
    with torch.no_grad():
        shard.value.mul_(2)
    assert not stale()
    shard.value.grad = torch.ones_like(shard.value)
    torch.optim.SGD([shard.value], lr=0.1).step()
    assert not stale()
    shard.load_state_dict({name: t * 3 for name, t in shard.state_dict().items()})
    assert not stale()
    bank.to(torch.bfloat16).to(torch.float64)
    assert not stale()
    shard.value = nn.Parameter(torch.ones_like(shard.value))
    assert not stale()


def test_reading_in_eval_changes_nothing_and_training_moves_the_rms_only():
    bank = make_bank(6, 2, 3, k=2, propose=ProposerSpec("score", 4))
    before = {name: t.clone() for name, t in bank.state_dict().items()}
    bank(make_x(5, 3))
    bank(make_x(1, 3))
    assert all(torch.equal(t, before[name]) for name, t in bank.state_dict().items())
    bank.train()
    x = make_x(5, 3)
    bank(x)
    changed = {name for name, t in bank.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"modulator_rms"}
    now = bank.shards["base"].modulations(x).square().mean(0).sqrt()
    torch.testing.assert_close(bank.modulator_rms[:6], 0.99 * before["modulator_rms"][:6] + 0.01 * now)
    assert torch.equal(bank.modulator_rms[6:], before["modulator_rms"][6:])  # the new ones have no modulator


def test_counter_counts_the_tokens_that_read_each_slot():
    bank = make_bank(6, 0, 3, k=2)
    bank.counter = torch.zeros(6)
    seen = []
    with record(bank, seen.append):
        bank(make_x(10, 3))
    assert torch.equal(bank.counter, (seen[0].weights[:, 0] != 0).sum(0).float())
    assert int(bank.counter.sum()) == 20


def test_a_recorded_read_is_the_read():
    bank = make_bank(6, 2, 3, k=2)
    bank.skip = build_skip("affine", 3).double()
    with torch.no_grad():
        bank.skip.weight.normal_()
    for n_tokens in (1, 5):
        x = make_x(n_tokens, 3)
        seen = []
        plain = bank(x)
        with record(bank, seen.append):
            recorded = bank(x)
        torch.testing.assert_close(recorded, plain)
        torch.testing.assert_close(seen[0].output, recorded)
        rows = torch.cat([shard.value for shard in bank.shards.values()])
        torch.testing.assert_close(seen[0].weights[:, 0] @ rows + bank.bias + bank.skip(x), recorded)


def test_residual_and_leading_axes_are_kept():
    bank = make_bank(6, 0, 3, k=2)
    x = make_x(8, 3).view(2, 4, 3)
    torch.testing.assert_close(bank(x).view(8, 3), bank(x.view(8, 3)))
    torch.testing.assert_close(bank(x, torch.ones_like(x)), bank(x) + 1)


# ---- refusals
@pytest.mark.parametrize("k", [0, -1, 7])
def test_k_that_the_bank_has_not_is_refused(k):
    with pytest.raises(BankSizeError, match=f"k = {k}, but the bank of layer 0 holds 6 slots"):
        make_bank(6, 0, 3).set_k(k)


def test_more_candidates_than_slots_and_more_k_than_candidates_are_refused():
    with pytest.raises(BankSizeError, match="7 candidates, but the bank of layer 0 holds 6"):
        make_bank(6, 0, 3, propose=ProposerSpec("score", 7))
    with pytest.raises(UsageError, match="k = 5 of only 4 candidates"):
        make_bank(6, 0, 3, k=5, propose=ProposerSpec("score", 4))


def test_unknown_activation_rule_is_refused():
    with pytest.raises(UsageError, match="'tanh' is no activation rule"):
        activation_of("tanh")
