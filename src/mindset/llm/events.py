"""What comes back while a model answers: typed events, in order, and the answer that they add up to.

    Started, then TextPiece, ReasoningPiece, ToolCallPiece and Retried in any order, then Finished as the last one.

Every event is JSON and back (`to_json`, `from_json`): so the log keeps them, and a replay hands them out again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

import numpy as np

from mindset.calls.call import Usage
from mindset.calls.canonical import Json
from mindset.errors import DataError
from mindset.llm.messages import Message, Part, Reasoning, Text, ToolCall

__all__ = [
    "Alternative",
    "Answer",
    "Embeddings",
    "Event",
    "FinishReason",
    "Finished",
    "Forward",
    "Read",
    "ReasoningPiece",
    "Retried",
    "Started",
    "TextPiece",
    "Token",
    "ToolCallPiece",
    "collect",
    "from_json",
    "to_json",
]

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled", "error"]


@dataclass(frozen=True)
class Alternative:
    """A token that could have come."""

    text: str
    logprob: float
    id: int | None = None


@dataclass(frozen=True)
class Read:
    """A slot of a memory that spoke for a token."""

    layer: int
    slot: int
    influence: float
    overlay: str | None = None
    """None: one of the model's own."""


@dataclass(frozen=True)
class Token:
    """One token of an answer."""

    text: str
    logprob: float | None = None
    """Natural logarithm of its probability before temperature and cuts."""
    id: int | None = None
    alternatives: tuple[Alternative, ...] = ()
    """The likeliest at its place, likeliest first; it may be among them."""
    reads: tuple[Read, ...] = ()
    """The slots that spoke most for it."""


@dataclass(frozen=True)
class Started:
    """The model has taken the request."""

    model: str
    """As it calls itself."""
    content_hash: str | None = None
    """Of its files, where they are ours to read."""


@dataclass(frozen=True)
class TextPiece:
    """More of the text."""

    text: str
    tokens: tuple[Token, ...] = ()
    """Those of the piece, where they were asked for."""


@dataclass(frozen=True)
class ReasoningPiece:
    """More of what the model thinks before it answers."""

    text: str
    signature: str | None = None


@dataclass(frozen=True)
class ToolCallPiece:
    """More of a wish that a tool run; pieces of one index belong together."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    """What is added to the arguments' JSON text."""


@dataclass(frozen=True)
class Retried:
    """An attempt failed before anything was said, and another one is made."""

    reason: str
    wait: float
    """Seconds until then."""


@dataclass(frozen=True)
class Finished:
    """The answer is complete, or was cut for the reason given."""

    reason: FinishReason
    usage: Usage = Usage()


Event = Started | TextPiece | ReasoningPiece | ToolCallPiece | Retried | Finished
_KINDS: dict[str, type[Event]] = {
    "started": Started,
    "text": TextPiece,
    "reasoning": ReasoningPiece,
    "tool_call": ToolCallPiece,
    "retried": Retried,
    "finished": Finished,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True)
class Answer:
    """What events add up to."""

    message: Message
    finish_reason: FinishReason
    usage: Usage = Usage()
    model: str = ""
    content_hash: str | None = None
    tokens: tuple[Token, ...] = ()
    call_id: int | None = None
    """Its row in the log."""

    @property
    def text(self) -> str:
        """Its words alone."""
        return self.message.text


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One vector a text."""

    vectors: np.ndarray
    """`[texts, d]`, float32."""
    usage: Usage = Usage()
    model: str = ""


@dataclass(frozen=True, eq=False)
class Forward:
    """What one pass held; arrays that were not asked for are None."""

    ids: tuple[int, ...]
    logits: np.ndarray | None = None
    """`[pos, vocab]`, float32."""
    hidden_states: np.ndarray | None = None
    """`[layers + 1, pos, d_model]`, float32."""
    attention: np.ndarray | None = None
    """`[layers, heads, pos, pos]`, float32."""
    reads: tuple[tuple[Read, ...], ...] = ()
    """By position."""
    model: str = ""
    content_hash: str | None = None
    usage: Usage = Usage()


def to_json(event: Event) -> dict[str, Json]:
    """An event as JSON, without what is as it would be anyway."""
    told = {"event": _NAMES[type(event)]}
    plain = asdict(event)
    for spec in fields(event):
        value = plain[spec.name]
        if value != spec.default:
            told[spec.name] = value
    if isinstance(event, Finished):
        told["usage"] = {name: count for name, count in asdict(event.usage).items() if count}  # type: ignore[assignment]
    return told


def from_json(told: Mapping[str, Json]) -> Event:
    """The event that `to_json` wrote."""
    rest = dict(told)
    kind = _KINDS.get(rest.pop("event", ""))
    if kind is None:
        raise DataError(f"{told.get('event')!r} is no event; known: {', '.join(_KINDS)}")
    if kind is Finished:
        rest["usage"] = Usage(**rest.get("usage", {}))
    if kind is TextPiece:
        rest["tokens"] = tuple(_token(one) for one in rest.get("tokens", ()))
    return kind(**rest)


def collect(events: Iterable[Event], call_id: int | None = None) -> Answer:
    """The answer that events add up to; one that was never finished counts as cancelled."""
    model, content_hash, reason, usage = "", None, "cancelled", Usage()
    parts: list[Part] = []
    calls: dict[int, ToolCall] = {}
    tokens: list[Token] = []
    for event in events:
        if isinstance(event, Started):
            model, content_hash = event.model, event.content_hash
        elif isinstance(event, TextPiece):
            _append(parts, Text(event.text))
            tokens += event.tokens
        elif isinstance(event, ReasoningPiece):
            _append(parts, Reasoning(event.text, event.signature))
        elif isinstance(event, ToolCallPiece):
            had = calls.get(event.index, ToolCall("", "", ""))
            calls[event.index] = ToolCall(
                had.id or event.id, had.name or event.name, had.arguments + event.arguments
            )
        elif isinstance(event, Finished):
            reason, usage = event.reason, event.usage
    message = Message("assistant", (*parts, *(calls[index] for index in sorted(calls))))
    return Answer(message, reason, usage, model, content_hash, tuple(tokens), call_id)  # type: ignore[arg-type]


def _append(parts: list[Part], more: Text | Reasoning) -> None:
    last = parts[-1] if parts else None
    if isinstance(last, Text) and isinstance(more, Text):
        parts[-1] = Text(last.text + more.text)
    elif isinstance(last, Reasoning) and isinstance(more, Reasoning):
        parts[-1] = Reasoning(last.text + more.text, more.signature or last.signature)
    elif more.text or isinstance(more, Reasoning):
        parts.append(more)


def _token(told: Mapping[str, Json]) -> Token:
    alternatives = tuple(Alternative(**one) for one in told.get("alternatives", ()))
    reads = tuple(Read(**one) for one in told.get("reads", ()))
    return Token(told["text"], told.get("logprob"), told.get("id"), alternatives, reads)
