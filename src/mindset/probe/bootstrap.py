"""How sure a figure in bits per byte is: a bootstrap over windows.

Windows are drawn with replacement; a figure is a ratio of sums (nats of the drawn windows over their bytes),
not a mean of ratios. The interval of a gap is paired: student and teacher are scored on the same draw, so
what makes a window hard for both cancels out.

Does not know models. Invariant: the same arrays and seed give the same interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mindset.errors import DataError, UsageError

__all__ = ["Interval", "bits_per_byte_interval", "gap_interval"]

AT_ONCE = 1000


@dataclass(frozen=True)
class Interval:
    """A percentile interval around an estimate."""

    estimate: float
    """The figure over all windows, in bits per byte."""
    low: float
    """Lower end; equal to the estimate where there is a single window, which says nothing."""
    high: float
    """Upper end; likewise."""
    windows: int
    """Windows that were resampled: below about 20 the ends are rough."""
    level: float = 0.95
    """Share of the resampled figures that lie within."""
    resamples: int = 10_000
    """How often the windows were drawn."""
    seed: int = 0
    """Seed of the draws."""


def bits_per_byte_interval(
    nll: Float[np.ndarray, " windows"],
    n_bytes: Int[np.ndarray, " windows"],
    *,
    seed: int = 0,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Interval:
    """Interval of one model's bits per byte from the nats and bytes of each window."""
    _check(nll, n_bytes, resamples, level)
    windows = len(nll)
    rng = np.random.default_rng(seed)
    figures = []
    for done in range(0, resamples, AT_ONCE):
        drawn = rng.multinomial(windows, np.full(windows, 1 / windows), size=min(AT_ONCE, resamples - done))
        # A draw may hold nothing but windows without bytes; it has no figure.
        total_bytes = drawn @ n_bytes
        figures.append((drawn @ nll)[total_bytes > 0] / total_bytes[total_bytes > 0])
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(figures), [tail, 1 - tail]) / math.log(2)
    estimate = float(nll.sum() / n_bytes.sum() / math.log(2))
    return Interval(estimate, float(low), float(high), windows, level, resamples, seed)


def gap_interval(
    student_nll: Float[np.ndarray, " windows"],
    teacher_nll: Float[np.ndarray, " windows"],
    n_bytes: Int[np.ndarray, " windows"],
    *,
    seed: int = 0,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Interval:
    """Paired interval of student minus teacher in bits per byte, both scored on the same windows."""
    if student_nll.shape != teacher_nll.shape:
        raise UsageError(
            f"{len(student_nll)} student windows cannot be paired with {len(teacher_nll)} teacher windows; "
            "score both on the same windows."
        )
    # Both sums share their bytes, so the difference of the ratios is the ratio of the differences.
    return bits_per_byte_interval(
        student_nll - teacher_nll, n_bytes, seed=seed, resamples=resamples, level=level
    )


def _check(
    nll: Float[np.ndarray, " windows"], n_bytes: Int[np.ndarray, " windows"], resamples: int, level: float
) -> None:
    if nll.shape != n_bytes.shape:
        raise UsageError(f"{len(nll)} windows' nats do not go with {len(n_bytes)} windows' bytes.")
    if not n_bytes.sum() > 0:
        raise DataError(
            "The windows hold no scored byte, so bits per byte are undefined; give a longer text."
        )
    if resamples < 1 or not 0 < level < 1:
        raise UsageError(
            f"resamples={resamples}, level={level}: give at least 1 resample and a level between 0 and 1."
        )
