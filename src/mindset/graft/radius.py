"""Radius slots: slots that answer only within a distance of their key. How a fact is written.

A token fires a slot if `key . x + key_bias > 0`: for inputs that a norm has given one length this is a ball around the
key. Keys and biases are scaled so that the number is 1 at the middle of what the slot was made for and 0 at the
border; of several slots that fire the nearest answers, alone.

What a slot does when it answers: it adds its value to what the bank read, if it has one, and leaves its mark on the
token, if it has one. A slot may wait for a mark: then it answers only where the text has met that mark before, and, if
it is to bring about a token, only until that is said. Such a slot may also lean: see `leaning`. And a slot may ask for
a spelling: what a low layer sees tells `Zambia` from `Malawi` less well than their letters do.

Invariant: where none fires nothing is computed with the bank's output, which so stays the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mindset.errors import UsageError
from mindset.graft.trail import Trail

__all__ = ["Answer", "Listener", "RadiusShard"]


@dataclass(frozen=True)
class Answer:
    """Slots of one overlay that answered in one pass through a bank."""

    layer: int
    overlay: str
    tokens: Int[Tensor, " answers"]
    """Places of the tokens that they answered, counted over the whole batch."""
    slots: Int[Tensor, " answers"]
    """The slot that answered each."""
    margins: Float[Tensor, " answers"]
    """How near: 0 at the border, about 1 in the middle; 0 too for a slot that only leans."""


Listener = Callable[[Answer], None]


class RadiusShard(nn.Module):
    """One layer's slots of an overlay. They are no parameters: neither saved with the model nor trained with it."""

    key: Tensor
    key_bias: Tensor
    value: Tensor | None
    mark: Tensor | None
    after: Tensor | None
    until: Tensor | None
    token: Tensor | None
    lean: Tensor | None
    spelled: Tensor | None

    def __init__(
        self,
        key: Float[Tensor, "n_slots d_model"],
        key_bias: Float[Tensor, " n_slots"],
        value: Float[Tensor, "n_slots d_model"] | None = None,
        *,
        mark: Int[Tensor, " n_slots"] | None = None,
        after: Int[Tensor, " n_slots"] | None = None,
        until: Int[Tensor, " n_slots"] | None = None,
        token: Int[Tensor, " n_slots"] | None = None,
        lean: Float[Tensor, " n_slots"] | None = None,
        spelled: Int[Tensor, "n_slots ways tail"] | None = None,
    ) -> None:
        """Slots that add `value`, leave `mark`, answer `after` a mark, `until` a token, and `lean` to `token`.

        Those with `spelled` answer only where a text ends in one of these ways, see `Trail.spells`.
        """
        super().__init__()
        fields = {
            "key": key,
            "key_bias": key_bias,
            "value": value,
            "mark": mark,
            "after": after,
            "until": until,
            "token": token,
            "lean": lean,
            "spelled": spelled,
        }
        lengths = {name: len(rows) for name, rows in fields.items() if rows is not None}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{count} of {name}" for name, count in lengths.items())
            raise UsageError(f"{told}: give one of each for every slot")
        for name, rows in fields.items():
            self.register_buffer(name, rows, persistent=False)
        self.muted: set[int] = set()
        """Slots that do not answer, though they are there."""

    @property
    def n_slots(self) -> int:
        return int(self.key.shape[0])

    @property
    def needs_trail(self) -> bool:
        """Whether marks have to be followed for these slots."""
        return self.mark is not None or self.after is not None

    def nearest(
        self, x: Float[Tensor, "tokens d_model"], trail: Trail | None = None
    ) -> tuple[Int[Tensor, " answers"], Int[Tensor, " answers"], Float[Tensor, " answers"]]:
        """The tokens that some slot answers, the nearest slot of each, and its margin."""
        if self.after is None:
            return _best(self._spelled_only(self._margins(x, None), trail))
        if trail is None:
            raise UsageError("these slots wait for marks, and no trail is followed; mount them with `mount`")
        slots = torch.isin(self.after, trail.met()).nonzero()[:, 0]
        if not len(slots):
            return slots, slots, x.new_empty(0)
        margins = self._margins(x, slots)
        token, column = (margins > 0).nonzero(as_tuple=True)
        until = None if self.until is None else self.until.long()[slots[column]]
        alone = ~trail.behind(token, self.after[slots[column]], until)
        margins[token[alone], column[alone]] = -torch.inf
        tokens, columns, best = _best(margins)
        return tokens, slots[columns], best

    def _spelled_only(
        self, margins: Float[Tensor, "tokens n_slots"], trail: Trail | None
    ) -> Float[Tensor, "tokens n_slots"]:
        """Without those of slots that ask for another spelling; where no text is followed there is none to ask for."""
        if self.spelled is None or trail is None:
            return margins
        token, slot = (margins > 0).nonzero(as_tuple=True)
        other = ~trail.spells(token, self.spelled[slot])
        margins[token[other], slot[other]] = -torch.inf
        return margins

    def _margins(
        self, x: Float[Tensor, "tokens d_model"], slots: Int[Tensor, " some"] | None
    ) -> Float[Tensor, "tokens some"]:
        key, bias = (self.key, self.key_bias) if slots is None else (self.key[slots], self.key_bias[slots])
        margins = F.linear(x.to(key.dtype), key, bias)
        if self.muted:
            muted = torch.tensor(sorted(self.muted), device=x.device)
            margins[:, muted if slots is None else torch.isin(slots, muted)] = -torch.inf
        return margins


def _best(
    margins: Float[Tensor, "tokens some"],
) -> tuple[Int[Tensor, " answers"], Int[Tensor, " answers"], Float[Tensor, " answers"]]:
    best = margins.max(dim=-1)
    tokens = (best.values > 0).nonzero()[:, 0]
    return tokens, best.indices[tokens], best.values[tokens]
