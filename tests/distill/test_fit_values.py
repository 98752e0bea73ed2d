from __future__ import annotations

import copy

import torch

from mindset.distill.fit_values import RIDGE, fit_values
from mindset.graft.convert import build_student
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan
from mindset.probe.tap import tap_blocks, tap_states


def _model(seed: int = 0):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def _batches(seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 64, (4, 32), generator=generator) for _ in range(6)]


def _left_out(student, teacher, batches) -> list[float]:
    shares = []
    for layer, bank in banks(student).items():
        missing, total = 0.0, 0.0
        for tokens in batches:
            with torch.no_grad(), tap_blocks(teacher, (layer,)) as passes, tap_states(teacher):
                teacher(tokens, use_cache=False)
                x, y = passes[layer].both()
                missing += float((bank(x) - y).square().sum())
                total += float((y - y.mean(0)).square().sum())
        shares.append(missing / total)
    return shares


def test_the_closed_form_leaves_less_out_on_tokens_it_has_not_seen() -> None:
    teacher = _model()
    for skip in ("none", "affine"):
        student = build_student(teacher, ConversionPlan(k=4, skip=skip))
        before = _left_out(student, teacher, _batches(9))
        fit_values(student, teacher, _batches())
        after = _left_out(student, teacher, _batches(9))
        assert all(b < 0.9 * a for a, b in zip(before, after, strict=True)), (skip, before, after)


def test_it_is_the_ridge_regression_of_what_is_missing() -> None:
    teacher = _model()
    student = build_student(teacher, ConversionPlan(k=4, skip="affine"))
    bank = banks(student)[1]
    tokens = _batches()[0]
    with torch.no_grad(), tap_blocks(teacher, (1,)) as passes, tap_states(teacher):
        teacher(tokens, use_cache=False)
    x, y = (t.double() for t in passes[1].both())
    shard = copy.deepcopy(bank.shards["base"]).double()
    weights = shard.weights(x)
    best = (weights.abs() * shard.value.norm(dim=-1)).topk(4, dim=-1).indices
    read = torch.zeros_like(weights).scatter(-1, best, weights.gather(-1, best))
    regressors = torch.cat([read, x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    gram = regressors.T @ regressors
    squares = gram.diagonal()
    penalty = torch.cat([squares[:24].mean().expand(24), squares[24:40].mean().expand(16), squares[40:]])
    change = torch.linalg.solve(gram + torch.diag(RIDGE * penalty), regressors.T @ (y - read @ shard.value))
    wanted = shard.value + change[:24]
    fit_values(student, teacher, [tokens])
    assert torch.allclose(bank.shards["base"].value.double(), wanted, atol=1e-4)
    assert torch.allclose(bank.skip.weight.double(), change[24:40].T, atol=1e-4)
    assert torch.allclose(bank.skip.bias.double(), change[40], atol=1e-4)


def test_at_k_all_there_is_nothing_to_fit() -> None:
    teacher = _model()
    student = build_student(teacher, ConversionPlan())
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    fit_values(student, teacher, _batches())
    for name, tensor in student.state_dict().items():
        assert torch.allclose(tensor, before[name], atol=1e-4), name


def test_a_muted_bank_is_left_to_its_skip() -> None:
    teacher = _model()
    student = build_student(teacher, ConversionPlan(k=4, skip="affine"))
    bank = banks(student)[0]
    bank.muted = True
    before = bank.shards["base"].value.clone()
    fit_values(student, teacher, _batches())
    assert torch.equal(bank.shards["base"].value, before)
    assert bank.skip.weight.eq(0).all()
