"""One call on its way into the log: begun, noted while the model speaks, finished before its last event goes out.

Knows the log and events, not clients. Database work runs in a thread. Invariant: what has begun is finished, also
where the task that waits for it is cancelled; a killed process loses at most the last quarter of a second.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mindset.calls.call import Asked, Outcome, Piece, Retry, Status, Usage
from mindset.calls.canonical import Json
from mindset.calls.log import CallLog
from mindset.errors import BudgetError, CallError, MindsetError
from mindset.llm.error_json import error_to_json
from mindset.llm.events import (
    Event,
    Finished,
    ReasoningPiece,
    Retried,
    Started,
    TextPiece,
    ToolCallPiece,
    collect,
    to_json,
)
from mindset.llm.messages import to_nodes

__all__ = ["Recorder"]

NOTE_EVERY = 0.25
"""Seconds that pieces may wait for their place in the log."""
Done = TypeVar("Done")


class Recorder:
    """What one call asked and got, and its row in the log."""

    def __init__(self, log: Callable[[], CallLog], asked: Asked, endpoint: str | None = None) -> None:
        """The log is opened when the call begins; `endpoint`: the address that is asked, if there is one."""
        self.asked, self.endpoint = asked, endpoint
        self.events: list[Event] = []
        """All that were handed out."""
        self.computing = 0.0
        """Seconds of computing here."""
        self.replayed_from: int | None = None
        self.over = asyncio.Event()
        """Set when the call is finished, however it ended."""
        self._open_log = log
        self._row: tuple[CallLog, int] | None = None
        self._start = time.monotonic()
        self._first: float | None = None
        self._fresh: list[tuple[float, Event]] = []
        self._retries: list[Retry] = []
        self._noting: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def call_id(self) -> int | None:
        """The row of the call, once it has begun."""
        return None if self._row is None else self._row[1]

    async def begin(self) -> None:
        """Write the row, before anything is asked."""

        def begin() -> tuple[CallLog, int]:
            log = self._open_log()
            return log, log.begin(self.asked)

        work = _in_thread(begin)
        stop = await _settled(work)
        self._row = work.result()
        if stop is not None:
            raise stop

    def add(self, event: Event) -> None:
        """Keep an event that is handed out now; it is in the log a quarter of a second later."""
        at = time.monotonic() - self._start
        self.events.append(event)
        self._fresh.append((at, event))
        if isinstance(event, Retried):
            self._retries.append(Retry(at, event.reason, event.wait))
        elif self._first is None and isinstance(event, TextPiece | ReasoningPiece | ToolCallPiece):
            self._first = at
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(NOTE_EVERY, self._note)

    async def finish(
        self,
        status: Status,
        *,
        error: BaseException | None = None,
        result: Json = None,
        usage: Usage | None = None,
        model: str | None = None,
        content_hash: str | None = None,
    ) -> None:
        """Write how it ended; what is not given is read from the events."""
        if self._row is None or self.over.is_set():
            return
        stop = await self._stop_noting()
        log, call = self._row
        last = self._fresh
        outcome = self._outcome(status, error, result, usage, model, content_hash)
        work = _in_thread(lambda: log.finish(call, outcome, _pieces(last)))
        stop = await _settled(work) or stop
        self.over.set()
        work.result()
        if stop is not None:
            raise stop

    async def end(self, last: Finished) -> None:
        """Write that the answer came to its end, of whatever kind."""
        if last.reason == "error":
            await self.finish("failed", error=CallError("the model broke off its answer, and said no more"))
        else:
            await self.finish("cancelled" if last.reason == "cancelled" else "ok")

    async def fail(self, error: BaseException) -> None:
        """Write that it ended with an error: refused by a budget, failed, or cancelled where it was left."""
        if isinstance(error, BudgetError):
            await self.finish("refused", error=error)
        elif isinstance(error, Exception):
            await self.finish("failed", error=error)
        else:
            await self.finish("cancelled")

    def _outcome(
        self,
        status: Status,
        error: BaseException | None,
        result: Json,
        usage: Usage | None,
        model: str | None,
        content_hash: str | None,
    ) -> Outcome:
        started = next((e for e in reversed(self.events) if isinstance(e, Started)), Started(""))
        ended = next((e for e in reversed(self.events) if isinstance(e, Finished)), None)
        answer = collect(self.events).message
        return Outcome(
            status,
            answer=to_nodes((answer,)) if answer.parts else (),
            result=result if error is None else error_to_json(error),
            usage=usage or (ended.usage if ended else Usage()),
            finish_reason=ended.reason if ended else None,
            error=None if error is None else _sentence(error),
            answered_by=model or started.model or None,
            content_hash=content_hash or started.content_hash,
            seconds=time.monotonic() - self._start,
            first_token=self._first,
            local_seconds=self.computing,
            retries=tuple(self._retries),
            replayed_from=self.replayed_from,
            endpoint=self.endpoint,
        )

    async def _stop_noting(self) -> asyncio.CancelledError | None:
        if self._timer is not None:
            self._timer.cancel()
        if self._noting is None:
            return None
        stop = await _settled(self._noting)
        self._noting.exception()  # seen: `finish` writes what it could not
        return stop

    def _note(self) -> None:
        self._timer = None
        if self._noting is not None and not self._noting.done():
            self._timer = asyncio.get_running_loop().call_later(NOTE_EVERY, self._note)
            return
        if self._noting is not None and self._noting.exception() is not None:
            return  # the database fails: the log has kept the pieces, and `finish` tries once more, and says so
        if self._row is None:
            return
        log, call = self._row
        noted = self._fresh
        self._fresh = []
        self._noting = _in_thread(lambda: log.note(call, _pieces(noted)))


def _pieces(events: Sequence[tuple[float, Event]]) -> list[Piece]:
    return [Piece(at, to_json(event)) for at, event in events]


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, MindsetError) else f"{type(error).__name__}: {text}"


def _in_thread(work: Callable[[], Done]) -> asyncio.Future[Done]:
    context = contextvars.copy_context()
    return asyncio.get_running_loop().run_in_executor(None, context.run, work)


async def _settled(work: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait until work is done, whatever happens to the waiting task; return what it was cancelled with."""
    stop: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            stop = error
    return stop
