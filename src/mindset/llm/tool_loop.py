"""A dialog with tools, run until the model is done: it asks, tools run, it reads their results, and so on.

    ran = await run_tools(client, "What is 3 + 4?", [add])
    ran.answer.text, ran.messages

Wishes of one answer run at the same time. `approve` is asked before each: `pause` stops the whole thing as `Paused`,
which is JSON, and which `resume` goes on from, tomorrow or in another process, without asking the model again. Does
not know what tools do. Invariant: every wish in the dialog is followed by its result before the model is asked again.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from mindset.errors import UsageError
from mindset.llm.client import Client
from mindset.llm.events import Answer, Event
from mindset.llm.messages import Message, ToolCall, ToolResult, tool_result, user
from mindset.llm.parents import children_of
from mindset.llm.paused import Paused
from mindset.llm.request import Request, options_from
from mindset.llm.tools import Tool, ToolSet

__all__ = ["Approve", "Paused", "Ran", "Verdict", "resume", "run_tools"]

Verdict = Literal["yes", "no", "pause"]
Approve = Callable[[ToolCall], Verdict | Awaitable[Verdict]]
"""Asked before a tool runs."""
Watch = Callable[[Event | ToolResult], None]
"""Told everything as it comes."""
NOT_ALLOWED = "this was not allowed; do not ask for it again, and go on without it"


@dataclass(frozen=True)
class Ran:
    """A dialog that has come to its end."""

    messages: tuple[Message, ...]
    """All of it, with what was asked."""
    answer: Answer
    """The model's last one."""
    rounds: int
    """How often the model was asked."""
    done: bool
    """False: the model wanted more tools, but `max_rounds` was reached; its last wishes did not run."""


async def run_tools(
    client: Client,
    messages: str | Sequence[Message],
    tools: ToolSet | Iterable[Tool | Callable[..., Any]],
    *,
    max_rounds: int = 10,
    approve: Approve | None = None,
    watch: Watch | None = None,
    tool_choice: str | None = None,
    timeout: float | None = None,
    parent: int | None = None,
    **options: Any,
) -> Ran | Paused:
    """Let the model use tools until it answers without, is paused, or was asked `max_rounds` times.

    `timeout`: seconds for each call of the model; `tool_choice` holds for the first one only; `options` are the fields
    of `Options`.
    """
    if max_rounds < 1:
        raise UsageError(f"max_rounds={max_rounds} asks nothing: give 1 or more")
    dialog = (user(messages),) if isinstance(messages, str) else tuple(messages)
    state = Paused(dialog, options_from(options), max_rounds, 0, parent)
    return await _Loop(client, _set(tools), approve, watch, timeout).ask(state, tool_choice)


async def resume(
    client: Client,
    paused: Paused,
    tools: ToolSet | Iterable[Tool | Callable[..., Any]],
    *,
    approve: Approve | None = None,
    watch: Watch | None = None,
    timeout: float | None = None,
) -> Ran | Paused:
    """Go on from where it was paused; `approve` is asked again about what waits, and None means yes."""
    return await _Loop(client, _set(tools), approve, watch, timeout).settle(paused)


def _set(tools: ToolSet | Iterable[Tool | Callable[..., Any]]) -> ToolSet:
    return tools if isinstance(tools, ToolSet) else ToolSet(tools)


@dataclass(frozen=True)
class _Loop:
    client: Client
    tools: ToolSet
    approve: Approve | None
    watch: Watch | None
    timeout: float | None

    async def ask(self, state: Paused, tool_choice: str | None = None) -> Ran | Paused:
        """Ask the model, and run what it wants, until there is nothing to run."""
        answer = await self._answer(state, tool_choice)
        said = (*state.messages, answer.message)
        rounds = state.rounds + 1
        if not answer.message.tool_calls or rounds >= state.max_rounds:
            return Ran(said, answer, rounds, done=not answer.message.tool_calls)
        wishes = answer.message.tool_calls
        return await self.settle(
            replace(state, messages=said, rounds=rounds, parent=answer.call_id, waiting=wishes, results=())
        )

    async def settle(self, state: Paused) -> Ran | Paused:
        """Run what waits, as far as it may, and go on once nothing waits."""
        verdicts = await asyncio.gather(*(self._verdict(wish) for wish in state.waiting))
        judged = list(zip(state.waiting, verdicts, strict=True))
        with children_of(state.parent):
            fresh = await asyncio.gather(
                *(self._result(wish, word) for wish, word in judged if word != "pause")
            )
        results = (*state.results, *fresh)
        waiting = tuple(wish for wish, word in judged if word == "pause")
        if waiting:
            return replace(state, waiting=waiting, results=results)
        order = {call.id: place for place, call in enumerate(state.messages[-1].tool_calls)}
        told = tuple(tool_result(one) for one in sorted(results, key=lambda one: order.get(one.call_id, 0)))
        return await self.ask(replace(state, messages=(*state.messages, *told), waiting=(), results=()))

    async def _answer(self, state: Paused, tool_choice: str | None) -> Answer:
        request = Request(
            state.messages, options=state.options, tools=self.tools.specs, tool_choice=tool_choice
        )
        async with self.client.complete(request, timeout=self.timeout, parent=state.parent) as stream:
            async for event in stream:
                self._tell(event)
            return stream.so_far()

    async def _verdict(self, wish: ToolCall) -> Verdict:
        if self.approve is None:
            return "yes"
        verdict = self.approve(wish)
        word = await verdict if inspect.isawaitable(verdict) else verdict
        if word not in ("yes", "no", "pause"):
            raise UsageError(f"approve answered {word!r}: it has to be 'yes', 'no' or 'pause'")
        return word

    async def _result(self, wish: ToolCall, word: Verdict) -> ToolResult:
        if word == "no":
            result = ToolResult(wish.id, NOT_ALLOWED, wish.name, is_error=True)
        else:
            result = await self.tools.run(wish)
        self._tell(result)
        return result

    def _tell(self, news: Event | ToolResult) -> None:
        if self.watch is not None:
            self.watch(news)
