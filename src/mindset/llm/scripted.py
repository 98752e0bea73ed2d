"""A client whose answers are written beforehand: for tests, for demonstrations, for developing without a model.

    ScriptedClient(["Yes.", Line("No.", delay=0.1), Line(fails="the line is dead", retry=True)])
    ScriptedClient(lambda request: f"You said {request.messages[-1].text}")
    open_client("script:answers.jsonl")         # a line of JSON each: "Yes." or {"text": "No.", "delay": 0.1}

It behaves like a model: words come in pieces, limits and stops hold, usage is counted. Texts with words in common
have near vectors; tokens are the bytes of UTF-8. Invariant: equal scripts give equal events.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from mindset.calls.call import Usage
from mindset.calls.log import CallLog
from mindset.errors import CallError, UsageError
from mindset.llm.budget import Budget
from mindset.llm.capabilities import Capabilities
from mindset.llm.client import Client
from mindset.llm.events import (
    Embeddings,
    Event,
    Finished,
    FinishReason,
    ReasoningPiece,
    Started,
    TextPiece,
    Token,
    ToolCallPiece,
)
from mindset.llm.policy import Policy
from mindset.llm.request import Request
from mindset.llm.script import Line, read_script

__all__ = ["Line", "Script", "ScriptedClient"]

Reply = str | Line | BaseException
Script = Iterable[Reply] | Callable[[Request], Reply | Awaitable[Reply]]
WIDTH = 64
"""Of an embedding."""


class ScriptedClient(Client):
    """Answers from a list, one a request, from a function of the request, or from a file of JSON lines."""

    kind: ClassVar[str] = "script"
    remote: ClassVar[bool] = False
    real: ClassVar[bool] = False

    def __init__(
        self,
        script: Script | Path,
        *,
        model: str | None = None,
        capabilities: Capabilities | None = None,
        policy: Policy | None = None,
        log: CallLog | None = None,
        budget: Budget | None = None,
    ) -> None:
        """`capabilities` None: all but the inside of a pass and the reads of a memory."""
        name = model or (f"script:{script}" if isinstance(script, Path) else "script")
        super().__init__(name, policy=policy, log=log, budget=budget)
        self.requests: list[Request] = []
        """Everything that was asked, in order; further attempts are further requests."""
        self._can = capabilities or ABLE
        if isinstance(script, str):
            raise UsageError(
                "a script is a list of answers, a function or a Path; for one answer give a list of it"
            )
        if callable(script):
            self._function: Callable[[Request], Reply | Awaitable[Reply]] | None = script
            self._lines: list[Reply] = []
        else:
            self._function = None
            self._lines = list(read_script(script) if isinstance(script, Path) else script)
        self._next = 0

    @property
    def capabilities(self) -> Capabilities:
        """As given."""
        return self._can

    async def _stream(self, request: Request) -> AsyncIterator[Event]:
        line = await self._reply(request)
        yield Started(self.model)
        await asyncio.sleep(line.delay)
        pieces, reason = _pieces(line, request)
        for said, piece in enumerate(pieces):
            if line.fails is not None and said >= line.fails_after:
                break
            yield piece
            await asyncio.sleep(line.pace)
        if line.fails is not None:
            raise CallError(line.fails, retry=line.retry, retry_after=line.retry_after)
        yield Finished(reason, line.usage or _usage(request, pieces))

    async def _reply(self, request: Request) -> Line:
        self.requests.append(request)
        if self._function is not None:
            given = self._function(request)
            reply = await given if inspect.isawaitable(given) else given
        elif self._next < len(self._lines):
            reply = self._lines[self._next]
            self._next += 1
        else:
            raise CallError(f"the script has {len(self._lines)} answers, and was asked once more")
        if isinstance(reply, BaseException):
            raise reply
        return Line(reply) if isinstance(reply, str) else reply

    async def _embed(self, texts: Sequence[str]) -> Embeddings:
        vectors = np.stack([_vector(text) for text in texts])
        return Embeddings(vectors, Usage(sum(len(text.encode()) for text in texts)), self.model)

    async def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    async def _decode(self, ids: Sequence[int]) -> str:
        wrong = [number for number in ids if not 0 <= number < 256]
        if wrong:
            raise UsageError(f"{wrong[0]} is no token: they are bytes, 0 to 255")
        return bytes(ids).decode(errors="replace")


ABLE = Capabilities(
    chat=True,
    prompt=True,
    stream=True,
    tools=True,
    schema=True,
    regex=True,
    images=True,
    logprobs=True,
    seed=True,
    embed=True,
    tokens=True,
)


def _pieces(line: Line, request: Request) -> tuple[list[Event], FinishReason]:
    """The whole answer in pieces, cut where the request says so."""
    options = request.options
    reason: FinishReason = line.finish_reason or ("tool_calls" if line.tool_calls else "stop")
    text = line.text
    cuts = [at for stop in options.stop if (at := text.find(stop)) >= 0]
    words = re.findall(r"\s*\S+|\s+", text[: min(cuts)] if cuts else text)
    if options.max_tokens is not None and len(words) > options.max_tokens:
        words, reason = words[: options.max_tokens], "length"
    pieces: list[Event] = [ReasoningPiece(word) for word in re.findall(r"\s*\S+|\s+", line.reasoning)]
    told = options.logprobs is not None
    pieces += [TextPiece(word, (Token(word, 0.0),) if told else ()) for word in words]
    if reason != "length":
        for index, call in enumerate(line.tool_calls):
            pieces.append(ToolCallPiece(index, call.id, call.name))
            pieces.append(ToolCallPiece(index, arguments=call.arguments))
    return pieces, reason


def _usage(request: Request, pieces: Sequence[Event]) -> Usage:
    """A word is a token."""
    spoken = [request.prompt or ""] + [message.text for message in request.messages]
    reasoning = sum(isinstance(piece, ReasoningPiece) for piece in pieces)
    return Usage(sum(len(text.split()) for text in spoken), len(pieces), reasoning_tokens=reasoning)


def _vector(text: str) -> np.ndarray:
    """Words hashed to directions, summed, of length 1."""
    total = np.zeros(WIDTH, dtype=np.float64)
    for word in re.findall(r"\w+", text.lower()) or [text]:
        seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
        total += np.random.default_rng(seed).standard_normal(WIDTH)
    return (total / np.linalg.norm(total)).astype(np.float32)
