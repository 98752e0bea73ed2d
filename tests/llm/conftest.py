"""A log of its own for every test, and ways to look into it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from mindset.calls.log import CallLog

MOST = 20.0
"""Seconds that a scenario may take on a busy machine."""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[CallLog]:
    """A log in an empty folder."""
    opened = CallLog.open(f"sqlite:///{tmp_path / 'calls.sqlite'}")
    yield opened
    opened.close()


@pytest.fixture
def go() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a scenario in an event loop of its own."""

    async def bounded(scenario: Coroutine[Any, Any, Any]) -> Any:
        async with asyncio.timeout(MOST):
            return await scenario

    return lambda scenario: asyncio.run(bounded(scenario))
