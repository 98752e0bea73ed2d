"""Texts that are computed from a cut on say what the whole texts say, in every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graft.tiny import CONFIGS, tiny_model

from mindset.errors import UsageError
from mindset.facts.cut_texts import Cut, CutTexts
from mindset.facts.seen_inputs import inputs_from_cuts
from mindset.graft.calibration import ff_inputs
from mindset.graft.families import layers_of


def cuts(seed: int = 0) -> list[Cut]:
    rng = np.random.default_rng(seed)
    lengths = (3, 9, 5, 12, 4)
    ats = (0, 4, 4, 11, 2)
    return [Cut(tuple(rng.integers(3, 40, n).tolist()), at) for n, at in zip(lengths, ats, strict=True)]


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_as_the_whole_texts(family: str) -> None:
    model = tiny_model(family).eval()
    texts = cuts()
    cut = CutTexts(model, texts)
    for rows in ([0, 1, 2, 3, 4], [3, 1], [2]):
        keep = min(len(texts[i].ids) - texts[i].at for i in rows)
        said = cut.logits(torch.tensor(rows), keep)
        for row, logits in zip(rows, said, strict=True):
            whole = model(torch.tensor([texts[row].ids])).logits[0, -keep:]
            torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_layers_below_the_start_are_run_once(family: str) -> None:
    model = tiny_model(family).eval()
    last = len(layers_of(model)) - 1
    cut = CutTexts(model, cuts(), start=last)
    for rows in ([0, 1, 2, 3, 4], [3, 1]):
        with torch.no_grad():
            said = cut.logits(torch.tensor(rows), 1)
        for row, logits in zip(rows, said, strict=True):
            whole = model(torch.tensor([cuts()[row].ids])).logits[0, -1:]
            torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-4)
    assert not any("forward" in vars(layer) for layer in layers_of(model))


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_inputs_are_those_of_the_whole_texts(family: str) -> None:
    model = tiny_model(family).eval()
    seen = inputs_from_cuts(model, cuts(), (0, 1))
    for cut, found in zip(cuts(), seen, strict=True):
        heard: dict[int, torch.Tensor] = {}
        with ff_inputs(
            model, {layer: lambda x, layer=layer, heard=heard: heard.update({layer: x}) for layer in (0, 1)}
        ):
            model(torch.tensor([cut.ids]))
        for layer in (0, 1):
            torch.testing.assert_close(found[layer], heard[layer][cut.at :], rtol=1e-4, atol=1e-4)


def test_gradients_flow_from_the_cut_on() -> None:
    model = tiny_model("llama").eval()
    cut = CutTexts(model, cuts())
    weight = model.get_output_embeddings().weight
    cut.logits(torch.arange(5), 1).sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def test_a_cut_lies_in_its_text() -> None:
    with pytest.raises(UsageError, match="before token 3 of 3"):
        Cut((1, 2, 3), 3)
