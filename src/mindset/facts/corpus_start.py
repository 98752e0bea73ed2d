"""Where the slots begin that a text is written into: as the neurons that say most on it, with values of nothing.

What a pretrained neuron looks for is worth more than what chance would look for (docs/results/facts.notes.md). Values
of nothing: training starts at the model that was given. Knows no training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mindset.graft.added import AddedShard
from mindset.graft.bank import Bank, MirrorBank
from mindset.graft.calibration import ff_inputs
from mindset.graft.model import banks
from mindset.graft.shard import Shard

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["first_slots"]

_HEARD = 12
"""Windows on which neurons are heard."""
_NUMBERS = 1 << 24
"""Weights that are looked at once."""
_WEIGHT = 0.6
"""Root mean square of a slot's weight on the text: what random keys and modulators of scores about 1 have."""


@torch.no_grad()
def first_slots(
    model: PreTrainedModel, windows: Int[Tensor, "windows pos"], count: int, *, seed: int = 0
) -> dict[int, AddedShard]:
    """By layer: slots that begin as copies of neurons, or at random where a bank lends none (or not enough)."""
    generator = torch.Generator().manual_seed(seed)
    sizes, loudest = _heard(model, windows[:_HEARD], count)
    keys = {layer: _first_keys(bank, loudest[layer], count, sizes[layer], generator)
            for layer, bank in banks(model).items()}  # fmt: skip
    weights = _weights(model, windows[:4], keys)
    found = {}
    for layer, bank in banks(model).items():
        key, bias, modulator = keys[layer]
        scaled = modulator * (_WEIGHT / weights[layer].clamp_min(1e-6))[:, None]
        like = next(bank.parameters())
        found[layer] = AddedShard(key, bias, scaled, torch.zeros_like(key)).to(like.device, torch.float32)
    return found


def _lends(bank: Bank) -> Shard | None:
    """The neurons of a bank that slots may begin as: those that are looked for and weighed as slots are."""
    if not isinstance(bank, MirrorBank):
        return None
    shard = cast("list[Shard]", list(bank.shards.values()))[0]
    return shard if shard.gated else None


def _heard(
    model: PreTrainedModel, windows: Int[Tensor, "windows pos"], count: int
) -> tuple[dict[int, float], dict[int, Int[Tensor, " neurons"]]]:
    """By layer: the root mean square length of what its block sees, and the neurons that say most on the text."""
    square: dict[int, list[float]] = {layer: [] for layer in banks(model)}
    said: dict[int, Tensor] = {}

    def hear(layer: int, x: Tensor) -> None:
        rows = x.reshape(-1, x.shape[-1]).float()
        square[layer].append(float(rows.square().sum(-1).mean()))
        if (shard := _lends(banks(model)[layer])) is not None:
            for some in rows.to(shard.key).split(max(1, _NUMBERS // shard.n_slots)):
                own = shard.weights(some).float().square().sum(0) * shard.value_norm().float().square()
                said[layer] = said[layer] + own if layer in said else own

    def hearing(layer: int) -> Callable[[Tensor], None]:
        return lambda x: hear(layer, x)

    with ff_inputs(model, {layer: hearing(layer) for layer in banks(model)}):
        for row in windows.split(1):
            model.base_model(row.to(model.device), use_cache=False)
    none = torch.zeros(0, dtype=torch.long)
    loudest = {layer: said[layer].topk(min(count, len(said[layer]))).indices if layer in said else none
               for layer in banks(model)}  # fmt: skip
    return {layer: (sum(some) / len(some)) ** 0.5 for layer, some in square.items()}, loudest


def _first_keys(
    bank: Bank, neurons: Int[Tensor, " neurons"], count: int, size: float, generator: torch.Generator
) -> tuple[Float[Tensor, "count d_model"], Float[Tensor, " count"], Float[Tensor, "count d_model"]]:
    """Keys, their biases, and modulators: those of neurons, then random ones of scores about 1."""
    shape = (count - len(neurons), bank.d_model)
    key, modulator = (torch.randn(shape, generator=generator) / size for _ in range(2))
    bias = torch.zeros(len(key))
    if (shard := _lends(bank)) is None:
        return key, bias, modulator
    lent = [rows.detach()[neurons].float().cpu() for rows in (shard.key, cast(Tensor, shard.modulator))]
    biases = (
        torch.zeros(len(neurons))
        if shard.key_bias is None
        else shard.key_bias.detach()[neurons].float().cpu()
    )
    return torch.cat([lent[0], key]), torch.cat([biases, bias]), torch.cat([lent[1], modulator])


def _weights(
    model: PreTrainedModel,
    windows: Int[Tensor, "windows pos"],
    keys: dict[int, tuple[Tensor, Tensor, Tensor]],
) -> dict[int, Float[Tensor, " count"]]:
    """By layer: the root mean square of each slot's weight on the text."""
    found: dict[int, Tensor] = {}

    def weighing(layer: int) -> Callable[[Tensor], None]:
        key, bias, modulator = keys[layer]
        slots = AddedShard(key, bias, modulator, torch.zeros_like(key))

        def weigh(x: Tensor) -> None:
            rows = x.reshape(-1, x.shape[-1]).float().cpu()
            found[layer] = slots.weights(rows).square().mean(0).sqrt()

        return weigh

    with ff_inputs(model, {layer: weighing(layer) for layer in keys}):
        model.base_model(windows.to(model.device), use_cache=False)
    return found
