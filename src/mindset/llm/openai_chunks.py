"""What OpenAI-compatible servers answer, chunk by chunk, as our events.

Forgiving where servers differ: whole messages in place of deltas, tool calls without a number, `reasoning` under two
names, no usage, no `[DONE]`. Knows no network. Invariant: `Started` comes first and once, `Finished` last and once, and
only for an answer that says it is complete.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mindset.calls.call import Usage
from mindset.calls.canonical import Json
from mindset.errors import CallError, MindsetError
from mindset.llm.events import (
    Alternative,
    Event,
    Finished,
    FinishReason,
    Read,
    ReasoningPiece,
    Started,
    TextPiece,
    Token,
    ToolCallPiece,
)
from mindset.llm.http_failures import said_in
from mindset.llm.sse import ServerEvent
from mindset.llm.surrogates import whole_text

__all__ = ["Chunks", "error_in", "usage_in"]

DONE = "[DONE]"
LEAST = -9999.0
"""What OpenAI says for the logarithm of nothing."""
PASSING = ("server_error", "overloaded", "rate_limit", "timeout", "unavailable", "internal", "try_again")
"""Words in the kind or code of an error that may pass."""
_REASONS: dict[str, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class Chunks:
    """Chunks of one answer on their way to events."""

    def __init__(self, name: str) -> None:
        """`name` stands for the model where it does not say what it is called."""
        self._name = name
        self._started = self._said_done = False
        self._reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._calls: dict[str, int] = {}
        self.done = False
        """Whether nothing more is to come."""

    def take(self, event: ServerEvent) -> Iterator[Event]:
        """The events in one event of the server."""
        if self._said_done:
            return
        if event.data.strip() == DONE:
            self.done = self._said_done = True
            self._reason = self._reason or ("stop" if self._started else None)
            return
        told = parsed(event.data)
        if event.name == "error" or told.get("error") or told.get("object") == "error":
            raise error_in(told)
        yield from self._chunk(told)
        self.done = self._reason is not None and (self._usage is not None or event.name == "whole")

    def end(self) -> Iterator[Event]:
        """The last event, if the answer is complete."""
        if self._reason is not None:
            reason = "tool_calls" if self._calls and self._reason == "stop" else self._reason
            yield Finished(reason, self._usage or Usage())

    def _chunk(self, told: Mapping[str, Json]) -> Iterator[Event]:
        if not self._started:
            self._started = True
            mark = str(
                told.get("system_fingerprint") or ""
            )  # our own server tells the hash of the model's files
            content_hash = mark if re.fullmatch(r"[0-9a-f]{40,64}", mark) else None
            yield Started(whole_text(str(told.get("model") or self._name)), content_hash)
        if isinstance(told.get("usage"), Mapping):
            self._usage = usage_in(told["usage"])
        for choice in told.get("choices") or ():
            if choice.get("index", 0) == 0:
                yield from self._choice(choice)

    def _choice(self, choice: Mapping[str, Json]) -> Iterator[Event]:
        delta = choice.get("delta") or choice.get("message") or {}
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str) and thought:
            yield ReasoningPiece(thought)
        yield from self._content(choice, delta)
        calls = delta.get("tool_calls") or ()
        for place, call in enumerate(calls):
            yield self._call(call, place, whole="message" in choice)
        if isinstance(delta.get("function_call"), Mapping):
            yield self._call({"index": 0, "function": delta["function_call"]}, 0, whole=False)
        reason = choice.get("finish_reason")
        if reason == "error":
            raise error_in(choice if choice.get("error") else {"error": "the model broke off"})
        if reason:
            self._reason = _REASONS.get(reason, "stop")

    def _content(self, choice: Mapping[str, Json], delta: Mapping[str, Json]) -> Iterator[Event]:
        """Text and its tokens; some servers send a list of parts, thoughts among them."""
        content = delta.get("content", choice.get("text"))
        text = (content or "") if not isinstance(content, list) else ""
        for part in content if isinstance(content, list) else ():
            if part.get("type") == "thinking":
                yield ReasoningPiece(said_in(part.get("thinking")) or "".join(_texts(part.get("thinking"))))
            else:
                text += part.get("text") or ""
        text += delta.get("refusal") or ""
        tokens = tokens_in(choice.get("logprobs"))
        if text or tokens:
            yield TextPiece(text, tokens)

    def _call(self, call: Mapping[str, Json], place: int, *, whole: bool) -> ToolCallPiece:
        function = call.get("function") or {}
        arguments = function.get("arguments")
        arguments = "" if arguments is None else arguments
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        index = self._index(call, place, function, whole=whole)
        return ToolCallPiece(index, call.get("id") or "", function.get("name") or "", arguments)

    def _index(
        self, call: Mapping[str, Json], place: int, function: Mapping[str, Json], *, whole: bool
    ) -> int:
        """Which tool call a piece belongs to; without a number, one with a name begins a new one."""
        given = call.get("index")
        if isinstance(given, int):
            name = f"number {given}"
        elif whole:
            name = f"place {place}"
        elif function.get("name"):
            name = f"new {call.get('id') or len(self._calls)}"
        else:
            name = next(reversed(self._calls), "new 0")
        return self._calls.setdefault(name, len(self._calls))


def parsed(data: str) -> dict[str, Any]:
    """The JSON object in an event."""
    try:
        told = json.loads(data)
    except ValueError as error:
        raise CallError(f"the stream holds what is no JSON ({error}): {data[:100]!r}", retry=True) from error
    if not isinstance(told, dict):
        raise CallError(f"the stream holds {type(told).__name__} where an object belongs: {data[:100]!r}")
    return told


def error_in(told: Mapping[str, Json]) -> MindsetError:
    """The error that a server tells in the middle of a stream."""
    inner = told.get("error", told)
    kinds = [str(inner.get(name) or "") for name in ("type", "code")] if isinstance(inner, Mapping) else []
    retry = any(word in kind for kind in kinds for word in PASSING) or any(
        kind == "429" or (len(kind) == 3 and kind.startswith("5")) for kind in kinds
    )
    return CallError(whole_text(said_in(told)) or "the server broke off and gave no reason", retry=retry)


def usage_in(told: Mapping[str, Json]) -> Usage:
    """What was read and written."""
    read = told.get("prompt_tokens_details") or {}
    written = told.get("completion_tokens_details") or {}
    return Usage(
        told.get("prompt_tokens") or 0,
        told.get("completion_tokens") or 0,
        read.get("cached_tokens") or told.get("prompt_cache_hit_tokens") or 0,
        written.get("reasoning_tokens") or 0,
    )


def tokens_in(told: Json) -> tuple[Token, ...]:
    """Tokens with their log-probabilities, in the newer or the older shape."""
    if not isinstance(told, Mapping):
        return ()
    if isinstance(told.get("content"), Sequence):
        return tuple(token_in(one) for one in told["content"])
    texts, logprobs = told.get("tokens") or (), told.get("token_logprobs") or ()
    alternatives = told.get("top_logprobs") or [{}] * len(texts)
    return tuple(
        Token(
            whole_text(text),
            _finite(logprob),
            None,
            tuple(
                Alternative(whole_text(other), _finite(value) or 0.0) for other, value in (some or {}).items()
            ),
        )
        for text, logprob, some in zip(texts, logprobs, alternatives, strict=False)
    )


def token_in(told: Mapping[str, Json]) -> Token:
    """One token in the newer shape; `id` and `reads` are our own server's."""
    others = tuple(
        Alternative(whole_text(one["token"]), _finite(one["logprob"]) or 0.0, one.get("id"))
        for one in told.get("top_logprobs") or ()
    )
    reads = tuple(
        Read(one["layer"], one["slot"], one["influence"], one.get("overlay"))
        for one in told.get("reads") or ()
    )
    return Token(whole_text(told["token"]), _finite(told.get("logprob")), told.get("id"), others, reads)


def _finite(number: float | None) -> float | None:
    """A logarithm that JSON can say: of nothing, servers say -inf, NaN, or a large number as OpenAI does."""
    if number is None:
        return None
    return float(number) if math.isfinite(number) else LEAST


def _texts(parts: Json) -> Iterator[str]:
    for part in parts if isinstance(parts, list) else ():
        yield part.get("text") or ""
