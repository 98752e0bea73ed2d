"""The keys by which a subject is recognised: balls around what a bank sees at the subject's last token.

Nearness is measured in the metric of ordinary text, `(x - c)' P (x - c)` with c and P the mean and the (shrunk) inverse
covariance of the bank's inputs: directions in which all text varies count little. Since a norm gives inputs one length,
the ball is a half-space, `key . x + key_bias > 0`; both are scaled so that the number is 1 at the middle and 0 at the
border, which lies at `reach` of the way from the middle of the subject to that of all text.

A subject that looks different in some places, such as a single token that begins the text, gets a second ball.
Knows no facts and no slots. Source: the linear discriminant, Fisher 1936, with Ledoit-Wolf-like shrinkage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mindset.distill.stdlib_text import stdlib_documents
from mindset.graft.calibration import Moments, ff_inputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Background", "SubjectKey", "measure_background", "subject_keys"]

REACH = 0.45
"""Where a ball ends: share of the way from its middle to the mean of all text."""
_SHRINKAGE = 0.3
"""Of the covariance, in units of its mean variance."""
_TOKENS, _WINDOW = 4096, 128
_EVERY = 12
"""Modules of the library that one is read of."""
_MOST_KEYS = 3
KEY_DTYPE = torch.float16
"""What keys are rounded to, before the border is put in its place."""


@dataclass(frozen=True, eq=False)
class Background:
    """What a bank sees in ordinary text."""

    mean: Float[Tensor, " d_model"]
    precision: Float[Tensor, "d_model d_model"]
    """Inverse of the shrunk covariance; float64, like the mean."""


@dataclass(frozen=True, eq=False)
class SubjectKey:
    """One ball."""

    key: Float[Tensor, " d_model"]
    bias: float

    def margins(self, x: Float[Tensor, "texts d_model"]) -> Float[Tensor, " texts"]:
        """1 in the middle, 0 at the border."""
        return x.double() @ self.key + self.bias


class _Enough(Exception):  # noqa: N818  not an error
    """The layers above are not needed."""


@torch.no_grad()
def measure_background(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layer: int) -> Background:
    """Mean and precision over a few thousand tokens of the standard library's documentation."""
    moments: list[Moments] = []

    def take(x: Tensor) -> None:
        if not moments:
            moments.append(Moments.empty(x.shape[1]))
        moments[0].add(x)
        raise _Enough

    for rows in _ordinary_tokens(tokenizer).split(4):
        try:
            with ff_inputs(model, {layer: take}):
                model(rows.to(model.device), use_cache=False)
        except _Enough:
            continue
    mean = moments[0].mean
    covariance = moments[0].moment - torch.outer(mean, mean)
    shrunk = covariance + _SHRINKAGE * covariance.diagonal().mean() * torch.eye(
        len(mean), dtype=torch.float64
    )
    return Background(mean, torch.linalg.inv(shrunk))


def _ordinary_tokens(tokenizer: PreTrainedTokenizerBase) -> Int[Tensor, "windows pos"]:
    """Pieces of documents from all over the library."""
    wanted = _TOKENS // _WINDOW
    pieces: list[list[int]] = []
    for document in stdlib_documents(every=_EVERY):
        ids = tokenizer(document[: 8 * _WINDOW], add_special_tokens=False)["input_ids"]
        if len(ids) >= _WINDOW:
            pieces.append(list(ids[:_WINDOW]))
        if len(pieces) == wanted:
            break
    return torch.tensor(pieces)


def subject_keys(
    inputs: Float[Tensor, "texts d_model"], background: Background, reach: float = REACH
) -> list[SubjectKey]:
    """Balls that hold what a bank saw at a subject in several texts, the first for certain: one, rarely more."""
    left, keys = inputs.double().cpu(), list[SubjectKey]()
    while len(left) and len(keys) < _MOST_KEYS:
        key = _ball(left.median(dim=0).values if len(left) > 2 else left[0], background, reach)
        outside = left[key.margins(left) <= 0]
        if len(outside) == len(left):  # the median of far apart texts may be near none of them
            key = _ball(left[0], background, reach)
            outside = left[key.margins(left) <= 0]
        keys.append(key)
        left = outside
    if not any(float(key.margins(inputs[:1].double().cpu())) > 0 for key in keys):
        keys.append(_ball(inputs[0].double().cpu(), background, reach))
    return keys


def _ball(middle: Float[Tensor, " d_model"], background: Background, reach: float) -> SubjectKey:
    away = middle - background.mean
    direction = background.precision @ away
    key = direction / float(direction @ away) / reach  # falls by 1 from the middle to the border
    stored = key.to(KEY_DTYPE).double()
    return SubjectKey(stored, 1.0 - float(stored @ middle))
