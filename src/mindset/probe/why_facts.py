"""Radius slots that answered somewhere in a prompt, and what the model would say without each.

A fact may answer before the last token, so that its influence there says little about what comes next. It is measured
instead: the same prompt once more with that slot mute. Slots that only recognise a subject are not told. Invariant:
asking changes nothing in the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from mindset.graft.model import banks
from mindset.graft.radius import Answer, RadiusShard
from mindset.graft.recording import listen

__all__ = ["WhyFact", "answers", "muted"]


@dataclass(frozen=True)
class WhyFact:
    """One radius slot that answered."""

    layer: int
    overlay: str
    row: int
    """Row of the overlay's shard in that layer."""
    place: int
    """The token of the prompt that it answered from nearest, from 0."""
    margin: float
    """How near that token was: 0 at the border, about 1 in the middle; 0 if the slot leaned only."""
    probability: float
    """What the model gives its likeliest next token."""
    probability_without: float
    """What it gives the same token with this slot mute."""
    likeliest_without: int
    """The likeliest token then."""
    token: str = ""
    """Text of the token that it answered."""
    next_without: str = ""
    """Text of `likeliest_without`."""
    slot: int | None = None
    """Its id, which `mindset memory` takes."""
    label: str = ""
    """What people call it."""
    source: str = ""
    """The line that it cites."""


@contextmanager
def muted(shard: RadiusShard, slot: int) -> Iterator[None]:
    """Let one slot not answer while the block is open."""
    before = set(shard.muted)
    shard.muted = before | {slot}
    try:
        yield
    finally:
        shard.muted = before


@torch.no_grad()
def answers(model: PreTrainedModel, ids: Int[Tensor, " prompt"]) -> list[WhyFact]:
    """The radius slots that answered in a prompt, those first without which the answer changes most."""
    heard: dict[tuple[int, str, int], tuple[int, float]] = {}

    def hear(answer: Answer) -> None:
        if banks(model)[answer.layer].overlays[answer.overlay].value is None:
            return  # it recognised a subject and says nothing itself
        triples = zip(answer.tokens.tolist(), answer.slots.tolist(), answer.margins.tolist(), strict=True)
        for token, slot, margin in triples:
            key = (answer.layer, answer.overlay, slot)
            if key not in heard or margin > heard[key][1]:
                heard[key] = (token, margin)

    with listen(model, hear):
        likely = _next(model, ids)
    said = int(likely.argmax())
    found = []
    for (layer, overlay, row), (place, margin) in heard.items():
        with muted(banks(model)[layer].overlays[overlay], row):
            without = _next(model, ids)
        found.append(
            WhyFact(
                layer,
                overlay,
                row,
                place,
                margin,
                float(likely[said]),
                float(without[said]),
                int(without.argmax()),
            )
        )
    return sorted(found, key=lambda one: one.probability_without - one.probability)


def _next(model: PreTrainedModel, ids: Int[Tensor, " prompt"]) -> Float[Tensor, " vocab"]:
    logits = model(input_ids=ids.to(model.device)[None], use_cache=False).logits[0, -1]
    return logits.float().softmax(-1)  # type: ignore[no-any-return]
