"""One turn of a dialog: a question under way to its answer, through as many tools as the model wants to run.

    turn = dialog.say("Who?")
    async with turn:
        async for news in turn: ...         # events of the model, and results of tools
    while turn.waiting:                     # tools that may run only if somebody says so
        turn.decide({wish.id: True for wish in turn.waiting})
        async with turn: ...                # goes on

Left early, by `break`, a cancelled task or an error, the part of the answer that had come belongs to the dialog; where
nothing had come the dialog is as it was, and remembers the question. Does not know a terminal. Invariant: in the dialog
every tool call that a model made is followed by its result.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from mindset.calls.tree import Node
from mindset.errors import CallError, UnsupportedRequestError, UsageError
from mindset.llm.context import fitting, weight
from mindset.llm.events import Answer, Event
from mindset.llm.messages import Message, ToolCall, ToolResult, tool_result
from mindset.llm.parents import children_of
from mindset.llm.request import Request
from mindset.llm.stream import Stream
from mindset.llm.tool_loop import NOT_ALLOWED

if TYPE_CHECKING:
    from mindset.llm.dialog import Dialog

__all__ = ["Turn"]

ROUNDS = 10
"""How often the model is asked at most before a person is heard again."""
STOPPED = "stopped by the person before it was done"
TOO_MANY = "not run: too many tools in a row; answer with what you have"
_TOO_LONG = re.compile(
    r"context|too (long|many tokens)|maximum .*(length|tokens)|tokens, but|shorten it", re.IGNORECASE
)
"""What endpoints say of a dialog that does not fit; there is no code that all share."""


class Turn:
    """A question, and the answer as it comes."""

    def __init__(self, dialog: Dialog, question: Message, place: Sequence[Node] | None = None) -> None:
        """`place`: where the dialog is to be if nothing comes, where that is elsewhere."""
        self.question = question
        self.answer: Answer | None = None
        """The last part of it, as far as it has come, once the turn is over; None where nothing came."""
        self.left_out = 0
        """Exchanges that were not sent, since not all fitted."""
        self.waiting: tuple[ToolCall, ...] = ()
        """Tools that wait for somebody's word."""
        self.calls: list[int] = []
        """Ids of all calls of this turn."""
        self._dialog, self._place = dialog, place
        self._said: list[Message] = []
        self._wishes: tuple[ToolCall, ...] = ()
        """Tools that the last answer wants to run."""
        self._allowed: dict[str, bool] = {}
        self._results: dict[str, ToolResult] = {}
        self._rounds = 0
        self._stream: Stream | None = None
        self._source: AsyncGenerator[Event | ToolResult, None] | None = None

    # ---- for who shows it ---------------------------------------------------------------------------------------
    async def __aenter__(self) -> Turn:
        return self

    def __aiter__(self) -> AsyncIterator[Event | ToolResult]:
        self._source = self._news()
        return self._source

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if self._source is not None:
                await self._source.aclose()
            if self._stream is not None:
                await self._stream.aclose()
        finally:
            if error is not None or not self.waiting:
                self._settle()

    def decide(self, allowed: Mapping[str, bool]) -> None:
        """Whether each of the waiting tools may run, by the ids of their calls; the turn can then go on."""
        self._allowed.update({wish.id: allowed.get(wish.id, False) for wish in self.waiting})
        self.waiting = ()

    def leave(self) -> None:
        """Give up a turn that waits; what was said so far is kept."""
        self.waiting = ()
        self._settle()

    # ---- the rounds ---------------------------------------------------------------------------------------------
    async def _news(self) -> AsyncGenerator[Event | ToolResult, None]:
        if not self._wishes:
            async for event in self._ask():
                yield event
        while self._wishes and self._rounds < ROUNDS:
            self.waiting = self._unsure()
            if self.waiting:
                return
            async for result in self._run():
                yield result
            self._said += self._told()
            async for event in self._ask():
                yield event

    def _unsure(self) -> tuple[ToolCall, ...]:
        trusted = self._dialog.trusted
        if trusted is None:
            return ()
        return tuple(w for w in self._wishes if w.id not in self._allowed and w.name not in trusted)

    async def _run(self) -> AsyncIterator[ToolResult]:
        """Run what the last answer wants, all at the same time."""
        with children_of(self.calls[-1] if self.calls else None):
            running = [asyncio.create_task(self._result(wish)) for wish in self._wishes]
        try:
            for done in asyncio.as_completed(running):
                result = await done
                self._results[result.call_id] = result
                yield result
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _result(self, wish: ToolCall) -> ToolResult:
        if not self._allowed.get(wish.id, True):
            return ToolResult(wish.id, NOT_ALLOWED, wish.name, is_error=True)
        return await self._dialog.tools.run(wish)

    def _told(self, otherwise: str = STOPPED) -> list[Message]:
        """A result for each of the wishes, in their order."""
        wishes, self._wishes = self._wishes, ()
        missing = {wish.id: ToolResult(wish.id, otherwise, wish.name, is_error=True) for wish in wishes}
        return [tool_result(self._results.get(wish.id) or missing[wish.id]) for wish in wishes]

    async def _ask(self) -> AsyncIterator[Event]:
        """One answer of the model."""
        dialog = self._dialog
        messages = (*dialog.messages, self.question, *self._said)
        free = dialog.room()
        self._rounds += 1
        while True:
            sent, self.left_out = fitting(messages, free)
            request = Request(sent, options=dialog.options, tools=dialog.tools.specs)
            stream = self._stream = dialog.client.complete(
                request, parent=self.calls[-1] if self.calls else None
            )
            try:
                async for event in stream:
                    yield event
            except (CallError, UnsupportedRequestError, UsageError) as error:
                if stream.so_far().message.parts or not _TOO_LONG.search(str(error)):
                    raise
                free = sum(weight(message) for message in sent) * 2 // 3
                if len(fitting(messages, free)[0]) == len(sent):
                    raise
            else:
                dialog.learn(sent, stream.so_far())
                self._keep()
                return

    def _keep(self) -> None:
        """The answer that came is a part of the turn."""
        if self._stream is None:
            return
        answer = self._stream.so_far()
        self._stream = None
        if answer.call_id is not None:
            self.calls.append(answer.call_id)
        if answer.finish_reason in ("cancelled", "error"):  # what it wanted to run may be cut
            spoken = tuple(part for part in answer.message.parts if not isinstance(part, ToolCall))
            if not spoken:
                return
            answer = replace(answer, message=Message("assistant", spoken))
        self.answer = answer
        self._said.append(answer.message)
        self._wishes, self._results, self._allowed = answer.message.tool_calls, {}, {}

    def _settle(self) -> None:
        """Let the dialog have what came."""
        self._keep()
        self._said += self._told(TOO_MANY if self._rounds >= ROUNDS else STOPPED)
        if self.answer is None:
            self._dialog.unanswered(self.question, self._place)
        else:
            self._dialog.advance((self.question, *self._said), self.answer)
