from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindset.distill.corpus import Corpus
from mindset.distill.token_stream import TokenStream
from mindset.errors import DataError, RunMismatchError, UsageError


def corpus(n_tokens: int, name: str = "counted") -> Corpus:
    return Corpus(name, np.arange(n_tokens, dtype=np.uint32), 1, n_tokens, f"digest of {name}")


@given(n_tokens=st.integers(8, 80), seq_len=st.integers(2, 8), seed=st.integers(0, 5))
def test_an_epoch_gives_no_token_twice_and_leaves_out_less_than_a_window(
    n_tokens: int, seq_len: int, seed: int
) -> None:
    stream = TokenStream(corpus(n_tokens), seq_len, seed=seed)
    for _ in range(3):
        rows = stream.take(stream.n_windows)
        assert len(np.unique(rows)) == rows.size > n_tokens - seq_len
        np.testing.assert_array_equal(
            (rows - rows[:, :1]) % n_tokens, np.tile(np.arange(seq_len), (len(rows), 1))
        )


@given(before=st.integers(0, 30), after=st.integers(0, 30))
def test_a_stream_goes_on_where_its_state_was_taken(before: int, after: int) -> None:
    stream = TokenStream(corpus(50), 5, seed=3)
    stream.take(before)
    state = stream.state()
    expected = stream.take(after)
    resumed = TokenStream(corpus(50), 5, seed=3)
    resumed.restore(state)
    np.testing.assert_array_equal(resumed.take(after), expected)
    assert resumed.state() == stream.state()
    assert resumed.tokens_seen == (before + after) * 5


def test_epochs_and_seeds_differ_in_order_and_in_where_they_cut() -> None:
    stream = TokenStream(corpus(1000), 10, seed=0)
    first, second = stream.take(100), stream.take(100)
    assert not np.array_equal(first, second)
    assert set(first[:, 0] % 10) != set(second[:, 0] % 10)
    assert not np.array_equal(first, TokenStream(corpus(1000), 10, seed=1).take(100))
    np.testing.assert_array_equal(first, TokenStream(corpus(1000), 10, seed=0).take(100))


def test_it_says_how_often_the_text_was_repeated() -> None:
    stream = TokenStream(corpus(43), 4, seed=0)
    stream.take(5)
    assert (stream.n_tokens, stream.tokens_seen, stream.distinct_tokens, stream.passes) == (43, 20, 20, 0.5)
    stream.take(10)
    assert (stream.tokens_seen, stream.distinct_tokens, stream.passes) == (60, 43, 1.5)


def test_too_little_text_says_how_much_is_needed() -> None:
    with pytest.raises(DataError, match=r"7 tokens, fewer than one window of 8"):
        TokenStream(corpus(7), 8, seed=0)
    with pytest.raises(UsageError):
        TokenStream(corpus(7), 1, seed=0)


def test_a_state_of_a_longer_text_is_refused() -> None:
    with pytest.raises(RunMismatchError):
        TokenStream(corpus(40), 4, seed=0).restore({"epoch": 0, "position": 11})
