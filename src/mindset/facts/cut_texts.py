"""Texts cut before one of their tokens: what lies before is computed once, the rest as often as it is asked for.

Writing a fact changes a network's state at the last token of the subject, so that everything before it, in every layer,
is the same in every step; and most of a prompt lies before it. Rows are laid out as

    [padding, before] [padding, from the cut on]

so that all end in the same column. Knows no facts. Invariant: the logits are those of the whole texts, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mindset.errors import UsageError
from mindset.probe.speed import cache_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Cut", "CutTexts"]


@dataclass(frozen=True)
class Cut:
    """One text."""

    ids: tuple[int, ...]
    """Its tokens."""
    at: int
    """The token before which it is cut."""

    def __post_init__(self) -> None:
        if not 0 <= self.at < len(self.ids):
            raise UsageError(f"a cut before token {self.at} of {len(self.ids)}")


class CutTexts:
    """Cut texts with what the model knows of them up to the cut."""

    def __init__(self, model: PreTrainedModel, cuts: Sequence[Cut]) -> None:
        self.model, self.device = model, model.device
        self.lengths = torch.tensor([len(cut.ids) - cut.at for cut in cuts])
        """Tokens from the cut on."""
        self.before = torch.tensor([cut.at for cut in cuts])
        width = max(1, int(self.before.max()))
        ids, self._mask = _padded([cut.ids[: cut.at] for cut in cuts], width)
        self._ids, self._own = _padded([cut.ids[cut.at :] for cut in cuts], int(self.lengths.max()))
        with torch.no_grad():
            out = self._call(ids, self._mask, (self._mask.cumsum(1) - 1).clamp_min(0), None)
        self._past = [(layer.keys, layer.values) for layer in _layers(getattr(out, cache_name(model)))]
        for pair in self._past:  # a row of padding only attends to nothing
            for tensor in pair:
                tensor.nan_to_num_(0.0, 0.0, 0.0)

    def __len__(self) -> int:
        return len(self.lengths)

    def places(self, rows: Int[Tensor, " rows"]) -> tuple[Int[Tensor, " rows"], int]:
        """The column in which each of `rows` is cut when these are run together, and how many columns there are."""
        width = int(self.lengths[rows].max())
        return width - self.lengths[rows], width

    def logits(self, rows: Int[Tensor, " rows"], keep: int) -> Float[Tensor, "rows keep vocab"]:
        """What the model says at the last `keep` tokens of some texts; gradients flow where they are wanted."""
        from transformers import DynamicCache

        _, width = self.places(rows)
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self._past):
            cache.update(keys[rows], values[rows], layer)
        own = self._own[rows, -width:]
        positions = self.before[rows, None] + (own.cumsum(1) - 1).clamp_min(0)
        mask = torch.cat([self._mask[rows], own], dim=1)
        out = self._call(self._ids[rows, -width:], mask, positions, cache, logits_to_keep=keep)
        return out.logits[:, -keep:]  # type: ignore[no-any-return]

    def _call(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any, **extra: Any) -> Any:
        given = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            "use_cache": True,
        } | extra
        given = {
            name: value.to(self.device) if isinstance(value, Tensor) else value
            for name, value in given.items()
        }
        return self.model(**given, **({} if cache is None else {cache_name(self.model): cache}))


def _padded(
    rows: Sequence[Sequence[int]], width: int
) -> tuple[Int[Tensor, "rows width"], Int[Tensor, "rows width"]]:
    """Tokens flush right, and where they are."""
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def _layers(cache: Any) -> list[Any]:
    layers = getattr(cache, "layers", None)
    if not layers or not all(hasattr(layer, "keys") for layer in layers):
        raise UsageError(
            f"facts need a model whose cache holds keys and values, not a {type(cache).__name__}"
        )
    return list(layers)
