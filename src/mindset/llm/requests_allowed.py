"""A switch over the whole process that lets no request reach a real model: for tests and for dry runs.

`MINDSET_ALLOW_REQUESTS=0` in the environment, or `with forbid_requests():`. Scripted answers and replays go on. It
holds in every thread, so nothing slips past it by running elsewhere.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mindset.errors import BudgetError, UsageError

__all__ = ["VARIABLE", "check_allowed", "forbid_requests", "requests_allowed"]

VARIABLE = "MINDSET_ALLOW_REQUESTS"
_WORDS = {"": True, "1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class _Forbidding:
    """How many blocks forbid requests just now."""

    count = 0
    lock = threading.Lock()


@contextmanager
def forbid_requests() -> Iterator[None]:
    """Let no request through to a real model while the block runs."""
    with _Forbidding.lock:
        _Forbidding.count += 1
    try:
        yield
    finally:
        with _Forbidding.lock:
            _Forbidding.count -= 1


def requests_allowed() -> bool:
    """Whether real models may be asked."""
    try:
        check_allowed("")
    except BudgetError:
        return False
    return True


def check_allowed(model: str) -> None:
    """Refuse a request to a real model where the switch is off."""
    if _Forbidding.count:
        raise BudgetError(
            f"{model} was not asked: forbid_requests() is in force; only scripts and replays answer"
        )
    word = os.environ.get(VARIABLE, "").strip().lower()
    if word not in _WORDS:
        raise UsageError(f"{VARIABLE}={word!r} is neither yes nor no: set it to 0 or to 1")
    if not _WORDS[word]:
        raise BudgetError(f"{model} was not asked: {VARIABLE}={word} lets only scripts and replays answer")
