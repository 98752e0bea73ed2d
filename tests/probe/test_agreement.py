from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from mindset.errors import UsageError
from mindset.probe.agreement import compare, token_kl
from mindset.probe.bits import score
from mindset.probe.windows import Windows


def test_the_teacher_beside_itself_has_no_gap(
    make_model: Callable[..., PreTrainedModel], family: str, windows: Windows
) -> None:
    comparison = compare(make_model(family), make_model(family), windows)
    assert abs(comparison.gap) <= 1e-6
    assert abs(comparison.kl) <= 1e-6
    assert comparison.top1_agreement == 1


def test_a_comparison_holds_what_each_scores_alone(
    make_model: Callable[..., PreTrainedModel], windows: Windows
) -> None:
    student, teacher = make_model("llama", seed=1), make_model("llama", seed=2)
    comparison = compare(student, teacher, windows, 32)
    assert comparison.student.nll == pytest.approx(score(student, windows).nll, abs=1e-4)
    assert comparison.teacher.nll == pytest.approx(score(teacher, windows).nll, abs=1e-4)
    interval = comparison.gap_interval()
    assert interval.estimate == pytest.approx(comparison.gap)
    assert interval.low <= comparison.gap <= interval.high


def test_kl_and_agreement_equal_the_definitions(
    make_model: Callable[..., PreTrainedModel], windows: Windows
) -> None:
    student, teacher = (make_model("gpt2", seed=seed, dtype=torch.float64) for seed in (1, 2))
    comparison = compare(student, teacher, windows)
    for at, (window, agreed) in enumerate(zip(comparison.window_kl, comparison.window_agreed, strict=True)):
        ids = torch.from_numpy(windows.ids[at * 16 : (at + 1) * 16])[None]
        with torch.no_grad():
            q, p = (model(input_ids=ids).logits[0, :-1].softmax(-1) for model in (student, teacher))
        assert window == pytest.approx((p * (p / q).log()).sum().item(), abs=1e-9)
        assert agreed == (p.argmax(-1) == q.argmax(-1)).sum().item()
    assert comparison.kl == pytest.approx(comparison.window_kl.sum() / windows.n_tokens.sum())


def test_kl_has_the_teacher_first() -> None:
    sure, unsure = torch.tensor([[8.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    assert token_kl(student=sure, teacher=unsure).item() > 2 > token_kl(student=unsure, teacher=sure).item()


def test_models_over_different_vocabularies_are_refused(
    make_model: Callable[..., PreTrainedModel], windows: Windows
) -> None:
    config = LlamaConfig(
        vocab_size=101,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        bos_token_id=1,
        eos_token_id=2,
    )
    with pytest.raises(UsageError, match="97 tokens, the teacher 101"):
        compare(make_model("llama"), LlamaForCausalLM(config), windows)


def test_models_are_left_as_they_were(make_model: Callable[..., PreTrainedModel], windows: Windows) -> None:
    student, teacher = make_model("llama", seed=1).train(), make_model("llama", seed=2)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    compare(student, teacher, windows)
    assert student.training
    assert not teacher.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
    assert all(parameter.grad is None for parameter in student.parameters())


def test_windows_keep_their_order(make_model: Callable[..., PreTrainedModel], windows: Windows) -> None:
    student, teacher = make_model("llama", seed=1), make_model("llama", seed=2)
    whole, first = compare(student, teacher, windows), compare(student, teacher, windows.first(1))
    assert first.window_kl == pytest.approx(whole.window_kl[:1], rel=1e-4)
    assert np.array_equal(first.window_agreed, whole.window_agreed[:1])
