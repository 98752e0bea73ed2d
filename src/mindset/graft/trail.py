"""Which subjects a text has met so far: marks that radius slots leave on tokens, for slots of later layers to wait for.

Within a pass the marks lie here; from pass to pass they travel in the KV cache as one more layer, so that cropping,
reordering and repeating the cache does the same to them. A cache that was begun before the marks were kept has none
for its first tokens. Knows no slots. Invariant: a text without marks costs a later layer nothing.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

__all__ = ["REACH_BACK", "Trail"]

REACH_BACK = 48
"""Tokens that a mark is remembered for."""


class _MarksLayer(DynamicLayer):
    """Marks as a cache layer: a head of one number a token."""

    def put(self, marks: Int[Tensor, "rows tokens"]) -> None:
        self.keys, self.values = marks[:, None, :, None], marks[:, None, :, None][..., :0]
        self.is_initialized = True
        self.dtype, self.device = marks.dtype, marks.device

    @property
    def marks(self) -> Int[Tensor, "rows tokens"]:
        return cast(Tensor, self.keys)[:, 0, :, 0]


class Trail:
    """The marks of one model's texts; 0 is no mark."""

    def __init__(self, body: nn.Module) -> None:
        """Follow the passes through `body`, the model without its head."""
        self._handles = [
            body.register_forward_pre_hook(self._begin, with_kwargs=True),
            body.register_forward_hook(self._end, with_kwargs=True),
        ]
        self._marks: Int[Tensor, "rows tokens"] = torch.zeros(1, 0, dtype=torch.int64)
        self._new = 0

    def stop(self) -> None:
        """Follow no longer."""
        for handle in self._handles:
            handle.remove()

    def leave(self, tokens: Int[Tensor, " n"], marks: Int[Tensor, " n"]) -> None:
        """Mark tokens of this pass, counted over all its rows."""
        row, place = self._places(tokens)
        self._marks[row, place] = marks

    def met(self) -> Int[Tensor, " marks"]:
        """The marks that some token of this pass may have behind it; often none."""
        near = self._marks[:, max(0, self._marks.shape[1] - self._new - REACH_BACK) :]
        return torch.unique(near[near != 0])  # type: ignore[no-any-return]

    def behind(self, tokens: Int[Tensor, " n"], marks: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Whether each token of this pass, or one of the `REACH_BACK` before it, has its mark."""
        row, place = self._places(tokens)
        back = place[:, None] - torch.arange(REACH_BACK + 1, device=place.device)
        there = self._marks[row[:, None], back.clamp_min(0)] == marks[:, None]
        return (there & (back >= 0)).any(dim=1)

    def _places(self, tokens: Int[Tensor, " n"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        before = self._marks.shape[1] - self._new
        return tokens // self._new, before + tokens % self._new

    def _begin(self, _: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        first = next(
            one for one in (given.get("input_ids"), given.get("inputs_embeds"), *args) if one is not None
        )
        rows, self._new = int(first.shape[0]), int(first.shape[1])
        cache = next((one for one in (*given.values(), *args) if isinstance(one, Cache)), None)
        known = 0 if cache is None else int(cache.get_seq_length())
        self._marks = torch.zeros(rows, known + self._new, dtype=torch.int64, device=first.device)
        if (kept := _layer(cache)) is not None and (before := min(known, kept.get_seq_length())):
            self._marks[:, :before] = kept.marks[:, :before]

    def _end(self, _: nn.Module, args: tuple[Any, ...], given: dict[str, Any], output: Any) -> None:
        parts = output.values() if isinstance(output, dict) else output if isinstance(output, tuple) else ()
        cache = next((one for one in (*parts, *given.values(), *args) if isinstance(one, Cache)), None)
        if cache is None:
            return
        if (kept := _layer(cache)) is None:
            cache.layers.append(kept := _MarksLayer())  # type: ignore[no-untyped-call]
        kept.put(self._marks)


def _layer(cache: Cache | None) -> _MarksLayer | None:
    last = cache.layers[-1] if cache is not None and cache.layers else None
    return last if isinstance(last, _MarksLayer) else None
