"""A client: one language model behind one async interface, whoever computes it.

    async with open_client("smollm2") as client:
        answer = await client.chat("Who wrote Dracula?", max_tokens=50)

Subclasses implement only the methods that begin with an underscore and raise `CallError` where the model fails. The
public ones are final: they log, grant, wait in line, time out, try again and replay, so no call of any client escapes
any of it. Does not know what answers. Invariant: every call is a row of the log, from before it is made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar, cast, final

from mindset.calls.call import Asked, NewNode, Usage
from mindset.calls.canonical import Json
from mindset.calls.log import CallLog
from mindset.errors import UsageError
from mindset.llm.attempts import Ask, attempts
from mindset.llm.budget import ASSUMED_ANSWER, Budget, budgets_in_force
from mindset.llm.capabilities import Capabilities, need, need_for, need_for_forward
from mindset.llm.events import Answer, Embeddings, Event, Forward
from mindset.llm.messages import Message, user
from mindset.llm.parents import current_parent
from mindset.llm.patience import Patience
from mindset.llm.player import Player, player_for
from mindset.llm.policy import Policy
from mindset.llm.prompt_size import PICTURE_TOKENS, bytes_as_tokens, spoken
from mindset.llm.recorder import Recorder
from mindset.llm.request import ForwardRequest, Request, ToolSpec, options_from
from mindset.llm.requests_allowed import requests_allowed
from mindset.llm.results import result_of
from mindset.llm.shapes import Shape
from mindset.llm.single import single
from mindset.llm.stream import Stream
from mindset.llm.structured import ask_for
from mindset.llm.tariffs import tariff_of

__all__ = ["Client"]

Found = TypeVar("Found")


class Client(ABC):
    """A language model. Close it, or use it as an async context manager."""

    kind: ClassVar[str] = "other"
    """What the log calls clients of this class."""
    remote: ClassVar[bool] = True
    """False where answering is computing here: then seconds count as ours, and money is not asked for."""
    real: ClassVar[bool] = True
    """False where no model answers: scripts and replays, which nothing forbids."""

    def __init__(
        self,
        model: str,
        *,
        policy: Policy | None = None,
        log: CallLog | None = None,
        budget: Budget | None = None,
    ) -> None:
        """`model` as MODEL gives it; `log` None: the user's own; `budget` holds for this client alone."""
        self.model = model
        self.policy = policy or Policy()
        self._opened_log, self._budget = log, budget
        self._player: Player | None = None
        self._secrets: set[str] = set()
        """Keys, which stay out of the log even where somebody says them; for subclasses to fill when they are made."""

    def __init_subclass__(cls, **given: Any) -> None:
        """Refuse a subclass that changes what every client does."""
        super().__init_subclass__(**given)
        changed = sorted(name for name in FINAL if getattr(cls, name) is not vars(Client)[name])
        if changed:
            raise TypeError(
                f"{cls.__name__} replaces {', '.join(changed)} of Client, by which calls are logged and limited: "
                "implement the methods that begin with an underscore"
            )

    # ------------------------------------------------------------------------------------- what subclasses implement
    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What can be asked for; read after `_prepare`."""

    @property
    def endpoint(self) -> str:
        """What is asked: clients of one endpoint share a policy's limits; an address tells the prices too."""
        return self.model

    async def _prepare(self) -> None:  # noqa: B027 - most have nothing to do
        """Get ready before a call: load, connect, ask for capabilities. Must be quick where it is done already."""

    def _stream(self, request: Request) -> AsyncIterator[Event]:
        """Answer, as an async generator: `Started`, pieces, and `Finished` as the last event."""
        raise NotImplementedError(f"{type(self).__name__} claims to chat or continue, but has no _stream")

    async def _embed(self, texts: Sequence[str]) -> Embeddings:
        """Return one vector a text."""
        raise NotImplementedError(f"{type(self).__name__} claims to embed, but has no _embed")

    async def _encode(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a text."""
        raise NotImplementedError(f"{type(self).__name__} claims to know tokens, but has no _encode")

    async def _decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens."""
        raise NotImplementedError(f"{type(self).__name__} claims to know tokens, but has no _decode")

    async def _forward(self, request: ForwardRequest) -> Forward:
        """Show the inside of one pass."""
        raise NotImplementedError(f"{type(self).__name__} claims to show a pass, but has no _forward")

    async def _content_hash(self) -> str | None:
        """Return the hash of the model's files, where they are ours to read."""
        return None

    async def _close(self) -> None:  # noqa: B027 - most hold nothing
        """Give back what is held: connections, models."""

    # ------------------------------------------------------------------------------------------ what everybody calls
    @final
    def complete(
        self, request: Request, *, timeout: float | None = None, parent: int | None = None
    ) -> Stream:
        """The answer to a dialog, or the continuation of a prompt, as it comes.

        `timeout`: seconds in all, in place of the policy's; `parent`: id of the call whose tool calls this answers.
        """
        asked = self._asked("complete", request.nodes(), request.given(), parent)
        patience, recorder = self._begin(asked, timeout)

        def check() -> None:
            need_for(self.capabilities, self.model, request)

        async def expected() -> Usage:
            longest = request.options.max_tokens or ASSUMED_ANSWER
            return Usage(await self._prompt_tokens(asked), longest)

        source = self._source(patience, recorder, check, expected, lambda: self._stream(request))
        return Stream(source, patience, recorder)

    @final
    async def chat(
        self,
        messages: str | Message | Sequence[Message],
        *,
        tools: Sequence[ToolSpec] = (),
        tool_choice: str | None = None,
        timeout: float | None = None,
        parent: int | None = None,
        **options: Any,
    ) -> Answer:
        """The whole answer to a dialog; text alone is what a user says. `options` are the fields of `Options`."""
        request = Request(
            _dialog(messages), options=options_from(options), tools=tuple(tools), tool_choice=tool_choice
        )
        return await self.complete(request, timeout=timeout, parent=parent).answer()

    @final
    async def structured(
        self,
        messages: str | Message | Sequence[Message],
        wanted: Any,
        *,
        timeout: float | None = None,
        parent: int | None = None,
        **options: Any,
    ) -> Any:
        """The answer as a value: of a type (a dataclass, a pydantic model, `list[int]`), or JSON that fits a schema.

        An answer that does not fit is asked for once more. `timeout` holds for each of the two calls.
        """
        shape, dialog = Shape.of(wanted), _dialog(messages)
        can = await self._can_schema(shape, dialog, timeout, options)

        async def chat(dialog: Sequence[Message], **more: Any) -> Answer:
            return await self.chat(dialog, timeout=timeout, **options, **more)

        return await ask_for(shape, chat, dialog, can=can, parent=parent)

    @final
    async def embed(
        self, texts: Sequence[str], *, timeout: float | None = None, parent: int | None = None
    ) -> Embeddings:
        """One vector a text."""
        if isinstance(texts, str) or not texts:
            raise UsageError("embed takes one text or more, in a list")
        asked = self._asked("embed", [NewNode("texts", {"texts": list(texts)})], {}, parent)
        return cast(Embeddings, await self._once(asked, timeout, lambda: self._embed(texts), "embed"))

    @final
    async def encode(
        self, text: str, *, timeout: float | None = None, parent: int | None = None
    ) -> tuple[int, ...]:
        """The tokens of a text; no special ones are added."""
        asked = self._asked("encode", [NewNode("prompt", {"text": text})], {}, parent)
        found = await self._once(asked, timeout, lambda: self._encode(text), "tokens")
        return cast("tuple[int, ...]", found)

    @final
    async def decode(
        self, ids: Sequence[int], *, timeout: float | None = None, parent: int | None = None
    ) -> str:
        """The text of tokens."""
        asked = self._asked("decode", [NewNode("ids", {"ids": list(ids)})], {}, parent)
        return cast(str, await self._once(asked, timeout, lambda: self._decode(ids), "tokens"))

    @final
    async def forward(
        self, request: ForwardRequest, *, timeout: float | None = None, parent: int | None = None
    ) -> Forward:
        """The inside of one pass over a text."""
        if request.prompt is not None:
            node = NewNode("prompt", {"text": request.prompt})
        else:
            node = NewNode("ids", {"ids": list(request.ids or ())})
        options = {
            name: value
            for name in ("logits", "hidden_states", "attention", "reads", "last")
            if (value := getattr(request, name))
        }
        asked = self._asked("forward", [node], options, parent)

        def check() -> None:
            need_for_forward(self.capabilities, self.model, request)

        return cast(Forward, await self._once(asked, timeout, lambda: self._forward(request), check))

    @final
    async def content_hash(self) -> str | None:
        """Hash of the model's files, where they are ours to read; no call, and so no row of the log."""
        return await self._content_hash() if await self._ready(None) else None

    @final
    async def close(self) -> None:
        """Give back what is held. Calls under way fail; a closed client opens again when it is asked."""
        await self._close()

    @final
    async def __aenter__(self) -> Self:
        return self

    @final
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.close()

    # -------------------------------------------------------------------------------------------------- what is inside
    @final
    def _log(self) -> CallLog:
        if self._opened_log is None:
            self._opened_log = CallLog.open()
        for secret in self._secrets:
            self._opened_log.redactor.know(secret)
        return self._opened_log

    @final
    def _asked(
        self, verb: Any, nodes: Sequence[NewNode], options: Mapping[str, Json], parent: int | None
    ) -> Asked:
        above = current_parent() if parent is None else parent
        return Asked(verb, self.model, self.kind, tuple(nodes), dict(options), above)

    @final
    def _begin(self, asked: Asked, timeout: float | None) -> tuple[Patience, Recorder]:
        if timeout is not None and not timeout > 0:
            raise UsageError(f"timeout={timeout} leaves no time: give seconds above 0")
        endpoint = self.endpoint if self.remote and self.endpoint != self.model else None
        return Patience(timeout or self.policy.timeout, self.model), Recorder(self._log, asked, endpoint)

    @final
    async def _can_schema(
        self, shape: Shape, dialog: tuple[Message, ...], timeout: float | None, options: Mapping[str, Any]
    ) -> bool:
        """Whether the model can be held to a schema; in a replay, whether it was."""
        player = self._player or player_for(self._log)
        if player is None:
            await self._ready(timeout)
            return self.capabilities.schema
        held = Request(dialog, options=options_from({**options, "schema": dict(shape.schema)}))
        return await player.knows(self._asked("complete", held.nodes(), held.given(), None))

    @final
    async def _ready(self, timeout: float | None) -> bool:
        """Be ready to say what can be asked for, where a model may be touched at all."""
        if self._player or player_for(self._log):
            return False
        if self.real and not requests_allowed():
            return False
        await Patience(timeout or self.policy.timeout, self.model).wait(self._prepare)
        return True

    @final
    def _source(
        self,
        patience: Patience,
        recorder: Recorder,
        check: Callable[[], None],
        expected: Callable[[], Awaitable[Usage]],
        make: Callable[[], AsyncIterator[Any]],
    ) -> AsyncGenerator[Any, None]:
        player = self._player or player_for(self._log)
        if player is not None:
            return player.play(recorder)
        budgets = budgets_in_force() + (() if self._budget is None else (self._budget,))
        ask = Ask(
            self.model,
            self.endpoint,
            self.policy,
            budgets,
            tariff_of(self.model, self.endpoint, self.remote),
            self.real,
            self.remote,
            self._prepare,
            check,
            expected,
            make,
        )
        return attempts(ask, patience, recorder)

    @final
    async def _once(
        self,
        asked: Asked,
        timeout: float | None,
        make: Callable[[], Awaitable[Any]],
        needs: str | Callable[[], None],
    ) -> Any:
        """A call whose answer comes in one piece."""
        patience, recorder = self._begin(asked, timeout)

        def check() -> None:
            if callable(needs):
                needs()
            else:
                need(self.capabilities, self.model, needs)

        async def expected() -> Usage:
            return Usage(await self._prompt_tokens(asked))

        async def attempt() -> AsyncGenerator[Any, None]:
            yield await make()

        source = self._source(patience, recorder, check, expected, attempt)
        return await single(
            source, patience, recorder, lambda found: result_of(found, self.policy.kept_arrays)
        )

    async def _prompt_tokens(self, asked: Asked) -> int:
        """How many tokens a prompt has at most; clients that know their template tell it better."""
        text, pictures = spoken(asked)
        if self.capabilities.tokens and not self.remote:
            tokens = len(await self._encode(text))
        else:
            tokens = bytes_as_tokens(text)
        return tokens + pictures * PICTURE_TOKENS


def _dialog(messages: str | Message | Sequence[Message]) -> tuple[Message, ...]:
    if isinstance(messages, str):
        return (user(messages),)
    return (messages,) if isinstance(messages, Message) else tuple(messages)


FINAL = frozenset(name for name, value in vars(Client).items() if getattr(value, "__final__", False))
"""What no subclass may replace."""
