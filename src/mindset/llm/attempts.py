"""A request made until it is answered: allowed, granted by the budgets, in its turn, and again where that helps.

Does not know what is asked for: one attempt is an async iterator whose last item is the answer or `Finished`.
Invariant: once something was said there is no further attempt, so nobody hears the same words twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, cast

from mindset.calls.call import Usage
from mindset.errors import CallError
from mindset.llm.budget import Budget, Grant, Tariff
from mindset.llm.events import ReasoningPiece, Retried, Started, TextPiece, ToolCallPiece
from mindset.llm.limits import limiter_of
from mindset.llm.patience import Patience
from mindset.llm.policy import Policy
from mindset.llm.recorder import Recorder
from mindset.llm.requests_allowed import check_allowed
from mindset.llm.retries import wait_before_next

__all__ = ["Ask", "attempts"]


@dataclass(frozen=True)
class Ask:
    """What is about to be asked, and of whom."""

    model: str
    endpoint: str
    """Who shares a line asks the same endpoint."""
    policy: Policy
    budgets: tuple[Budget, ...]
    tariff: Tariff
    """What tokens cost there."""
    real: bool
    """False for scripts: the switch over all requests does not concern them."""
    remote: bool
    """False where answering is computing here."""
    prepare: Callable[[], Awaitable[None]]
    """Whatever must be there before the first request."""
    check: Callable[[], None]
    """Refuse what cannot be asked for."""
    expected: Callable[[], Awaitable[Usage]]
    """What the call may use at most, as far as that can be told."""
    make: Callable[[], AsyncIterator[Any]]
    """One attempt."""


async def attempts(ask: Ask, patience: Patience, recorder: Recorder) -> AsyncGenerator[Any, None]:
    """The events of the attempt that succeeds, a `Retried` for each that failed, and the answer last."""
    if ask.real:
        check_allowed(ask.model)
    heard, bill, last = _Heard(), _Bill(ask, patience), None
    try:
        for made in range(1, ask.policy.attempts + 1):
            try:
                await patience.wait(ask.prepare)
                ask.check()
                await bill.grant()
                async with aclosing(_attempt(ask, patience, recorder, bill.expected)) as items:
                    async for item in items:
                        heard.note(item)
                        if _is_last(item):
                            last = item
                        elif not (isinstance(item, Started) and heard.starts > 1):
                            yield item
                break
            except CallError as error:
                wait = None if heard.words else wait_before_next(error, made, ask.policy)
                if wait is None or wait >= patience.left:
                    raise
                again = Retried(" ".join(str(error).split()), wait)
            yield again
            await _sleep(patience, again.wait)
    finally:
        bill.settle(heard)
    yield last


class _Bill:
    """What a call may cost, asked for once, and what it did cost."""

    def __init__(self, ask: Ask, patience: Patience) -> None:
        self._ask, self._patience = ask, patience
        self._grant: Grant | None = None
        self.expected = Usage()

    async def grant(self) -> None:
        """Ask the budgets, before the first attempt."""
        if self._grant is not None:
            return
        if self._ask.budgets or self._ask.policy.limits.tokens_per_minute is not None:
            self.expected = await self._patience.wait(self._ask.expected)
        self._grant = Grant(self._ask.budgets, self._ask.tariff, self.expected)

    def settle(self, heard: _Heard) -> None:
        """Charge what was used."""
        if self._grant is not None:
            self._grant.settle(heard.usage(self.expected))


async def _sleep(patience: Patience, seconds: float) -> None:
    await patience.wait(lambda: asyncio.sleep(seconds))


async def _attempt(
    ask: Ask, patience: Patience, recorder: Recorder, expected: Usage
) -> AsyncGenerator[Any, None]:
    """The items of one attempt; the last one comes when the place in the line is free again."""
    limiter = limiter_of(ask.endpoint, ask.policy.limits)
    turn = limiter.turn(expected.prompt_tokens + expected.completion_tokens)
    async with AsyncExitStack() as stack:
        await patience.wait(lambda: stack.enter_async_context(turn))
        source = await stack.enter_async_context(aclosing(cast(AsyncGenerator[Any, None], ask.make())))
        at_most = ask.policy.first_event
        while True:
            begun = time.monotonic()
            try:
                item = await patience.wait(lambda: anext(source, None), at_most, "sign of life")
            finally:
                if not ask.remote:
                    recorder.computing += time.monotonic() - begun
            if item is None:
                raise CallError(f"{ask.model} broke off before its answer was finished", retry=True)
            if _is_last(item):
                break
            at_most = None
            yield item
    yield item


def _is_last(item: object) -> bool:
    return not isinstance(item, Started | TextPiece | ReasoningPiece | ToolCallPiece)


class _Heard:
    """What came so far, for the bill and for whether to try again."""

    def __init__(self) -> None:
        self.starts = 0
        self.words = False
        self._length = 0
        self._usage: Usage | None = None

    def note(self, item: object) -> None:
        if isinstance(item, Started):
            self.starts += 1
        elif isinstance(item, TextPiece | ReasoningPiece):
            self.words = True
            self._length += len(item.text.encode())
        elif isinstance(item, ToolCallPiece):
            self.words = True
            self._length += len((item.name + item.arguments).encode())
        else:
            self._usage = getattr(item, "usage", Usage())

    def usage(self, expected: Usage) -> Usage:
        """As told at the end; where it was cut, as far as can be guessed."""
        if self._usage is not None:
            return self._usage
        return Usage(expected.prompt_tokens, self._length // 4) if self.words else Usage()
