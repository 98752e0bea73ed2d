import pytest
import torch
from graft.tiny import CONFIGS, tiny_model, tokens
from graft.tiny_banks import make_bank, make_x
from hypothesis import given, settings
from hypothesis import strategies as st

from mindset.errors import UsageError
from mindset.graft.calibration import calibrate, input_moments, own_samples
from mindset.graft.convert import build_student
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan
from mindset.graft.propose import ProposerSpec, Proxy, parse_propose

FEW = settings(max_examples=30, deadline=None)


def fitted(bank, seed: int = 0):
    """Calibrate a bank to inputs of uneven directions; return them."""
    x = make_x(200, bank.d_model, seed).detach()
    x = x * torch.linspace(0.5, 2, bank.d_model, dtype=x.dtype) + 0.3
    bank.calibrate(x.T @ x / len(x), x.mean(0))
    return x


def exact(bank, x):
    weights = torch.cat([shard.weights(x) for shard in bank.shards.values()], dim=-1)
    return weights.abs() * bank._norms()


@FEW
@given(
    n_base=st.integers(1, 9), n_new=st.integers(0, 4), kind=st.sampled_from(["score", "proxy"]),
    gated=st.booleans(), seed=st.integers(0, 99), k_share=st.floats(0, 1),
)  # fmt: skip
def test_all_slots_as_candidates_reads_as_all(*, n_base, n_new, kind, gated, seed, k_share):
    n_slots = n_base + n_new
    k = 1 + round(k_share * (n_slots - 1))
    spec = ProposerSpec(kind, n_slots, 1 if kind == "proxy" else 0)
    bank = make_bank(n_base, n_new, 4, gated=gated, k=k, propose=spec, seed=seed)
    plain = make_bank(n_base, n_new, 4, gated=gated, k=k, seed=seed)
    x = fitted(bank, seed)[:6]
    for read in ("read_masked", "read_gathered"):
        torch.testing.assert_close(getattr(bank, read)(x), plain.read_masked(x), rtol=0, atol=1e-10)


