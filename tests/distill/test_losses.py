from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mindset.distill.losses import head_kl, scaled_error

TOKENS, D_MODEL, VOCAB = 23, 8, 31


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make_head(seed: int, *, bias: bool = False, frozen: bool = True) -> nn.Linear:
    head = nn.Linear(D_MODEL, VOCAB, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        for index, parameter in enumerate(head.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=seed + 50 * index))
    return head.requires_grad_(not frozen)


def naive(
    states: Tensor, teacher_states: Tensor, head: nn.Module, teacher_head: nn.Module, softcap: float | None
) -> Tensor:
    student, teacher = head(states), teacher_head(teacher_states)
    if softcap is not None:
        student, teacher = (softcap * torch.tanh(logits / softcap) for logits in (student, teacher))
    p, q = teacher.detach().softmax(-1), student.softmax(-1)
    return (p * (p / q).log()).sum(-1).mean()


@pytest.mark.parametrize("rows", [1, 7, TOKENS, 256])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shared", [True, False])
def test_the_kl_in_pieces_is_the_kl_over_all_logits(
    rows: int, softcap: float | None, frozen: bool, bias: bool, shared: bool
) -> None:
    head = make_head(1, bias=bias, frozen=frozen)
    teacher_head = head if shared else make_head(2, bias=bias)
    teacher_states = draw(TOKENS, D_MODEL, seed=3)

    def gradients(loss: Tensor, states: Tensor) -> list[Tensor]:
        wanted = [states, *([] if frozen else head.parameters())]
        return list(torch.autograd.grad(2.5 * loss, wanted))

    ours, theirs = (draw(TOKENS, D_MODEL, seed=4).requires_grad_() for _ in range(2))
    fast = head_kl(ours, teacher_states, head, teacher_head, softcap=softcap, rows=rows)
    slow = naive(theirs, teacher_states, head, teacher_head, softcap)
    assert fast.dtype == torch.float64
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-14)
    for fast_grad, slow_grad in zip(gradients(fast, ours), gradients(slow, theirs), strict=True):
        torch.testing.assert_close(fast_grad, slow_grad, rtol=1e-10, atol=1e-13)


def test_the_kl_of_half_precision_states_is_taken_in_float32() -> None:
    head = make_head(1).bfloat16()
    states = draw(TOKENS, D_MODEL).bfloat16().requires_grad_()
    loss = head_kl(states, draw(TOKENS, D_MODEL, seed=1).bfloat16(), head, head)
    loss.backward()
    assert loss.dtype == torch.float32
    assert states.grad is not None
    assert states.grad.dtype == torch.bfloat16


def test_equal_states_have_no_kl_and_no_gradient() -> None:
    head, states = make_head(1), draw(TOKENS, D_MODEL).requires_grad_()
    loss = head_kl(states, states.detach(), head, head)
    loss.backward()
    assert loss.detach().abs() < 1e-14
    assert states.grad is not None
    assert float(states.grad.abs().max()) < 1e-15


def test_a_teachers_head_is_never_trained() -> None:
    head, teacher_head = make_head(1, frozen=False), make_head(2, frozen=False)
    head_kl(draw(TOKENS, D_MODEL), draw(TOKENS, D_MODEL, seed=1), head, teacher_head).backward()
    assert head.weight.grad is not None
    assert teacher_head.weight.grad is None


def test_the_scaled_error_is_the_fraction_of_variance_unexplained() -> None:
    output, target = draw(TOKENS, D_MODEL), draw(TOKENS, D_MODEL, seed=1)
    wanted = F.mse_loss(output, target) / target.var(dim=0, unbiased=False).mean()
    torch.testing.assert_close(scaled_error(output, target), wanted)


def test_the_mean_alone_leaves_an_error_of_one_at_any_scale() -> None:
    target = 100 + 7 * draw(TOKENS, D_MODEL)
    mean = target.mean(dim=0).expand_as(target)
    torch.testing.assert_close(scaled_error(mean, target), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(scaled_error(1e3 * mean, 1e3 * target), scaled_error(mean, target))
    assert float(scaled_error(target, target)) == 0


def test_targets_that_do_not_vary_give_a_number() -> None:
    assert torch.isfinite(scaled_error(draw(TOKENS, D_MODEL), torch.zeros(TOKENS, D_MODEL).double()))
