from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from mindset.errors import CallError
from mindset.graft.decoding import draw
from mindset.llm.engine import choosing
from mindset.llm.engine.choosing import Chooser, logprobs
from mindset.llm.request import Options


def some_logits(size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 3


@given(
    seed=st.integers(0, 50),
    size=st.sampled_from([5, 40, 3000]),
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    top_k=st.sampled_from([None, 1, 3, 1500, 5000]),
    top_p=st.sampled_from([None, 0.05, 0.5, 0.95, 1.0]),
)
def test_cuts_are_those_of_transformers(
    seed: int, size: int, temperature: float, top_k: int | None, top_p: float | None
) -> None:
    logits = some_logits(size, seed)
    wanted = TemperatureLogitsWarper(temperature)(None, logits[None])
    if top_k is not None:
        wanted = TopKLogitsWarper(top_k)(None, wanted)
    if top_p is not None:
        wanted = TopPLogitsWarper(top_p)(None, wanted)
    chooser = Chooser(Options(temperature=temperature, top_k=top_k, top_p=top_p, seed=1))
    likely, tokens = chooser._cut(logits / temperature)
    found = torch.zeros(size).scatter(0, tokens, likely / likely.sum())
    torch.testing.assert_close(found, wanted[0].softmax(-1), rtol=1e-4, atol=1e-6)


def test_without_cuts_the_draws_are_those_of_the_plain_loop() -> None:
    for temperature in (0.0, 0.7):
        chooser = Chooser(Options(temperature=temperature, seed=5))
        generator = torch.Generator().manual_seed(5)
        for step in range(20):
            logits = some_logits(60, step)
            assert chooser.choose(logits) == draw(logits, temperature, generator)


def test_a_seed_names_the_draws_and_no_seed_is_a_new_one() -> None:
    def drawn(seed: int | None) -> list[int]:
        chooser = Chooser(Options(temperature=1.0, top_p=0.9, seed=seed))
        return [chooser.choose(some_logits(300, step)) for step in range(12)]

    assert drawn(3) == drawn(3) != drawn(4)
    assert drawn(None) != drawn(None)


@pytest.mark.parametrize("cut", [{}, {"top_k": 3}, {"top_p": 0.5}])
def test_only_what_is_allowed_is_drawn(cut: dict[str, float]) -> None:
    allowed = torch.zeros(50, dtype=torch.bool)
    allowed[[7, 9]] = True
    for temperature in (0.0, 1.0):
        chooser = Chooser(Options(temperature=temperature, seed=0, **cut))
        assert {chooser.choose(some_logits(50, step), allowed) for step in range(30)} <= {7, 9}


def test_what_is_not_a_number_is_an_error() -> None:
    for logits in (torch.full((9,), torch.nan), torch.tensor([0.0, torch.inf])):
        with pytest.raises(CallError, match="not numbers"):
            Chooser(Options(temperature=1.0)).choose(logits)
    with pytest.raises(CallError, match="not numbers"):
        Chooser(Options()).choose(torch.zeros(4), torch.zeros(4, dtype=torch.bool))


def test_a_flat_distribution_is_sorted_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "LIKELY", 4)
    likely, _ = Chooser(Options(temperature=1.0, top_p=0.6))._cut(torch.zeros(100))
    assert len(likely) == 60


def test_log_probabilities_are_the_model_s_own() -> None:
    logits = some_logits(30)
    own, best = logprobs(logits, 4, 3)
    wanted = logits.log_softmax(-1)
    assert own == float(wanted[4])
    assert [token for token, _ in best] == wanted.topk(3).indices.tolist()
    assert logprobs(logits, 4, 0)[1] == []
    assert len(logprobs(logits, 4, 99)[1]) == 30
