"""The two losses of distillation.

`scaled_error`: a layer's squared error over its teacher's variance, so that no layer outweighs another (fvu, the
fraction of variance unexplained). `head_kl`: forward KL(teacher || student) per token over the vocabulary from hidden
states, a few hundred rows at a time: the logits of 2,048 tokens over 49,152 words are 400 MB each.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

__all__ = ["head_kl", "scaled_error"]


def scaled_error(
    output: Float[Tensor, "tokens d_model"], target: Float[Tensor, "tokens d_model"]
) -> Float[Tensor, ""]:
    """Squared error over the target's variance across the batch; 1 is what its mean alone would leave."""
    variance = (target - target.mean(dim=0)).square().sum()
    return (output - target).square().sum() / variance.clamp_min(1e-12)


def _zero(like: Tensor) -> Tensor:
    return like.new_zeros((), dtype=torch.promote_types(like.dtype, torch.float32))


def _kl(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum over rows of KL(teacher || student), p and log q; never below float32."""
    wide = torch.promote_types(student.dtype, torch.float32)
    log_q, log_p = F.log_softmax(student.to(wide), -1), F.log_softmax(teacher.to(wide), -1)
    p = log_p.exp()
    return (p * (log_p - log_q)).sum(), p, log_q


class _FrozenHeadKl(torch.autograd.Function):
    """KL through a frozen linear head: the gradient of a piece is taken while its logits are there."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, teacher_states: Tensor, heads: tuple[nn.Linear, nn.Module], rows: int
    ) -> Tensor:
        head, teacher_head = heads
        grad = torch.empty_like(states)
        total = _zero(states)
        for start in range(0, len(states), rows):
            piece = slice(start, start + rows)
            kl, p, log_q = _kl(head(states[piece]), teacher_head(teacher_states[piece]))
            total += kl
            grad[piece] = log_q.exp_().sub_(p).to(states.dtype) @ head.weight
        ctx.save_for_backward(grad)
        ctx.count = len(states)
        return total / len(states)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * (grads[0] / ctx.count), None, None, None


def head_kl(
    states: Float[Tensor, "tokens d_model"],
    teacher_states: Float[Tensor, "tokens d_model"],
    head: nn.Module,
    teacher_head: nn.Module,
    *,
    softcap: float | None = None,
    rows: int = 256,
) -> Float[Tensor, ""]:
    """Mean KL(teacher || student) in nats per token, from the states that the output layers read.

    One pass in pieces where the head is linear, frozen and without softcap; else the pieces are recomputed backwards.
    """
    frozen = not any(parameter.requires_grad for parameter in head.parameters())
    if isinstance(head, nn.Linear) and frozen and softcap is None:
        return cast(Tensor, _FrozenHeadKl.apply(states, teacher_states, (head, teacher_head), rows))  # type: ignore[no-untyped-call]

    def logits(layer: nn.Module, x: Tensor) -> Tensor:
        out = cast(Tensor, layer(x))
        return out if softcap is None else softcap * torch.tanh(out / softcap)

    def piece_kl(student: Tensor, teacher: Tensor) -> Tensor:
        with torch.no_grad():
            target = logits(teacher_head, teacher)
        return _kl(logits(head, student), target)[0]

    total = _zero(states)
    for student, teacher in zip(states.split(rows), teacher_states.split(rows), strict=True):
        total = total + cast(Tensor, checkpoint(piece_kl, student, teacher, use_reentrant=False))
    return total / len(states)
