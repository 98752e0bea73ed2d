from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindset.distill import schedule
from mindset.distill.schedule import Clock, k_at, lr_at


@given(
    n_slots=st.integers(1, 5000),
    target=st.integers(1, 5000),
    anneal=st.floats(0, 1),
    points=st.lists(st.floats(0, 1), min_size=2, max_size=20),
)
def test_k_falls_from_all_to_the_target(
    n_slots: int, target: int, anneal: float, points: list[float]
) -> None:
    target = min(target, n_slots)
    ks = [k_at(progress, anneal, n_slots, target) for progress in sorted(points)]
    numbers = [k for k in ks if k is not None]
    assert len(numbers) == len(ks)
    assert numbers == sorted(numbers, reverse=True)
    assert all(target <= k <= n_slots for k in numbers)
    assert k_at(0.0, anneal, n_slots, target) == (n_slots if anneal else target)
    assert k_at(anneal, anneal, n_slots, target) == target
    assert k_at(1.0, anneal, n_slots, target) == target


def test_k_falls_geometrically() -> None:
    assert k_at(0.1, 0.2, 400, 4) == 40


def test_all_slots_stay_all() -> None:
    assert k_at(0.5, 1.0, 100, None) is None


@given(warmup=st.floats(0, 0.9))
def test_the_learning_rate_rises_to_its_peak_and_falls_to_the_floor(warmup: float) -> None:
    rates = [lr_at(step / 200, warmup) for step in range(201)]
    assert all(0.02 - 1e-12 <= rate <= 1 for rate in rates)
    assert lr_at(warmup, warmup) == pytest.approx(1)
    assert rates[-1] == pytest.approx(0.02)
    rising = [rate for step, rate in enumerate(rates) if step / 200 < warmup]
    falling = rates[len(rising) :]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)


class Time:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    moved = Time()
    monkeypatch.setattr(schedule.time, "monotonic", moved)
    return moved


def test_a_clock_of_steps_is_over_after_them(time: Time) -> None:
    clock = Clock(4, None)
    seen = []
    clock.start()
    while clock.progress < 1:
        seen.append(clock.progress)
        clock.done += 1
        time.now += 1e6
    assert seen == [0, 0.25, 0.5, 0.75]


def test_a_clock_of_seconds_counts_only_while_it_runs(time: Time) -> None:
    clock = Clock(None, 60)
    clock.start()
    time.now += 30
    assert clock.progress == 0.5
    clock.stop()
    time.now += 1000
    assert clock.progress == 0.5
    clock.stop()
    clock.start()
    time.now += 29
    assert clock.progress < 1
    time.now += 2
    assert clock.progress == 1.0


@given(done=st.integers(0, 10**9), spent=st.floats(0, 1e9))
def test_a_restored_clock_goes_on_exactly_where_it_was(done: int, spent: float) -> None:
    clock = Clock(None, 1e9, done=done, spent=spent)
    other = Clock(None, 1e9)
    other.restore(clock.state())
    assert other == clock


def test_the_state_of_a_running_clock_holds_the_time_so_far(time: Time) -> None:
    clock = Clock(None, 100, spent=5)
    clock.start()
    time.now += 7
    assert clock.state() == {"done": 0, "spent": 12}
