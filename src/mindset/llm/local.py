"""A client of a model in this process: any causal language model of transformers, with a memory or without.

    async with LocalClient("smollm2") as client:
        answer = await client.chat("Name a city.", max_tokens=20, seed=1)

Loaded at the first use; clients of one model share it, and what they ask at the same time is computed together
(`mindset.llm.engine`). What is not given is as the model's own `generation_config` says, else temperature 0. Vectors
of texts are means of the last hidden states: no model of this kind was trained for them. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch

from mindset.calls.call import Asked, Usage
from mindset.calls.log import CallLog
from mindset.errors import CallError, UnsupportedRequestError, UsageError
from mindset.llm import tool_text
from mindset.llm.budget import ASSUMED_ANSWER, Budget
from mindset.llm.capabilities import Capabilities
from mindset.llm.client import Client
from mindset.llm.engine.batch import BatchSettings
from mindset.llm.engine.grammar import Guide
from mindset.llm.engine.insides import mean_states, shown_pass
from mindset.llm.engine.job import Job
from mindset.llm.engine.shared import Held, Wanted, leave, open_engine
from mindset.llm.events import Embeddings, Event, Finished, Forward, Started, TextPiece
from mindset.llm.messages import from_nodes
from mindset.llm.policy import Policy
from mindset.llm.request import ForwardRequest, Options, Request
from mindset.llm.tool_text import ToolReader

__all__ = ["LocalClient"]

T = TypeVar("T")
TOGETHER = 512
"""Tokens of texts that are made vectors in one pass."""


class LocalClient(Client):
    """A model whose weights are here."""

    kind: ClassVar[str] = "local"
    remote: ClassVar[bool] = False

    def __init__(
        self,
        model: str,
        *,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
        threads: int = 0,
        count: bool = False,
        batch: BatchSettings | None = None,
        queue: int = 64,
        ram: int | None = None,
        decay: float | None = None,
        policy: Policy | None = None,
        log: CallLog | None = None,
        budget: Budget | None = None,
    ) -> None:
        """`count`: count what is read in the model's folder; `queue`: requests that may wait beside those that run.

        `decay`: lambda of LRFU that reads are counted with; None: the memory's, or the usual one.
        `ram`: bytes of the model's memory that may be in RAM at a time; None: all of it is loaded.
        """
        super().__init__(model, policy=policy, log=log, budget=budget)
        self._wanted = Wanted(
            model, dtype, device, threads, count, batch or BatchSettings(), queue, ram, decay
        )
        self._opening = threading.Lock()
        self._held: Held | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What can be asked for; a memory and a chat template show when the model is loaded."""
        held = self._held
        can_chat = held is None or held.chat.known
        return Capabilities(
            chat=can_chat,
            prompt=True,
            stream=True,
            tools=can_chat,
            schema=True,
            regex=True,
            logprobs=True,
            seed=True,
            reads=held is None or held.has_memory,
            embed=True,
            tokens=True,
            forward=True,
        )

    @property
    def context(self) -> int | None:
        """As the model's config says, once it is loaded."""
        return None if self._held is None else self._held.engine.longest

    # ---- open and close -----------------------------------------------------------------------------------------
    async def _prepare(self) -> None:
        if self._held is None or not self._held.engine.is_open:
            await asyncio.to_thread(self._open)

    def _open(self) -> None:
        with self._opening:
            if self._held is None or not self._held.engine.is_open:
                self._held = open_engine(self._wanted)

    async def _close(self) -> None:
        await asyncio.to_thread(self._leave)

    def _leave(self) -> None:
        with self._opening:
            held, self._held = self._held, None
        if held is not None:
            leave(held)

    async def _in_use(self) -> Held:
        await self._prepare()
        if (held := self._held) is None:
            raise CallError(f"{self.model} was closed", retry=True)
        return held

    async def _content_hash(self) -> str | None:
        return (await self._in_use()).content_hash

    # ---- answers ------------------------------------------------------------------------------------------------
    async def _stream(self, request: Request) -> AsyncIterator[Event]:
        held = await self._in_use()
        inbox = _Inbox()
        job = await asyncio.to_thread(_job, held, request, inbox.put)
        ticket = held.engine.submit(job)
        calls = sum(len(message.tool_calls) for message in request.messages)
        reader = ToolReader([tool.name for tool in request.tools], calls) if _offers_tools(request) else None
        try:
            yield Started(held.loaded.name, held.content_hash)
            while True:
                text, last = await inbox.take()
                for event in _events(text, last, reader):
                    yield event
                if last is not None:
                    return
        finally:
            ticket.cancel()

    async def _prompt_tokens(self, asked: Asked) -> int:
        if asked.verb != "complete" or not asked.nodes or asked.nodes[0].kind == "prompt":
            return await super()._prompt_tokens(asked)
        held = await self._in_use()
        return len(held.chat.ids(Request(from_nodes(asked.nodes))))

    # ---- tokens, vectors, insides -------------------------------------------------------------------------------
    async def _encode(self, text: str) -> tuple[int, ...]:
        tokenizer = (await self._in_use()).loaded.tokenizer
        return tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    async def _decode(self, ids: Sequence[int]) -> str:
        held = await self._in_use()
        _check_ids(held, ids)
        return str(held.loaded.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    async def _embed(self, texts: Sequence[str]) -> Embeddings:
        held = await self._in_use()
        tokenizer = held.loaded.tokenizer
        read = [list(tokenizer(text, verbose=False)["input_ids"]) for text in texts]
        for text, ids in zip(texts, read, strict=True):
            if not ids:
                raise UsageError(f"{text!r} has no tokens, and so no vector")
            _check_length(held, ids)
        order = sorted(range(len(read)), key=lambda place: len(read[place]))
        vectors: dict[int, np.ndarray] = {}
        for places in _groups(order, [len(ids) for ids in read]):
            some = [read[place] for place in places]
            found = await _computed(held, lambda some=some: mean_states(held.loaded.model, some))  # type: ignore[misc]
            vectors |= dict(zip(places, found, strict=True))
        together = np.stack([vectors[place] for place in range(len(read))])
        return Embeddings(together, Usage(sum(map(len, read))), held.loaded.name)

    async def _forward(self, request: ForwardRequest) -> Forward:
        held = await self._in_use()
        tokenizer = held.loaded.tokenizer
        ids = request.ids if request.prompt is None else tokenizer(request.prompt, verbose=False)["input_ids"]
        ids = tuple(ids or ())
        if not ids:
            raise UsageError("a pass needs one token at least")
        _check_ids(held, ids)
        _check_length(held, ids)
        found = await _computed(held, lambda: shown_pass(held.loaded.model, ids, request, held.engine.reads))
        return replace(found, model=held.loaded.name, content_hash=held.content_hash, usage=Usage(len(ids)))


class _Inbox:
    """What an engine's thread tells, for the event loop that waits for it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told: deque[TextPiece | Finished | Exception] = deque()
        self._some = asyncio.Event()

    def put(self, told: TextPiece | Finished | Exception) -> None:
        """Called by the engine."""
        self._told.append(told)
        self._loop.call_soon_threadsafe(self._some.set)

    async def take(self) -> tuple[TextPiece | None, Finished | None]:
        """All the text that came since, as one piece, and the end if it came too."""
        await self._some.wait()
        self._some.clear()
        pieces: list[TextPiece] = []
        last: Finished | None = None
        while self._told:
            one = self._told.popleft()
            if isinstance(one, Exception):
                raise one
            if isinstance(one, Finished):
                last = one
            else:
                pieces.append(one)
        if not pieces:
            return None, last
        tokens = tuple(token for piece in pieces for token in piece.tokens)
        return TextPiece("".join(piece.text for piece in pieces), tokens), last


def _job(held: Held, request: Request, deliver: Callable[[Any], None]) -> Job:
    """What the engine is asked; refuses what cannot be."""
    if request.prompt is not None:
        ids = held.loaded.tokenizer(request.prompt, verbose=False)["input_ids"]
    else:
        ids = held.chat.ids(request)
    return Job(tuple(ids), deliver, _settled(held, request.options), _guide(held, request))


def _settled(held: Held, options: Options) -> Options:
    """The options, with the model's own where none is given; refuses those that only other endpoints know."""
    if options.extra:
        raise UnsupportedRequestError(
            f"a model in this process does not know {', '.join(options.extra)}; leave it out, or ask an endpoint that "
            "does"
        )
    own = held.loaded.model.generation_config
    limit = options.max_tokens or getattr(own, "max_new_tokens", None) or ASSUMED_ANSWER
    drawn = options.temperature is None and bool(getattr(own, "do_sample", False))
    if not drawn:
        return replace(options, max_tokens=limit)
    return replace(
        options,
        max_tokens=limit,
        temperature=getattr(own, "temperature", None) or 1.0,
        top_p=options.top_p or getattr(own, "top_p", None),
        top_k=options.top_k or getattr(own, "top_k", None),
    )


def _guide(held: Held, request: Request) -> Guide | None:
    """What the answer is held to."""
    options, grammars = request.options, held.engine.grammars
    if _offers_tools(request) and request.tool_choice not in (None, "auto"):
        tools = [tool for tool in request.tools if request.tool_choice in ("required", tool.name)]
        if not tools:
            names = ", ".join(tool.name for tool in request.tools)
            raise UsageError(
                f"tool_choice {request.tool_choice!r} is none of auto, none, required, and no tool: {names}"
            )
        around = ("", "") if held.chat.calls_are_bare else (tool_text.BEFORE, tool_text.AFTER)
        return grammars.for_tools(tools, *around)
    if options.schema is not None:
        return grammars.for_schema(options.schema)
    return None if options.regex is None else grammars.for_regex(options.regex)


def _offers_tools(request: Request) -> bool:
    return bool(request.tools) and request.tool_choice != "none"


def _events(text: TextPiece | None, last: Finished | None, reader: ToolReader | None) -> list[Event]:
    events: list[Event] = []
    if text is not None:
        events += [text] if reader is None else reader.push(text.text, text.tokens)
    if last is None:
        return events
    if reader is not None:
        events += reader.end(complete=last.reason == "stop")
        if reader.calls and last.reason == "stop":
            last = Finished("tool_calls", last.usage)
    return [*events, last]


async def _computed(held: Held, work: Callable[[], T]) -> T:
    """Something done with the model, between two steps of its engine."""
    return await asyncio.wrap_future(held.engine.call(work))


def _groups(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Texts of like length together, as many as make one pass."""
    groups: list[list[int]] = []
    for place in order:
        if groups and lengths[place] * (len(groups[-1]) + 1) <= TOGETHER:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def _check_ids(held: Held, ids: Sequence[int]) -> None:
    known = held.engine.vocabulary
    wrong = next((one for one in ids if not 0 <= one < known), None)
    if wrong is not None:
        raise UsageError(f"{wrong} is no token: this model has {known}, from 0")


def _check_length(held: Held, ids: Sequence[int]) -> None:
    if len(ids) > held.engine.longest:
        raise UsageError(
            f"the text has {len(ids)} tokens, but the model reads {held.engine.longest}; shorten it"
        )
