"""The keys by which a subject is recognised: balls around what a bank sees at the subject's last token.

Nearness is measured in the metric of ordinary text, `(x - c)' P (x - c)` with c and P the mean and the (shrunk) inverse
covariance of the bank's inputs: directions in which all text varies count little. Since a norm gives inputs one length,
the ball is a half-space, `key . x + key_bias > 0`; both are scaled so that the number is 1 at the middle and 0 at the
border, which lies at `reach` of the way from the middle of the subject to that of all text.

A subject that looks different in some places gets a second ball. No ball may hold anything of ordinary text: where one
would, its border is drawn nearer, and one that then no longer holds its own middle is left out. That is so for most
subjects of one token at the very beginning of a text, where the network keeps the same state whatever the token is.
Knows no facts and no slots. Source: the linear discriminant, Fisher 1936, with Ledoit-Wolf-like shrinkage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mindset.distill.stdlib_text import stdlib_documents
from mindset.graft.calibration import ff_inputs

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
_MARGIN = 0.05
"""How far ordinary text stays from every ball."""
KEY_DTYPE = torch.float16
"""What keys are rounded to, before the border is put in its place."""


@dataclass(frozen=True, eq=False)
class Background:
    """What a bank sees in ordinary text."""

    mean: Float[Tensor, " d_model"]
    precision: Float[Tensor, "d_model d_model"]
    """Inverse of the shrunk covariance; float64, like the mean."""
    seen: Float[Tensor, "tokens d_model"]
    """The inputs themselves, those at the beginnings of texts among them."""


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
    seen: list[Tensor] = []

    def take(x: Tensor) -> None:
        seen.append(x.detach().double().cpu())
        raise _Enough

    for rows in _ordinary_tokens(tokenizer).split(4):
        try:
            with ff_inputs(model, {layer: take}):
                model(rows.to(model.device), use_cache=False)
        except _Enough:
            continue
    inputs = torch.cat(seen)
    mean = inputs.mean(dim=0)
    covariance = (inputs - mean).T @ (inputs - mean) / len(inputs)
    shrunk = covariance + _SHRINKAGE * covariance.diagonal().mean() * torch.eye(
        len(mean), dtype=torch.float64
    )
    return Background(mean, torch.linalg.inv(shrunk), inputs)


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
    """Balls that hold what a bank saw at a subject in several texts, and nothing of ordinary text.

    Mostly one; none where the subject cannot be told from ordinary text.
    """
    left, keys = inputs.double().cpu(), list[SubjectKey]()
    middle = left.median(dim=0).values if len(left) > 2 else None
    while len(left) and len(keys) < _MOST_KEYS:
        key = _alone(_ball(left[0] if middle is None else middle, background, reach), background)
        outside = torch.ones(len(left), dtype=torch.bool) if key is None else key.margins(left) <= 0
        if key is not None and not outside.all():
            keys.append(key)
            left = left[outside]
        elif middle is None:  # this text cannot be told from ordinary ones
            left = left[1:]
        middle = None
    return keys


def _ball(middle: Float[Tensor, " d_model"], background: Background, reach: float) -> SubjectKey:
    """Around a middle: 1 there, 0 at the border."""
    away = middle - background.mean
    direction = background.precision @ away
    key = direction / float(direction @ away) / reach  # falls by 1 from the middle to the border
    stored = key.to(KEY_DTYPE).double()
    return SubjectKey(stored, 1.0 - float(stored @ middle))


def _alone(key: SubjectKey, background: Background) -> SubjectKey | None:
    """The ball without anything of ordinary text; None if nothing is left of it."""
    nearest = float(key.margins(background.seen).max()) + _MARGIN
    if nearest <= 0:
        return key
    if nearest >= 1:
        return None
    stored = (key.key / (1 - nearest)).to(KEY_DTYPE).double()
    middle_score = 1.0 - key.bias  # what the old key makes of the middle without its bias
    return SubjectKey(stored, 1.0 - middle_score / (1 - nearest))
