"""Keys of texts that ask: which side prompts are on, and that storing them moves no border."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mindset.facts.asking_keys import asking_key
from mindset.facts.background import Background, RadiusKey
from mindset.facts.learn import _arrays
from mindset.facts.names import NAMES, namesakes, other_names

D = 10


@given(seed=st.integers(0, 99), far=st.floats(0.1, 5))
@settings(max_examples=60, deadline=None)
def test_prompts_are_inside_and_others_are_not(seed: int, far: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    shift = far * torch.nn.functional.normalize(
        torch.randn(D, generator=generator, dtype=torch.float64), dim=0
    )
    others = 0.1 * far * torch.randn(30, D, generator=generator, dtype=torch.float64)
    asking = shift + 0.1 * far * torch.randn(9, D, generator=generator, dtype=torch.float64)
    flat = Background(torch.zeros(D, dtype=torch.float64), torch.eye(D, dtype=torch.float64), others)
    key = asking_key(asking, others, flat)
    assert abs(float(key.margins(asking.mean(0, keepdim=True))) - 1) < 0.05
    assert float(key.margins(others.mean(0, keepdim=True))) < -0.3
    assert float(key.margins(asking[:1])) >= 0.099


def test_the_facts_own_prompt_is_inside_wherever_it_lies() -> None:
    others = torch.randn(30, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    asking = torch.cat([others.mean(0, keepdim=True), others[:8] + 5])
    flat = Background(torch.zeros(D, dtype=torch.float64), torch.eye(D, dtype=torch.float64), others)
    assert float(asking_key(asking, others, flat).margins(asking[:1])) >= 0.099


@given(seed=st.integers(0, 99), size=st.floats(1e-3, 1e3))
@settings(max_examples=60, deadline=None)
def test_what_is_stored_has_its_border_where_it_was(seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    direction, point = size * torch.randn(2, D, generator=generator, dtype=torch.float64)
    key = RadiusKey.through(direction, point, 0.25)
    stored = _arrays([key])
    back = torch.from_numpy(stored["key"].astype("f8") * stored["scale"])
    torch.testing.assert_close(back[0], key.key, rtol=1e-6, atol=1e-12)
    assert abs(float(key.margins(point[None])) - 0.25) < 1e-6 * (1 + size**2)


def test_other_names_are_others() -> None:
    assert "Norway" in other_names("Italy")
    assert "New York" not in other_names("New York")
    assert "the New York Times" not in other_names("New York")
    assert len(set(NAMES)) == len(NAMES)
    made = namesakes("Tehri Garhwal district")
    assert made
    assert all(name.endswith(" district") for name in made)
    assert namesakes("Italy") == []
    assert "New York" not in namesakes("New York")
