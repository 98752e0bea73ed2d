"""Which subjects a text has met so far: marks that radius slots leave on tokens, for slots of later layers to wait for.

Within a pass the marks lie here, with the tokens themselves; from pass to pass they travel in the KV cache as one more
layer, so that cropping, reordering and repeating the cache does the same to them. A cache that was begun before the
marks were kept has none for its first tokens. Knows no slots. Invariant: a text without marks costs a later layer
nothing.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

__all__ = ["ANY_TOKEN", "REACH_BACK", "MarksLayer", "Trail"]

REACH_BACK = 48
"""Tokens that a mark is remembered for."""
ANY_TOKEN = -1
"""In a spelling: whatever stands there. As a token of a text: unknown, since a pass was given vectors."""


class Stoppable(Protocol):
    """What can be ended."""

    def stop(self) -> None:
        """End it."""


class MarksLayer(DynamicLayer):
    """Marks and tokens as a cache layer: two heads of one number."""

    def put(self, kept: Int[Tensor, "rows 2 tokens"]) -> None:
        """Hold these in place of what was held."""
        self.keys, self.values = kept[..., None], kept[..., None][..., :0]
        self.is_initialized = True
        self.dtype, self.device = kept.dtype, kept.device

    @property
    def kept(self) -> Int[Tensor, "rows 2 tokens"]:
        """The marks, and the tokens, of every row."""
        return cast(Tensor, self.keys)[..., 0]


class Trail:
    """The marks of one model's texts; 0 is no mark."""

    def __init__(self, body: nn.Module) -> None:
        """Follow the passes through `body`, the model without its head."""
        self._handles = [
            body.register_forward_pre_hook(self._begin, with_kwargs=True),
            body.register_forward_hook(self._end, with_kwargs=True),
        ]
        self._kept: Int[Tensor, "rows 2 tokens"] = torch.zeros(1, 2, 0, dtype=torch.int64)
        self._new = 0
        self.leaning: Stoppable | None = None
        """What follows the passes with it, and stops with it."""

    @property
    def _marks(self) -> Int[Tensor, "rows tokens"]:
        return self._kept[:, 0]

    @property
    def _ids(self) -> Int[Tensor, "rows tokens"]:
        """The tokens; `ANY_TOKEN` where a pass was given no ids."""
        return self._kept[:, 1]

    def stop(self) -> None:
        """Follow no longer."""
        for handle in self._handles:
            handle.remove()
        if self.leaning is not None:
            self.leaning.stop()

    def leave(self, tokens: Int[Tensor, " n"], marks: Int[Tensor, " n"]) -> None:
        """Mark tokens of this pass, counted over all its rows."""
        row, place = self._places(tokens)
        self._marks[row, place] = marks

    def met(self) -> Int[Tensor, " marks"]:
        """The marks that some token of this pass may have behind it; often none."""
        near = self._marks[:, max(0, self._marks.shape[1] - self._new - REACH_BACK) :]
        return torch.unique(near[near != 0])  # type: ignore[no-any-return]

    def spells(self, tokens: Int[Tensor, " n"], wanted: Int[Tensor, "n ways tail"]) -> Bool[Tensor, " n"]:
        """Whether each token of this pass and those before it are as in one of its ways, the last token first."""
        row, place = self._places(tokens)
        back = place[:, None] - torch.arange(wanted.shape[-1], device=place.device)
        ids = torch.where(back >= 0, self._ids[row[:, None], back.clamp_min(0)], ANY_TOKEN - 1)[:, None]
        return ((wanted == ANY_TOKEN) | (ids == wanted) | (ids == ANY_TOKEN)).all(dim=-1).any(dim=-1)

    def behind(
        self, tokens: Int[Tensor, " n"], marks: Int[Tensor, " n"], until: Int[Tensor, " n"] | None = None
    ) -> Bool[Tensor, " n"]:
        """Whether each token of this pass, or one of the `REACH_BACK` before it, has its mark.

        With `until`: and that token was not said since.
        """
        row, place = self._places(tokens)
        steps = torch.arange(REACH_BACK + 1, device=place.device)
        back = place[:, None] - steps
        at = (row[:, None], back.clamp_min(0))
        never = torch.full_like(steps, REACH_BACK + 1)
        marked = torch.where((self._marks[at] == marks[:, None]) & (back >= 0), steps, never).amin(dim=1)
        if until is None:
            return marked <= REACH_BACK
        said = torch.where((self._ids[at] == until[:, None]) & (back >= 0), steps, never).amin(dim=1)
        return (marked <= REACH_BACK) & (said >= marked)

    def awaited(self, mark: int, token: int, reach: int = REACH_BACK) -> Bool[Tensor, "rows new"]:
        """The tokens of this pass at most `reach` behind a mark, since when `token` has not been said."""
        place = torch.arange(self._marks.shape[1], device=self._marks.device)
        never = torch.full_like(place, -reach - 1)
        marked = torch.where(self._marks == mark, place, never).cummax(dim=1).values
        said = torch.where(self._ids == token, place, never).cummax(dim=1).values
        waiting = (place - marked <= reach) & (said <= marked)
        return waiting[:, place.shape[0] - self._new :]

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
        self._kept = torch.zeros(rows, 2, known + self._new, dtype=torch.int64, device=first.device)
        self._ids[:] = ANY_TOKEN
        if first.ndim == 2:
            self._ids[:, known:] = first
        if (layer := _layer(cache)) is not None and (before := min(known, layer.get_seq_length())):
            self._kept[..., :before] = layer.kept[..., :before]

    def _end(self, _: nn.Module, args: tuple[Any, ...], given: dict[str, Any], output: Any) -> None:
        parts = output.values() if isinstance(output, dict) else output if isinstance(output, tuple) else ()
        cache = next((one for one in (*parts, *given.values(), *args) if isinstance(one, Cache)), None)
        if cache is None:
            return
        if (layer := _layer(cache)) is None:
            cache.layers.append(layer := MarksLayer())  # type: ignore[no-untyped-call]
        layer.put(self._kept)


def _layer(cache: Cache | None) -> MarksLayer | None:
    last = cache.layers[-1] if cache is not None and cache.layers else None
    return last if isinstance(last, MarksLayer) else None
