"""What a block sees in ordinary text, and the keys that tell something else from it.

Nearness is measured in the metric of ordinary text, `(x - c)' P (x - c)` with c and P the mean and the (shrunk) inverse
covariance of the block's inputs: directions in which all text varies count little. Knows no facts and no slots.
Source: the linear discriminant, Fisher 1936, with Ledoit-Wolf-like shrinkage.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mindset.distill.stdlib_text import stdlib_documents
from mindset.facts.cut_texts import Cut
from mindset.facts.seen_inputs import inputs_from_cuts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Background", "RadiusKey", "measure_backgrounds", "ordinary_tokens"]

_SHRINKAGE = 0.3
"""Of the covariance, in units of its mean variance."""
_TOKENS, _WINDOW = 4096, 128
_EVERY = 12
"""Modules of the library that one is read of."""


@dataclass(frozen=True, eq=False)
class Background:
    """What a block sees in ordinary text."""

    mean: Float[Tensor, " d_model"]
    precision: Float[Tensor, "d_model d_model"]
    """Inverse of the shrunk covariance; float64, like the mean."""
    seen: Float[Tensor, "tokens d_model"]
    """The inputs themselves, those at the beginnings of texts among them."""


@dataclass(frozen=True, eq=False)
class RadiusKey:
    """A ball, or a half-space: what a radius slot answers to."""

    key: Float[Tensor, " d_model"]
    bias: float

    @classmethod
    def through(
        cls, direction: Float[Tensor, " d_model"], point: Float[Tensor, " d_model"], margin: float
    ) -> RadiusKey:
        """The key along `direction`, as it is stored, that makes `margin` of `point`."""
        scale = direction.abs().max().clamp_min(1e-12).float() / 127
        stored = (direction / scale).round() * scale.double()
        return cls(stored, margin - float(stored @ point))

    def margins(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, " n"]:
        """1 in the middle, 0 at the border."""
        return x.double() @ self.key + self.bias


def measure_backgrounds(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layers: tuple[int, ...]
) -> list[Background]:
    """Mean and precision at every layer, over a few thousand tokens of the standard library's documentation."""
    texts = [Cut(tuple(row), 0) for row in ordinary_tokens(tokenizer).tolist()]
    seen = inputs_from_cuts(model, texts, layers)
    return [_background(torch.cat([one[layer] for one in seen]).double().cpu()) for layer in layers]


def _background(inputs: Float[Tensor, "tokens d_model"]) -> Background:
    mean = inputs.mean(dim=0)
    covariance = (inputs - mean).T @ (inputs - mean) / len(inputs)
    shrunk = covariance + _SHRINKAGE * covariance.diagonal().mean() * torch.eye(
        len(mean), dtype=torch.float64
    )
    return Background(mean, torch.linalg.inv(shrunk), inputs)


def ordinary_tokens(tokenizer: PreTrainedTokenizerBase) -> Int[Tensor, "windows pos"]:
    """Pieces of documents from all over the library."""
    wanted = _TOKENS // _WINDOW
    pieces: list[list[int]] = []
    for beginning in _beginnings():
        ids = tokenizer(beginning, add_special_tokens=False)["input_ids"]
        if len(ids) >= _WINDOW:
            pieces.append(list(ids[:_WINDOW]))
        if len(pieces) == wanted:
            break
    return torch.tensor(pieces)


@cache
def _beginnings() -> tuple[str, ...]:
    """Of documents; it takes seconds to read them."""
    return tuple(document[: 8 * _WINDOW] for document in stdlib_documents(every=_EVERY))
