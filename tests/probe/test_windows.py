from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from mindset.errors import DataError, UsageError
from mindset.probe.windows import Windows


def numbered(n: int, length: int) -> Windows:
    """Token i has id i and i bytes."""
    return Windows(np.arange(n), np.arange(n), length)


@given(n=st.integers(2, 40), length=st.integers(2, 9), batch_tokens=st.integers(1, 50))
def test_every_token_but_the_first_of_each_window_is_scored_once(
    n: int, length: int, batch_tokens: int
) -> None:
    windows = numbered(n, length)
    scored = torch.cat([batch.targets for batch in windows.batches(batch_tokens)]).tolist()
    assert scored == [i for i in range(n) if i % length]
    assert windows.n_tokens.sum() == len(scored)
    assert windows.n_bytes.sum() == sum(scored)


@given(n=st.integers(2, 40), length=st.integers(2, 9))
def test_bytes_scored_first_and_dropped_are_all_bytes(n: int, length: int) -> None:
    windows = numbered(n, length)
    firsts = sum(range(0, n, length))  # a single token left over is the first of a window that is not there
    assert windows.n_bytes.sum() + firsts == windows.token_bytes.sum()
    assert len(windows.n_bytes) == len(windows.n_tokens) == len(windows)


def test_a_last_window_of_two_tokens_is_kept_and_one_token_is_dropped() -> None:
    assert numbered(10, 4).n_tokens.tolist() == [3, 3, 1]
    assert numbered(9, 4).n_tokens.tolist() == [3, 3]


def test_batches_are_padded_and_name_the_window_of_each_token() -> None:
    (batch,) = numbered(6, 4).batches()
    assert batch.input_ids.tolist() == [[0, 1, 2, 3], [4, 5, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.window_of.tolist() == [0, 0, 0, 1]
    assert batch.targets.tolist() == [1, 2, 3, 5]
    assert batch.input_ids[batch.predicting].tolist() == [0, 1, 2, 4]


def test_batches_hold_as_many_windows_as_fit_and_at_least_one() -> None:
    windows = numbered(20, 4)
    assert [(batch.first, len(batch.input_ids)) for batch in windows.batches(9)] == [(0, 2), (2, 2), (4, 1)]
    assert [len(batch.input_ids) for batch in windows.batches(1)] == [1] * 5


def test_a_text_is_cut_after_its_tokens(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    text = "Once upon a time there was an öde. " * 5
    windows = Windows.of(text, tokenizers["byte level"], length=8)
    assert windows.token_bytes.sum() == len(text.encode())
    assert tokenizers["byte level"].decode(windows.ids) == text


def test_first_keeps_whole_windows() -> None:
    assert numbered(10, 4).first(2).n_tokens.tolist() == [3, 3]
    assert len(numbered(10, 4).first(99)) == 3


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: numbered(10, 1), UsageError),
        (lambda: numbered(1, 4), DataError),
        (lambda: Windows(np.arange(3), np.arange(4)), Exception),
        (lambda: numbered(10, 4).first(0), UsageError),
    ],
)
def test_windows_that_score_nothing_are_refused(make: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        make()
