from __future__ import annotations

import math

import numpy as np
import pytest

from mindset.errors import DataError, UsageError
from mindset.probe.bootstrap import bits_per_byte_interval, gap_interval


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_the_interval_equals_drawing_windows_one_by_one(rng: np.random.Generator) -> None:
    nll, n_bytes = rng.normal(600, 60, 40), rng.integers(800, 1200, 40)
    draws = rng.integers(0, 40, (20_000, 40))
    naive = np.quantile(nll[draws].sum(1) / n_bytes[draws].sum(1), [0.025, 0.975]) / math.log(2)
    interval = bits_per_byte_interval(nll, n_bytes)
    assert (interval.low, interval.high) == pytest.approx(tuple(naive), abs=0.001)
    assert interval.estimate == pytest.approx(nll.sum() / n_bytes.sum() / math.log(2))
    assert interval.windows == 40


def test_95_of_100_intervals_hold_the_truth(rng: np.random.Generator) -> None:
    truth = 0.6 / math.log(2)
    held = 0
    for _ in range(200):
        n_bytes = rng.integers(800, 1200, 60)
        interval = bits_per_byte_interval(n_bytes * rng.normal(0.6, 0.05, 60), n_bytes, resamples=500)
        held += interval.low <= truth <= interval.high
    assert 180 <= held <= 199


def test_the_same_seed_gives_the_same_interval_and_another_another(rng: np.random.Generator) -> None:
    nll, n_bytes = rng.normal(600, 60, 30), rng.integers(800, 1200, 30)
    first = bits_per_byte_interval(nll, n_bytes, seed=4)
    assert first == bits_per_byte_interval(nll, n_bytes, seed=4)
    assert first.low != bits_per_byte_interval(nll, n_bytes, seed=5).low


def test_pairing_takes_the_difficulty_of_windows_out(rng: np.random.Generator) -> None:
    teacher, n_bytes = rng.normal(600, 120, 50), np.full(50, 1000)
    student = teacher + rng.normal(20, 1, 50)
    paired, alone = gap_interval(student, teacher, n_bytes), bits_per_byte_interval(student, n_bytes)
    assert paired.low <= 0.02 / math.log(2) <= paired.high
    assert paired.high - paired.low < 0.1 * (alone.high - alone.low)


def test_no_difference_is_an_interval_of_zero_width() -> None:
    nll = np.array([3.0, 5.0, 4.0])
    interval = gap_interval(nll, nll, np.array([2, 3, 4]))
    assert (interval.low, interval.estimate, interval.high) == (0, 0, 0)


def test_one_window_gives_no_width_and_says_that_it_is_one() -> None:
    interval = bits_per_byte_interval(np.array([3.0]), np.array([4]))
    assert interval.low == interval.high == pytest.approx(interval.estimate)
    assert interval.windows == 1


def test_windows_without_bytes_are_drawn_too() -> None:
    interval = bits_per_byte_interval(np.array([1.0, 0.5]), np.array([2, 0]))
    assert math.isfinite(interval.low)
    assert math.isfinite(interval.high)


def test_what_has_no_interval_is_refused() -> None:
    with pytest.raises(DataError, match="no scored byte"):
        bits_per_byte_interval(np.array([1.0]), np.array([0]))
    with pytest.raises(UsageError, match="level"):
        bits_per_byte_interval(np.array([1.0]), np.array([1]), level=1.0)
    with pytest.raises(UsageError, match="resamples=0"):
        bits_per_byte_interval(np.array([1.0]), np.array([1]), resamples=0)
