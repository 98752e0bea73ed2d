"""Balls around a subject: they hold it, and nothing of ordinary text."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mindset.facts.background import Background
from mindset.facts.subject_keys import subject_keys

D = 12


def background(seed: int, stretch: float = 1.0) -> Background:
    generator = torch.Generator().manual_seed(seed)
    seen = torch.randn(300, D, generator=generator, dtype=torch.float64) * torch.linspace(0.2, stretch, D)
    mean = seen.mean(dim=0)
    covariance = (seen - mean).T @ (seen - mean) / len(seen)
    return Background(mean, torch.linalg.inv(covariance + 0.1 * torch.eye(D, dtype=torch.float64)), seen)


def around(middle: Tensor, count: int, seed: int) -> Tensor:
    noise = torch.randn(count, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return middle + 0.05 * noise


@given(seed=st.integers(0, 50), count=st.integers(1, 9), far=st.floats(0, 9))
@settings(max_examples=60, deadline=None)
def test_no_ball_holds_ordinary_text(seed: int, count: int, far: float) -> None:
    ordinary = background(seed)
    middle = far * torch.randn(D, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    for key in subject_keys(around(middle, count, seed), ordinary):
        assert float(key.margins(ordinary.seen).max()) < 0


@pytest.mark.parametrize("seed", range(5))
def test_a_subject_far_from_everything_is_held_by_one_ball(seed: int) -> None:
    middle = 6 * torch.randn(D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    inputs = around(middle, 8, seed)
    (key,) = subject_keys(inputs, background(seed))
    assert (key.margins(inputs) > 0.5).all()


def test_a_subject_that_looks_different_somewhere_gets_a_second_ball() -> None:
    one, other = torch.zeros(D, dtype=torch.float64), torch.zeros(D, dtype=torch.float64)
    one[0], other[1] = 9.0, 9.0
    inputs = torch.cat([around(one, 5, 0), around(other, 2, 1)])
    keys = subject_keys(inputs, background(0))
    assert len(keys) == 2
    assert torch.stack([key.margins(inputs) for key in keys]).max(dim=0).values.min() > 0


def test_what_is_ordinary_text_itself_gets_none() -> None:
    ordinary = background(0)
    assert subject_keys(ordinary.seen[:3], ordinary) == []
