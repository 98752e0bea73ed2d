"""Where the synchronous command line meets asynchronous clients: one event loop, and Ctrl-C that stops what runs in it.

    with Edge() as edge:
        edge.run(work())        # Ctrl-C cancels it, and once it has cleaned up raises KeyboardInterrupt here

A terminal that is closed, or a polite kill, stops it in the same way and ends the process. Does not know what runs.
Invariant: work that is stopped gets the time to clean up; who is in a hurry presses Ctrl-C again after a moment.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, TypeVar

__all__ = ["Edge"]

Result = TypeVar("Result")
HURRY = 2.0
"""Seconds after which a second Ctrl-C does not wait any longer."""
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Edge:
    """A context manager over one event loop."""

    def __enter__(self) -> Edge:
        self._runner = asyncio.Runner()
        self._runner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._runner.__exit__(kind, error, where)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`."""
        loop = self._runner.get_loop()
        task = loop.create_task(work)
        stops: list[tuple[int, float]] = []

        def stop(number: int, _frame: FrameType | None) -> None:
            if stops and time.monotonic() - stops[0][1] > HURRY:
                raise KeyboardInterrupt
            stops.append((number, time.monotonic()))
            if len(stops) == 1:
                loop.call_soon_threadsafe(task.cancel)

        try:
            with _handling(stop):
                return loop.run_until_complete(task)
        except asyncio.CancelledError:
            if not stops:
                raise
            number, _ = stops[0]
            if number == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + number) from None  # as shells tell it


@contextmanager
def _handling(stop: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """The signals are ours while the block runs; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
