"""Which failures are worth another attempt, and after how long: full jitter, or what the endpoint asked for."""

from __future__ import annotations

import random

from mindset.errors import CallError
from mindset.llm.policy import Policy

__all__ = ["wait_before_next"]


def wait_before_next(error: CallError, made: int, policy: Policy) -> float | None:
    """Seconds until the next attempt after `made` of them; None: there will be none."""
    if not error.retry or made >= policy.attempts:
        return None
    if error.retry_after is not None:
        return error.retry_after if error.retry_after <= policy.longest_wait else None
    ceiling = min(policy.backoff * 2.0 ** (made - 1), policy.longest_wait)
    return random.uniform(0.0, ceiling)  # noqa: S311 - spreads clients over time; nothing secret
