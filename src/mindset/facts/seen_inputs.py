"""What feed-forward blocks of several layers see in cut texts, from the cut on.

Only the layers up to the last that is asked for are run. Knows no facts. Invariant: the inputs are those of the whole
texts, to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mindset.facts.cut_texts import Cut, Enough
from mindset.graft.calibration import ff_inputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["inputs_from_cuts"]

_TOGETHER = 384
"""Tokens that are run at once: texts of about one length."""


@torch.no_grad()
def inputs_from_cuts(
    model: PreTrainedModel, cuts: Sequence[Cut], layers: Sequence[int]
) -> list[dict[int, Float[Tensor, "pos d_model"]]]:
    """By text and layer: the inputs at the token at the cut and all behind it."""
    found: list[dict[int, Tensor]] = [{} for _ in cuts]
    last = max(layers)
    for places, ids in _batches(cuts):

        def take(layer: int, x: Tensor, places: list[int] = places, width: int = ids.shape[1]) -> None:
            rows = x.reshape(len(places), width, -1)
            for row, place in zip(rows, places, strict=True):
                found[place][layer] = row[cuts[place].at : len(cuts[place].ids)].clone()
            if layer == last:
                raise Enough

        takers = {layer: (lambda x, layer=layer, take=take: take(layer, x)) for layer in layers}
        try:
            with ff_inputs(model, takers):
                model(ids.to(model.device), use_cache=False)
        except Enough:
            continue
    return found


def _batches(cuts: Sequence[Cut]) -> Iterator[tuple[list[int], Int[Tensor, "rows width"]]]:
    """Texts of about one length together, flush left: what stands behind a text does not change it."""
    order = sorted(range(len(cuts)), key=lambda i: len(cuts[i].ids))
    start = 0
    while start < len(order):
        stop, width = start + 1, len(cuts[order[start]].ids)
        while stop < len(order) and (longer := len(cuts[order[stop]].ids)) * (stop + 1 - start) <= _TOGETHER:
            stop, width = stop + 1, longer
        places, start = order[start:stop], stop
        yield places, torch.tensor([[*cuts[i].ids] + [0] * (width - len(cuts[i].ids)) for i in places])
