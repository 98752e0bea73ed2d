"""Where the synchronous command line meets asynchronous clients: one event loop, and Ctrl-C that stops what runs in it.

    with Edge() as edge:
        edge.run(work())        # Ctrl-C cancels it, and once it has cleaned up raises KeyboardInterrupt here

Does not know what runs. Invariant: work that is stopped gets the time to clean up; who is in a hurry presses Ctrl-C
again after a moment.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, TypeVar

__all__ = ["Edge"]

Result = TypeVar("Result")
HURRY = 2.0
"""Seconds after which a second Ctrl-C does not wait any longer."""


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
        task = self._runner.get_loop().create_task(work)
        pressed: list[float] = []

        def stop(_number: int, _frame: FrameType | None) -> None:
            if pressed and time.monotonic() - pressed[0] > HURRY:
                raise KeyboardInterrupt
            pressed.append(time.monotonic())
            if len(pressed) == 1:
                task.get_loop().call_soon_threadsafe(task.cancel)

        try:
            with _handling(stop):
                return self._runner.get_loop().run_until_complete(task)
        except asyncio.CancelledError:
            if pressed:
                raise KeyboardInterrupt from None
            raise


@contextmanager
def _handling(stop: Any) -> Iterator[None]:
    """Ctrl-C is ours; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
