"""Bits per byte of one model on one text, after protocol bpb-1.

Works on any causal LM of transformers, student or teacher. Does not know where the text came from, nor the
other model of a comparison. Invariant: how windows are batched and logits cut changes the figure by no more
than rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from mindset.errors import DataError
from mindset.probe.bootstrap import Interval, bits_per_byte_interval
from mindset.probe.logits import evaluation_mode, iter_logits
from mindset.probe.windows import WindowBatch, Windows

__all__ = ["Scores", "bits_per_byte", "score", "sum_by_window", "token_nll"]


@dataclass(frozen=True, eq=False)
class Scores:
    """What one model paid for each window."""

    nll: Float[np.ndarray, " windows"]
    """Negative log-likelihood of the scored tokens, nats, summed in f64."""
    n_bytes: Int[np.ndarray, " windows"]
    """UTF-8 bytes of the scored tokens."""
    n_tokens: Int[np.ndarray, " windows"]
    """Scored tokens."""

    @property
    def bits_per_byte(self) -> float:
        """Sum of bits over sum of bytes."""
        return bits_per_byte(self.nll, self.n_bytes)

    @property
    def nats_per_token(self) -> float:
        """Mean loss of a scored token, as training prints it."""
        return float(self.nll.sum() / self.n_tokens.sum())

    @property
    def tokens(self) -> int:
        """Scored tokens in all."""
        return int(self.n_tokens.sum())

    def interval(self, *, seed: int = 0) -> Interval:
        """95 % bootstrap interval of `bits_per_byte` over windows."""
        return bits_per_byte_interval(self.nll, self.n_bytes, seed=seed)


def score(
    model: PreTrainedModel,
    windows: Windows,
    batch_tokens: int = 2048,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score every window; `progress(windows done, windows in all)` is called after each batch."""
    nll = np.zeros(len(windows))
    with evaluation_mode(model), torch.no_grad():
        for batch in windows.batches(batch_tokens):
            done = batch.first + len(batch.input_ids)
            nll[batch.first : done] = _batch_nll(model, batch)
            if progress is not None:
                progress(done, len(windows))
    return Scores(nll, windows.n_bytes, windows.n_tokens)


def bits_per_byte(nll: Float[np.ndarray, " windows"], n_bytes: Int[np.ndarray, " windows"]) -> float:
    """Nats and bytes of windows as bits per byte, a ratio of sums."""
    total = int(n_bytes.sum())
    if total == 0:
        raise DataError(
            "The windows hold no scored byte, so bits per byte are undefined; give a longer text."
        )
    return float(nll.sum() / total / math.log(2))


def token_nll(logits: Float[Tensor, "rows vocab"], targets: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """Negative log-likelihood of each target, nats."""
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def sum_by_window(per_token: list[Tensor], batch: WindowBatch) -> Float[np.ndarray, " batch"]:
    """Sum pieces of a per-token figure into one f64 figure per window of the batch."""
    # On the CPU: sums there are deterministic, and some devices know no f64.
    figures = torch.cat(per_token).cpu().numpy().astype(np.float64)
    return np.bincount(batch.window_of.cpu().numpy(), weights=figures, minlength=len(batch.input_ids))


def _batch_nll(model: PreTrainedModel, batch: WindowBatch) -> Float[np.ndarray, " batch"]:
    pieces, at = [], 0
    targets = batch.targets.to(model.device)
    for logits in iter_logits(model, batch):
        pieces.append(token_nll(logits, targets[at : at + len(logits)]))
        at += len(logits)
    return sum_by_window(pieces, batch)
