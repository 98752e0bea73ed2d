"""A recorded run that answers in the models' place: equal requests get their recorded answers, in their order.

Which run that is says, innermost first: `with replaying(run)`, or `MINDSET_REPLAY` in the environment. No model and
no endpoint is touched. Invariant: events come byte for byte as they were handed out when they were recorded; what
failed or was cancelled then does so again.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from mindset.calls.call import Asked
from mindset.calls.difference import difference
from mindset.calls.log import CallLog
from mindset.calls.recorded import Recorded
from mindset.calls.run_models import run_models
from mindset.calls.runs import replayed
from mindset.errors import CallError, NotRecordedError
from mindset.llm.error_json import error_from_json
from mindset.llm.events import Finished, from_json
from mindset.llm.recorder import Recorder
from mindset.llm.results import result_from

__all__ = ["Player", "player_for", "replaying"]


class Player:
    """The answers of one run, handed out one after another. Shared by all who ask in one replay."""

    def __init__(self, run: str, log: Callable[[], CallLog], *, any_model: bool = False) -> None:
        """`run` by id or name; `any_model`: whichever model it asked for the same thing."""
        self.run = run
        self._log, self._any_model = log, any_model
        self._given: Counter[str] = Counter()
        self._lock = threading.Lock()

    async def play(self, recorder: Recorder) -> AsyncGenerator[Any, None]:
        """What the log has for the call that `recorder` records: its events, or its result as the last item."""
        asked = recorder.asked
        with self._lock:
            nth = self._given[asked.key]
            self._given[asked.key] += 1
        recorded = await asyncio.to_thread(self._find, asked, nth)
        recorder.replayed_from = recorded.call
        last = None
        for piece in recorded.pieces:
            last = from_json(piece.event)
            yield last
        if isinstance(last, Finished):
            return
        _raise_again(recorded)
        if asked.verb != "complete":
            yield result_from(asked.verb, recorded.outcome.result)
        else:
            yield Finished("cancelled")

    async def knows(self, asked: Asked) -> bool:
        """Whether the run has an answer to this that was not handed out yet."""
        with self._lock:
            nth = self._given[asked.key]
        return await asyncio.to_thread(self._recorded, self._log(), asked, nth) is not None

    def _find(self, asked: Asked, nth: int) -> Recorded:
        log = self._log()
        found = self._recorded(log, asked, nth)
        if found is None:
            raise self._missing(log, asked, nth)
        return found

    def _recorded(self, log: CallLog, asked: Asked, nth: int) -> Recorded | None:
        models = run_models(log, self.run) if self._any_model else (asked.model,)
        answers = (log.recorded(self.run, replace(asked, model=model), nth) for model in models)
        return next((answer for answer in answers if answer is not None), None)

    def _missing(self, log: CallLog, asked: Asked, nth: int) -> NotRecordedError:
        near = log.nearest(self.run, asked)
        if near is None:
            return NotRecordedError(f"run {self.run} has no calls to replay")
        if self._any_model:
            asked = replace(asked, model=near.asked.model)
        differs = difference(near.asked, log.redactor.asked(asked))
        if not differs:
            return NotRecordedError(
                f"run {self.run} asked {asked.model} this {nth} times, and now it is asked once more "
                f"(call {near.call} is the first of them)"
            )
        return NotRecordedError(
            f"run {self.run} never asked {asked.model} this; the nearest is call {near.call}:\n{differs}"
        )


def _raise_again(recorded: Recorded) -> None:
    outcome = recorded.outcome
    if outcome.status in ("failed", "refused"):
        if isinstance(outcome.result, dict) and "raised" in outcome.result:
            raise error_from_json(outcome.result)
        raise CallError(outcome.error or f"call {recorded.call} failed when it was recorded")
    if outcome.status == "cancelled" and recorded.asked.verb != "complete":
        raise asyncio.CancelledError(f"call {recorded.call} was cancelled when it was recorded")


_player: ContextVar[Player | None] = ContextVar("mindset_replaying", default=None)
_of_environment: dict[str, Player] = {}
_lock = threading.Lock()


@contextmanager
def replaying(run: str, log: CallLog | None = None) -> Iterator[Player]:
    """Let a recorded run answer every call inside the block, from its beginning; `log` None: the user's own."""
    player = Player(run, CallLog.open if log is None else lambda: log)
    token = _player.set(player)
    try:
        yield player
    finally:
        _player.reset(token)


def player_for(log: Callable[[], CallLog]) -> Player | None:
    """Who answers in the models' place just now; None: the models answer. `log` is read where a variable says so."""
    player = _player.get()
    if player is not None:
        return player
    run = replayed()
    if run is None:
        return None
    with _lock:
        if run not in _of_environment:
            _of_environment[run] = Player(run, log)
        return _of_environment[run]
