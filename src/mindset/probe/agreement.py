"""A student beside its teacher on the same windows: gap in bits per byte, KL divergence, same first choice.

One pass of each model per batch, and figures are kept per window so that intervals can be paired. Does not
know how the student came to be. Invariant: a model compared with itself has gap 0, KL 0 and agreement 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from mindset.errors import UsageError
from mindset.probe.bits import Scores, sum_by_window, token_nll
from mindset.probe.bootstrap import Interval, gap_interval
from mindset.probe.logits import evaluation_mode, iter_logits
from mindset.probe.windows import WindowBatch, Windows

__all__ = ["Comparison", "compare", "token_kl"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What student and teacher paid for each window, and how far apart they were."""

    student: Scores
    """The student's scores."""
    teacher: Scores
    """The teacher's scores on the same windows."""
    window_kl: Float[np.ndarray, " windows"]
    """KL(teacher || student) summed over the scored positions, nats."""
    window_agreed: Int[np.ndarray, " windows"]
    """Scored positions at which both would have said the same token."""

    @property
    def gap(self) -> float:
        """Student minus teacher, bits per byte."""
        return self.student.bits_per_byte - self.teacher.bits_per_byte

    @property
    def kl(self) -> float:
        """KL(teacher || student), nats, mean over scored tokens."""
        return float(self.window_kl.sum() / self.student.tokens)

    @property
    def top1_agreement(self) -> float:
        """Share of scored positions with the same most likely token."""
        return float(self.window_agreed.sum() / self.student.tokens)

    def gap_interval(self, *, seed: int = 0) -> Interval:
        """95 % paired bootstrap interval of `gap` over windows."""
        return gap_interval(self.student.nll, self.teacher.nll, self.student.n_bytes, seed=seed)


def compare(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    windows: Windows,
    batch_tokens: int = 2048,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Compare on every window; `progress(windows done, windows in all)` is called after each batch."""
    sums = np.zeros((4, len(windows)))
    with evaluation_mode(student, teacher), torch.no_grad():
        for batch in windows.batches(batch_tokens):
            done = batch.first + len(batch.input_ids)
            sums[:, batch.first : done] = _batch_sums(student, teacher, batch)
            if progress is not None:
                progress(done, len(windows))
    student_nll, teacher_nll, kl, agreed = sums
    return Comparison(
        Scores(student_nll, windows.n_bytes, windows.n_tokens),
        Scores(teacher_nll, windows.n_bytes, windows.n_tokens),
        kl,
        agreed.astype(np.int64),
    )


def token_kl(
    student: Float[Tensor, "rows vocab"], teacher: Float[Tensor, "rows vocab"]
) -> Float[Tensor, " rows"]:
    """KL(teacher || student) at each position from the logits of both, nats."""
    log_student, log_teacher = student.log_softmax(-1), teacher.log_softmax(-1)
    return torch.nn.functional.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(-1)


def _batch_sums(
    student: PreTrainedModel, teacher: PreTrainedModel, batch: WindowBatch
) -> Float[np.ndarray, "4 batch"]:
    """Per window: nats of the student, nats of the teacher, KL, positions of agreement."""
    per_token: list[list[Tensor]] = [[], [], [], []]
    targets, at = batch.targets.to(student.device), 0
    for ours, theirs in zip(iter_logits(student, batch), iter_logits(teacher, batch), strict=True):
        if ours.shape != theirs.shape:
            raise UsageError(
                f"The student predicts {ours.shape[-1]} tokens, the teacher {theirs.shape[-1]}; "
                "only models over one vocabulary can be compared."
            )
        taught = theirs.to(ours.device, ours.dtype)
        wanted = targets[at : at + len(ours)]
        at += len(ours)
        figures = (
            token_nll(ours, wanted),
            token_nll(taught, wanted),
            token_kl(ours, taught),
            ours.argmax(-1) == taught.argmax(-1),
        )
        for pieces, figure in zip(per_token, figures, strict=True):
            pieces.append(figure)
    return np.stack([sum_by_window(pieces, batch) for pieces in per_token])
