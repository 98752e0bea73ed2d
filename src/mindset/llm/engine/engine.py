"""An engine: one model on one thread of its own, and any number of callers.

    engine = Engine(model, tokenizer)
    ticket = engine.submit(Job(ids, deliver, Options(max_tokens=20, seed=1)))
    ...
    engine.close()

Callers hand in jobs from any thread and are told pieces on the engine's; the model is touched by that thread alone, so
whoever wants something else of it (a pass of his own) asks `call`. A queue that is full refuses at once, and says when
to come again. Invariant: every job that was taken ends with `Finished` or an error.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mindset.errors import CallError, MindsetError, OverloadedError
from mindset.graft.decoding import checked_length, context_length, end_tokens
from mindset.llm.engine.batch import Batch, BatchSettings
from mindset.llm.engine.grammar import Grammars
from mindset.llm.engine.job import Job, Ticket
from mindset.llm.engine.pace import Pace
from mindset.llm.engine.reads import Reads
from mindset.llm.engine.row import Row

__all__ = ["Engine", "EngineState"]

T = TypeVar("T")
_Call = tuple[Future[Any], Callable[[], Any]]


@dataclass(frozen=True)
class EngineState:
    """What an engine is doing."""

    running: int
    """Texts that are read or continued."""
    waiting: int
    """Texts whose turn has not come."""
    finished: int
    """Texts that are over, since the engine began."""
    cached_bytes: int
    """RAM of kept caches."""


class Engine:
    """One model that continues many texts."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        settings: BatchSettings | None = None,
        queue: int = 64,
        memory: Path | None = None,
        threads: int = 0,
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """Start it.

        `queue`: texts that may wait beside those that run; `memory`: the folder of the model's banks; `threads`: of
        torch, 0 leaves the choice to it; `around`: a context in which the thread works, such as one that counts reads.
        """
        self.model, self.tokenizer = model, tokenizer
        self.ends, self.longest = end_tokens(model, tokenizer), context_length(model)
        self.vocabulary = _vocabulary(model)
        self.grammars = Grammars(tokenizer, self.vocabulary, self.ends)
        self.reads = Reads(model, memory)
        self._batch = Batch(model, self.grammars, settings, self.reads)
        self._places = self._batch.settings.rows + queue
        self._threads, self._around = threads, around
        self._jobs: deque[Row] = deque()
        self._calls: list[_Call] = []
        self._pace = Pace()
        self._changed = threading.Condition()
        self._closing = self._dropping = False
        self._open = self._finished = 0
        self._failure: MindsetError | None = None
        atexit.register(self.close)
        self._thread = threading.Thread(target=self._work, name="mindset engine", daemon=True)
        self._thread.start()

    # ---- any thread ---------------------------------------------------------------------------------------------
    @property
    def state(self) -> EngineState:
        """What it is doing."""
        running = min(self._batch.running, self._open)
        return EngineState(running, self._open - running, self._finished, self._batch.prefixes.nbytes)

    @property
    def is_open(self) -> bool:
        """Whether it takes jobs; not once it was closed, or has failed."""
        return not self._closing

    def submit(self, job: Job) -> Ticket:
        """Take a job, or refuse it at once."""
        checked_length(job.ids, self.longest)
        row = Row(job, self.tokenizer, self.ends, self.longest, self._ended)
        with self._changed:
            self._refuse_if_closed()
            if self._open >= self._places:
                raise OverloadedError(
                    f"the engine is full: {self._open} texts run or wait; come again later",
                    retry_after=self._pace.wait(self._open),
                )
            self._open += 1
            self._jobs.append(row)
            self._changed.notify()
        return job.ticket

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Do something with the model between two steps."""
        future: Future[T] = Future()
        with self._changed:
            self._refuse_if_closed()
            self._calls.append((future, work))
            self._changed.notify()
        return future

    def close(self, *, drain: float | None = 0.0) -> None:
        """Take no more jobs and end: those under way have `drain` seconds to finish, None: as long as they need."""
        atexit.unregister(self.close)
        self._say(dropping=drain == 0)
        if threading.current_thread() is self._thread:
            return
        self._thread.join(drain or None)
        if self._thread.is_alive():
            self._say(dropping=True)
            self._thread.join()
        if (failure := self._failure) is not None:
            self._failure = None
            raise failure

    def _say(self, *, dropping: bool) -> None:
        with self._changed:
            self._closing = True
            self._dropping = self._dropping or dropping
            self._changed.notify()

    def _refuse_if_closed(self) -> None:
        if self._closing:
            raise CallError("the engine is closed", retry=True)

    # ---- the engine's thread ------------------------------------------------------------------------------------
    def _work(self) -> None:
        if self._threads:
            torch.set_num_threads(self._threads)
        told: MindsetError = CallError("the engine was closed", retry=True)
        try:
            with self._around():
                self._loop()
        except Exception as error:  # nobody is to wait for ever
            told = error if isinstance(error, MindsetError) else CallError(f"the engine failed: {error}")
            self._failure = told
        self._end(told)
        atexit.unregister(self.close)

    def _loop(self) -> None:
        busy = False
        while True:
            with self._changed:
                while not (busy or self._jobs or self._calls or self._closing):
                    self._changed.wait()
                calls = self._accept()
                over = self._dropping or (self._closing and not (busy or calls or self._batch.waiting))
            for future, work in calls:
                _do(future, work)
            if over:
                return
            busy = self._batch.step()

    def _accept(self) -> list[_Call]:
        """What was asked since; the lock is held."""
        for row in self._jobs:
            self._batch.add(row)
        self._jobs.clear()
        calls, self._calls = self._calls, []
        return calls

    def _ended(self) -> None:
        """A text is over."""
        with self._changed:
            self._open -= 1
            self._finished += 1
        self._pace.ended()

    def _end(self, error: MindsetError) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._closing = True
            calls = self._accept()
        self._batch.fail(error)
        for future, _ in calls:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
        self._batch.close()


def _do(future: Future[Any], work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except Exception as error:  # it is whoever asked who is told
        future.set_exception(error)


def _vocabulary(model: PreTrainedModel) -> int:
    """How many logits a model gives."""
    head = model.get_output_embeddings()
    return int(head.weight.shape[0] if head is not None else model.config.get_text_config().vocab_size)
