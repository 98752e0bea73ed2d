from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedModel
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from mindset.errors import DataError
from mindset.probe.bits import bits_per_byte, score
from mindset.probe.texts import SCORED
from mindset.probe.windows import Windows


def naive_nll(model: PreTrainedModel, windows: Windows) -> list[float]:
    """One window at a time, no padding, full logits."""
    result = []
    for start in range(0, len(windows.ids), windows.length):
        ids = torch.from_numpy(windows.ids[start : start + windows.length])
        with torch.no_grad():
            log_p = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
        result.append(-log_p.gather(1, ids[1:, None]).sum().item())
    return result


def test_scores_equal_one_window_at_a_time(
    make_model: Callable[..., PreTrainedModel], family: str, windows: Windows
) -> None:
    model = make_model(family, dtype=torch.float64)
    scores = score(model, windows)
    assert scores.nll == pytest.approx(naive_nll(model, windows), abs=1e-6)
    assert scores.bits_per_byte == pytest.approx(sum(scores.nll) / math.log(2) / windows.n_bytes.sum())
    assert scores.nats_per_token == pytest.approx(sum(scores.nll) / 66)
    assert scores.tokens == 66


@pytest.mark.parametrize("batch_tokens", [1, 33, 64])
def test_the_size_of_batches_does_not_matter(
    make_model: Callable[..., PreTrainedModel], windows: Windows, batch_tokens: int
) -> None:
    model = make_model("llama")
    assert score(model, windows, batch_tokens).nll == pytest.approx(score(model, windows).nll, abs=1e-4)


def test_dropout_is_off_while_scoring_and_the_mode_comes_back(
    make_model: Callable[..., PreTrainedModel], windows: Windows
) -> None:
    model = make_model("gpt2").train()
    assert np.array_equal(score(model, windows).nll, score(model, windows).nll)
    assert model.training


def test_progress_is_told_after_each_batch(
    make_model: Callable[..., PreTrainedModel], windows: Windows
) -> None:
    told: list[tuple[int, int]] = []
    score(make_model("llama"), windows, 32, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_bits_per_byte_is_a_ratio_of_sums() -> None:
    assert bits_per_byte(np.array([math.log(2), 0.0]), np.array([1, 3])) == pytest.approx(0.25)
    with pytest.raises(DataError, match="no scored byte"):
        bits_per_byte(np.array([1.0]), np.array([0]))


def test_the_interval_surrounds_the_figure(
    make_model: Callable[..., PreTrainedModel], windows: Windows
) -> None:
    scores = score(make_model("llama"), windows)
    interval = scores.interval(seed=5)
    assert interval.low < scores.bits_per_byte < interval.high
    assert interval.estimate == pytest.approx(scores.bits_per_byte)


def test_the_tinystories_teacher_scores_what_the_protocol_measured(shared: Path) -> None:
    folder = shared / "teachers" / "tinystories-656k"
    if not folder.is_dir():
        pytest.skip(f"no trained teacher: {folder} is missing")
    (text,) = (text for text in SCORED if text.name == "tinystories")
    windows = Windows.of(text.read(shared), AutoTokenizer.from_pretrained(folder), text.window)
    scores = score(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), windows)
    # Where the windows begin matters more than these digits: shifting them by 1 to 200 tokens gives 1.233 to 1.243.
    assert scores.bits_per_byte == pytest.approx(1.2378, abs=0.0005)
