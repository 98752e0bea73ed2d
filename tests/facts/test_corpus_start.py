"""Slots of a text begin as neurons, weigh about one on it, and say nothing yet."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from graft.tiny import tiny_model, tokens

from mindset.facts import corpus_start
from mindset.facts.corpus_start import _heard, first_slots
from mindset.graft.calibration import ff_inputs
from mindset.graft.convert import build_student
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan
from mindset.graft.sources import load_teacher


def _windows(model: torch.nn.Module, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, int(model.config.vocab_size), (6, 40), generator=generator)  # type: ignore[union-attr]


@pytest.mark.parametrize("numbers", [1 << 24, 100])
def test_slots_begin_as_the_neurons_that_say_most(
    numbers: int, converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_start, "_NUMBERS", numbers)
    model = load_teacher(str(converted)).model
    windows = _windows(model)
    with torch.no_grad():
        _, loudest = _heard(model, windows, 10)
    said: dict[int, torch.Tensor] = {}
    for layer, bank in banks(model).items():  # the definition, in one piece

        def take(x: torch.Tensor, layer: int = layer) -> None:
            shard = banks(model)[layer].shards["base"]
            said[layer] = (
                (shard.weights(x.reshape(-1, x.shape[-1])).abs() * shard.value.norm(dim=-1)).square().sum(0)
            )

        with torch.no_grad(), ff_inputs(model, {layer: take}):
            model(windows, use_cache=False)
        assert set(loudest[layer].tolist()) == set(said[layer].topk(10).indices.tolist())
        slots, shard = first_slots(model, windows, 10)[layer], bank.shards["base"]
        torch.testing.assert_close(slots.key, shard.key[loudest[layer]])
        rows = torch.nn.functional.cosine_similarity(slots.modulator, shard.modulator[loudest[layer]])
        torch.testing.assert_close(rows, torch.ones(10))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("count", [5, 40])
def test_they_weigh_about_one_and_say_nothing(family: str, count: int) -> None:
    """Where a family has no gates, or more slots are wanted than there are neurons, the others are random."""
    model = build_student(tiny_model(family), ConversionPlan()).eval()
    windows = tokens(6, 30)
    slots = first_slots(model, windows, count, seed=3)
    again, other = first_slots(model, windows, count, seed=3), first_slots(model, windows, count, seed=4)
    weights: dict[int, torch.Tensor] = {}

    def weigh(layer: int, x: torch.Tensor) -> None:
        weights[layer] = slots[layer].weights(x.reshape(-1, x.shape[-1])).square().mean(0).sqrt()

    with torch.no_grad():
        with ff_inputs(model, {layer: lambda x, layer=layer: weigh(layer, x) for layer in slots}):
            model(windows[:4], use_cache=False)
        before = model(windows).logits
        for layer, bank in banks(model).items():
            torch.testing.assert_close(weights[layer], torch.full((count,), 0.6), rtol=1e-3, atol=1e-3)
            assert torch.equal(slots[layer].key, again[layer].key)
            assert torch.equal(slots[layer].key, other[layer].key) == (family == "llama" and count == 5)
            bank.mount("x", slots[layer])
        assert torch.equal(model(windows).logits, before)
