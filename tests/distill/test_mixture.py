from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from mindset.distill.corpus import Corpus
from mindset.distill.data import open_mixture
from mindset.distill.mixture import DataItem, Mixture
from mindset.distill.self_samples import SampleSettings
from mindset.distill.token_stream import TokenStream
from mindset.errors import RunMismatchError, UsageError


def stream(first: int, n_tokens: int = 60, seq_len: int = 4) -> TokenStream:
    tokens = np.arange(first, first + n_tokens, dtype=np.uint32)
    return TokenStream(Corpus(f"from {first}", tokens, 1, n_tokens, f"digest {first}"), seq_len, seed=1)


def mixture(weights: list[float], batch: int = 4) -> Mixture:
    return Mixture([(stream(1000 * i), weight) for i, weight in enumerate(weights)], batch=batch)


@pytest.mark.parametrize(
    ("given_", "source", "weight"),
    [
        ("self", "self", 1.0),
        ("self=2", "self", 2.0),
        ("stdlib=0.5", "stdlib", 0.5),
        ("a/b.txt", "a/b.txt", 1.0),
        ("a=b.txt=3", "a=b.txt", 3.0),
        ("book.txt:60000-=1e-1", "book.txt:60000-", 0.1),
    ],
)
def test_an_item_is_a_name_and_a_weight(given_: str, source: str, weight: float) -> None:
    assert DataItem.parse(given_) == DataItem(source, weight)


def test_a_file_whose_name_ends_like_a_weight_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "x=2").write_text("text", encoding="utf-8")
    assert DataItem.parse(str(tmp_path / "x=2")) == DataItem(str(tmp_path / "x=2"))


@pytest.mark.parametrize(
    "given_", ["", "=1", "self=", "self=much", "self=0", "self=-1", "self=nan", "self=inf"]
)
def test_what_is_no_item_is_wrong_usage(given_: str) -> None:
    with pytest.raises(UsageError, match="data"):
        DataItem.parse(given_)


@given(
    weights=st.lists(st.floats(0.1, 10), min_size=1, max_size=4),
    batch=st.integers(1, 9),
    n_batches=st.integers(1, 20),
)
def test_shares_hold_over_time_to_less_than_a_row_a_source(
    weights: list[float], batch: int, n_batches: int
) -> None:
    mix = mixture(weights, batch)
    rows = torch.cat([mix.next_batch() for _ in range(n_batches)])
    given_rows = np.bincount(rows[:, 0].numpy() // 1000, minlength=len(weights))
    wanted = np.array(weights) / sum(weights) * len(rows)
    assert np.abs(given_rows - wanted).max() <= len(weights)
    assert mix.tokens_seen == rows.numel() == sum(use.tokens_seen for use in mix.describe())


@settings(max_examples=50)
@given(
    weights=st.lists(st.floats(0.1, 10), min_size=1, max_size=3),
    batch=st.integers(1, 7),
    before=st.integers(0, 15),
    after=st.integers(1, 15),
)
def test_interrupted_anywhere_the_same_batches_follow(
    weights: list[float], batch: int, before: int, after: int
) -> None:
    whole = mixture(weights, batch)
    expected = [whole.next_batch() for _ in range(before + after)][before:]
    cut = mixture(weights, batch)
    for _ in range(before):
        cut.next_batch()
    state = json.loads(json.dumps(cut.state_dict()))
    resumed = mixture(weights, batch)
    resumed.load_state_dict(state)
    for batch_expected in expected:
        assert torch.equal(resumed.next_batch(), batch_expected)
    assert resumed.describe() == whole.describe()


def test_taking_a_state_changes_nothing() -> None:
    one, other = mixture([1, 2]), mixture([1, 2])
    for _ in range(5):
        one.state_dict()
        one.describe()
        assert torch.equal(one.next_batch(), other.next_batch())


def test_a_state_of_other_data_weights_or_batch_is_refused() -> None:
    state = mixture([1, 1]).state_dict()
    for other in (mixture([1, 2]), mixture([1]), mixture([1, 1], batch=8)):
        with pytest.raises(RunMismatchError, match="resume with the data"):
            other.load_state_dict(state)
    with pytest.raises(RunMismatchError):
        mixture([1]).load_state_dict({})


def test_it_says_how_often_each_source_was_gone_through() -> None:
    mix = Mixture([(stream(0, 40), 3), (stream(1000, 400), 1)], batch=4)
    for _ in range(5):
        mix.next_batch()
    small, large = mix.describe()
    assert (small.weight, small.tokens_seen, small.distinct_tokens, small.passes) == (0.75, 60, 40, 1.5)
    assert (large.tokens_seen, large.n_tokens, large.passes) == (20, 400, 0.05)


def test_nothing_the_same_twice_and_unequal_windows_are_wrong_usage() -> None:
    with pytest.raises(UsageError, match="nothing to train on"):
        Mixture([], batch=1)
    with pytest.raises(UsageError, match="more than once"):
        Mixture([(stream(0), 1), (stream(0), 1)], batch=1)
    with pytest.raises(UsageError, match="same length"):
        Mixture([(stream(0), 1), (stream(1, seq_len=5), 1)], batch=1)
    with pytest.raises(UsageError, match="batch 0"):
        Mixture([(stream(0), 1)], batch=0)


def opened(
    tmp_path: Path, items: list[str], tokenizer: PreTrainedTokenizerFast, teacher: LlamaForCausalLM | None
) -> Mixture:
    return open_mixture(
        [DataItem.parse(item) for item in items],
        tokenizer,
        batch=4,
        seq_len=8,
        seed=0,
        cache=tmp_path / "cache",
        teacher=teacher,
        samples=SampleSettings(length=16, batch=3),
    )


def test_samples_and_text_mix_and_resume(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, teacher: LlamaForCausalLM, sentences: list[str]
) -> None:
    book = tmp_path / "book.txt"
    book.write_text("\n".join(sentences), encoding="utf-8")
    items = ["self=1", f"{book}:10-=1"]
    whole = opened(tmp_path, items, tokenizer, teacher)
    batches = [whole.next_batch() for _ in range(8)]
    assert all(batch.shape == (4, 8) and batch.dtype == torch.int64 for batch in batches)
    assert [use.name for use in whole.describe()] == ["self", f"{book}:10-"]
    assert [use.tokens_seen for use in whole.describe()] == [128, 128]
    cut = opened(tmp_path / "elsewhere", items, tokenizer, teacher)
    for _ in range(3):
        cut.next_batch()
    resumed = opened(tmp_path / "third", items, tokenizer, teacher)
    resumed.load_state_dict(cut.state_dict())
    for batch in batches[3:]:
        assert torch.equal(resumed.next_batch(), batch)


def test_self_needs_a_teacher(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UsageError, match="needs the teacher"):
        opened(tmp_path, ["self"], tokenizer, None)


def test_a_text_that_was_moved_is_still_the_same_data(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, sentences: list[str]
) -> None:
    book = tmp_path / "book.txt"
    book.write_text("\n".join(sentences), encoding="utf-8")
    first = opened(tmp_path, [str(book)], tokenizer, None)
    first.next_batch()
    moved = opened(tmp_path, [str(book.rename(tmp_path / "moved.txt"))], tokenizer, None)
    moved.load_state_dict(first.state_dict())
    assert torch.equal(moved.next_batch(), first.next_batch())
