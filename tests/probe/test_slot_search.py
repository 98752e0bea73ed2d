"""Slots by what they promote and by what fires: against the naive formula."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mindset.errors import UsageError
from mindset.graft.convert import convert
from mindset.graft.influence import residual_values
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan
from mindset.graft.sources import load_teacher
from mindset.probe.slot_search import firing, promoting
from mindset.probe.unembedding import direct_logits, logit_gradient
from mindset.probe.why import why


@pytest.fixture
def folder(speaker_folder: Path, tmp_path: Path) -> Path:
    convert(str(speaker_folder), tmp_path / "m", ConversionPlan(k=6))
    return tmp_path / "m"


def test_a_gradient_is_the_direct_logit_of_every_direction(folder: Path) -> None:
    model = load_teacher(str(folder), dtype=torch.float64).model
    width = int(model.config.hidden_size)
    state = torch.randn(width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    directions = torch.eye(width, dtype=torch.float64)
    naive = direct_logits(model, state, directions)[:, 5]
    torch.testing.assert_close(logit_gradient(model, state, 5), naive)


def test_the_slots_that_promote_most_are_those_of_all(folder: Path) -> None:
    found = promoting(folder, "time", 7)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert len({one.slot for one in found}) == 7
    loaded = load_teacher(str(folder))
    (first, *_) = found
    assert first.score == max(one.score for one in promoting(folder, "time", 100))
    assert {one.layer for one in promoting(folder, "time", 5, layer=1)} == {1}
    n_slots = sum(residual_values(bank).shape[1] for bank in banks(loaded.model).values())
    assert len(promoting(folder, "time", 100_000)) == n_slots


def test_what_fires_is_what_why_tells(folder: Path) -> None:
    told = why(folder, "Once upon a time", top=5)
    found = firing(folder, "Once upon a time", 5)
    assert [(one.slot, one.score) for one in found] == [(one.slot, one.influence) for one in told.slots]
    assert {one.layer for one in firing(folder, "Once upon a time", 5, layer=0)} == {0}


def test_nothing_to_promote(folder: Path) -> None:
    with pytest.raises(UsageError, match="give a text"):
        promoting(folder, "  ")
