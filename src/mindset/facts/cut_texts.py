"""Texts cut before one of their tokens: what lies before is computed once, the rest as often as it is asked for.

Writing a fact changes a network's state at the last token of the subject, so that everything before it, in every layer,
is the same in every step; and most of a prompt lies before it. Rows are laid out as

    [padding, before] [padding, from the cut on]

so that all end in the same column. Where only layers from `start` on are to be changed, what goes into that layer is
kept too, and the layers below are run once. Knows no facts. Invariant: the logits are those of the whole texts, to
rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mindset.errors import UsageError
from mindset.graft.families import layers_of
from mindset.probe.speed import cache_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Cut", "CutTexts", "Enough"]


_TOGETHER = 64
"""Texts that are run at once up to their cuts: those of about one length."""


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

    def __init__(self, model: PreTrainedModel, cuts: Sequence[Cut], start: int = 0) -> None:
        """Texts in a model that is changed from layer `start` on, if at all."""
        self.model, self.device = model, model.device
        self.lengths = torch.tensor([len(cut.ids) - cut.at for cut in cuts])
        """Tokens from the cut on."""
        self.before = torch.tensor([cut.at for cut in cuts])
        width = max(1, int(self.before.max()))
        _, self._mask = _padded([cut.ids[: cut.at] for cut in cuts], width)
        self._ids, self._own = _padded([cut.ids[cut.at :] for cut in cuts], int(self.lengths.max()))
        self._past = self._before_cuts(cuts, width)
        self._start, self._states = 0, torch.empty(0)
        if start:
            self._states = self._states_into(start)
            self._start = start

    def __len__(self) -> int:
        return len(self.lengths)

    @torch.no_grad()
    def _before_cuts(self, cuts: Sequence[Cut], width: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every layer `[texts, heads, width, d_head]`, zero where there is padding."""
        order, found = self.before.argsort(), list[list[tuple[Tensor, Tensor]]]()
        for some in order.split(_TOGETHER):
            here = max(1, int(self.before[some].max()))
            ids, mask = _padded([cuts[i].ids[: cuts[i].at] for i in some.tolist()], here)
            out = self._call(ids, mask, (mask.cumsum(1) - 1).clamp_min(0), None, logits_to_keep=1)
            there = mask[:, None, :, None].bool().to(self.device)
            padding = (0, 0, width - here, 0)
            found.append(
                [
                    (_held(layer.keys, there, padding), _held(layer.values, there, padding))
                    for layer in _layers(getattr(out, cache_name(self.model)))
                ]
            )
        back = order.argsort()
        columns = zip(*found, strict=True)
        return [
            (torch.cat(k)[back], torch.cat(v)[back]) for k, v in (zip(*one, strict=True) for one in columns)
        ]

    def places(self, rows: Int[Tensor, " rows"]) -> tuple[Int[Tensor, " rows"], int]:
        """The column in which each of `rows` is cut when these are run together, and how many columns there are."""
        width = int(self.lengths[rows].max())
        return width - self.lengths[rows], width

    def logits(self, rows: Int[Tensor, " rows"], keep: int) -> Float[Tensor, "rows keep vocab"]:
        """What the model says at the last `keep` tokens of some texts; gradients flow where they are wanted."""
        with self._from_start(rows):
            return self._logits(rows, keep)

    def _logits(self, rows: Int[Tensor, " rows"], keep: int) -> Float[Tensor, "rows keep vocab"]:
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

    @torch.no_grad()
    def _states_into(self, start: int) -> Float[Tensor, "texts width d_model"]:
        """The residual states that go into layer `start`."""
        states: list[Tensor] = []

        def keep(_: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
            states.append(args[0] if args else given["hidden_states"])
            raise Enough

        handle = layers_of(self.model)[start].register_forward_pre_hook(keep, with_kwargs=True)
        try:
            self._logits(torch.arange(len(self)), 1)
        except Enough:
            pass
        finally:
            handle.remove()
        return states[0].detach()

    @contextmanager
    def _from_start(self, rows: Int[Tensor, " rows"]) -> Iterator[None]:
        """Let the layers below the first that changes pass on what they get, and give that one what was kept."""
        if not self._start:
            yield
            return
        states = self._states[rows, -self.places(rows)[1] :]
        layers = layers_of(self.model)
        with ExitStack() as stack:
            for layer in layers[: self._start]:
                stack.callback(delattr, layer, "forward")  # that of its class shows again
                layer.forward = _pass_on

            def give(_: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
                return ((states, *args[1:]), given) if args else (args, given | {"hidden_states": states})

            handle = layers[self._start].register_forward_pre_hook(give, with_kwargs=True)
            stack.callback(handle.remove)
            yield

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
        handle = self.model.get_output_embeddings().register_forward_pre_hook(_contiguous)
        try:
            return self.model(**given, **({} if cache is None else {cache_name(self.model): cache}))
        finally:
            handle.remove()


class Enough(Exception):  # noqa: N818  not an error
    """The layers above are not needed."""


def _contiguous(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A slice of a few positions makes the head a batched product, several times slower than one product."""
    return (args[0].contiguous(), *args[1:])


def _pass_on(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


def _padded(
    rows: Sequence[Sequence[int]], width: int
) -> tuple[Int[Tensor, "rows width"], Int[Tensor, "rows width"]]:
    """Tokens flush right, and where they are."""
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def _held(rows: Tensor, there: Tensor, padding: tuple[int, ...]) -> Tensor:
    """Keys or values with more padding before them; a row of padding only has attended to nothing, and is nan."""
    return F.pad(torch.where(there, rows, torch.zeros_like(rows)), padding)


def _layers(cache: Any) -> list[Any]:
    layers = getattr(cache, "layers", None)
    if not layers or not all(hasattr(layer, "keys") for layer in layers):
        raise UsageError(
            f"facts need a model whose cache holds keys and values, not a {type(cache).__name__}"
        )
    return list(layers)