@FEW
@given(gated=st.booleans(), bias=st.booleans(), n_base=st.integers(1, 9), n_new=st.integers(0, 4))
def test_a_proxy_of_full_rank_estimates_exactly(gated, bias, n_base, n_new):
    bank = make_bank(n_base, n_new, 4, gated=gated, bias=bias, propose=ProposerSpec("proxy", 1, 4))
    x = fitted(bank)[:20]
    torch.testing.assert_close(bank._proposal(x, None), exact(bank, x), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("n_slots", [2, 3, 30])
def test_a_proxy_may_have_a_higher_rank_than_there_are_slots(n_slots):
    bank = make_bank(n_slots, 0, 8, gated=False, propose=ProposerSpec("proxy", 2, 6))
    x = fitted(bank)[:20]
    if n_slots <= 6:
        torch.testing.assert_close(bank._proposal(x, None), exact(bank, x), rtol=1e-6, atol=1e-8)


def test_the_proxy_is_the_best_projection_of_its_rank():
    """No other projection of the rank predicts the value-weighted scores better: Eckart-Young on whitened inputs."""
    bank = make_bank(12, 0, 6, bias=False, propose=ProposerSpec("proxy", 2, 3))
    x = fitted(bank)
    shard, proxy = bank.shards["base"], bank.proxies["base"]
    norm = shard.value_norm()
    rows = torch.cat([shard.key, shard.modulator]).detach() * norm.repeat(2)[:, None]
    ours = torch.cat([proxy.key_low, proxy.modulator_low]) * norm.repeat(2)[:, None] @ proxy.project
    error = (x @ (rows - ours).T).square().sum()
    singular = torch.linalg.svdvals(x @ rows.T)
    torch.testing.assert_close(error, singular[3:].square().sum(), rtol=1e-6, atol=1e-6)


@FEW
@given(n_base=st.integers(1, 9), n_new=st.integers(0, 4), bias=st.booleans(), seed=st.integers(0, 99))
def test_the_score_of_an_ungated_slot_is_its_influence(*, n_base, n_new, bias, seed):
    bank = make_bank(n_base, n_new, 4, gated=False, bias=bias, propose=ProposerSpec("score", 1), seed=seed)
    x = fitted(bank, seed)[:5]
    gates = torch.cat([shard.gates(x) for shard in bank.shards.values()], dim=-1)
    torch.testing.assert_close(bank._proposal(x, gates), exact(bank, x), rtol=0, atol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_calibrated_rms_is_the_rms(bias):
    bank = make_bank(7, 3, 4, bias=bias, propose=ProposerSpec("score", 2))
    x = fitted(bank)
    direct = bank.shards["base"].modulations(x).square().mean(0).sqrt()
    torch.testing.assert_close(bank.modulator_rms[:7], direct.detach())
    assert torch.equal(bank.modulator_rms[7:], torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bloom"])
def test_conversion_calibrates_to_what_the_blocks_are_fed(family):
    teacher = tiny_model(family, dtype=torch.float64)
    ids = tokens(5, 20)
    student = build_student(teacher, ConversionPlan(k=4, propose="score", candidates=8), calibration=ids)
    plain = build_student(teacher, ConversionPlan())
    for layer, bank in banks(plain).items():
        fed = []
        handle = bank.register_forward_pre_hook(lambda _m, args, fed=fed: fed.append(args[0].flatten(0, -2)))
        plain(ids)
        handle.remove()
        modulations = bank.shards["base"].modulations(torch.cat(fed))
        wanted = (
            torch.ones_like(bank.modulator_rms)
            if modulations is None
            else modulations.square().mean(0).sqrt()
        )
        torch.testing.assert_close(banks(student)[layer].modulator_rms, wanted.detach())


@pytest.mark.parametrize("family", CONFIGS)
def test_own_samples_are_the_models_own(family):
    """With the cache as without: each token is drawn from the distribution that a fresh pass gives."""
    model = tiny_model(family)
    drawn = own_samples(model, rows=3, length=10, seed=4)
    generator = torch.Generator().manual_seed(4)
    ids = drawn[:, :1]
    for _ in range(9):
        probabilities = model(ids).logits[:, -1].float().softmax(-1)
        ids = torch.cat([ids, torch.multinomial(probabilities.detach(), 1, generator=generator)], dim=1)
    assert torch.equal(drawn, ids)
    assert torch.equal(drawn[:, 0], torch.full((3,), model.config.bos_token_id))


def test_own_samples_stop_where_the_model_does():
    model = tiny_model("gpt2")
    assert own_samples(model, rows=1, length=500).shape == (1, 128)


def test_calibrating_twice_is_calibrating_once():
    teacher = tiny_model("llama", dtype=torch.float64)
    student = build_student(teacher, ConversionPlan(k=4, propose="proxy:4", candidates=8))
    moments = input_moments(teacher, tokens(), (0, 1))
    calibrate(student, moments)
    once = {name: t.clone() for name, t in student.state_dict().items()}
    calibrate(student, moments)
    assert all(torch.equal(t, once[name]) for name, t in student.state_dict().items())


@pytest.mark.parametrize(
    ("text", "candidates", "wanted"),
    [
        ("all", None, ProposerSpec()),
        ("score", 5, ProposerSpec("score", 5)),
        ("proxy:12", 5, ProposerSpec("proxy", 5, 12)),
    ],
)
def test_parse(text, candidates, wanted):
    assert parse_propose(text, candidates) == wanted


@pytest.mark.parametrize(
    ("text", "candidates"),
    [
        ("proxy", 5),
        ("proxy:0", 5),
        ("proxy:x", 5),
        ("ann", 5),
        ("score", None),
        ("proxy:3", None),
        ("all", 5),
    ],
)
def test_parse_refuses(text, candidates):
    with pytest.raises(UsageError, match=r"allowed|give --candidates"):
        parse_propose(text, candidates)


def test_a_rank_above_the_models_width_is_refused():
    with pytest.raises(UsageError, match="proxy:5 has a higher rank"):
        Proxy(3, 4, 5, gated=True)
