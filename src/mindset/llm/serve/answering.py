"""A model's answer to one request, watched: started, counted, and told apart from one that failed.

What chat, raw completions and responses have in common; knows none of their shapes.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from mindset.calls.call import Usage
from mindset.calls.canonical import Json
from mindset.errors import CallError
from mindset.llm.events import Answer, Event, Finished, FinishReason, Retried, Started, Token, collect
from mindset.llm.request import Request
from mindset.llm.serve.desk import DrainingError
from mindset.llm.serve.endpoint import Asked

__all__ = ["answered", "events_of", "finish_word", "finite", "head", "new_id", "tokens_told", "usage_told"]

_LEAST_LOGPROB = -9999.0
"""What stands for the logarithm of nothing, which JSON cannot say."""


async def events_of(asked: Asked, request: Request) -> AsyncIterator[Event]:
    """The events of an answer; one that ended in an error raises it.

    The beginning is held back until there is more: so a model that fails before its first word fails by its status.
    """
    desk, begun = asked.desk, time.monotonic()
    held: list[Event] = []
    said = False
    if request.options.seed is None and desk.seed is not None:
        request = replace(request, options=replace(request.options, seed=desk.seed))
    async with desk.client.complete(request, timeout=asked.timeout) as stream:
        async for event in stream:
            if not said and isinstance(event, Started | Retried):
                held.append(event)
                continue
            if isinstance(event, Finished):
                desk.metrics.used(event.usage)
                _check_end(event.reason)
            if not said:
                said = True
                desk.metrics.first_piece(asked.way, time.monotonic() - begun)
                for one in held:
                    yield one
            yield event


async def answered(asked: Asked, request: Request) -> Answer:
    """The whole answer."""
    async with aclosing(events_of(asked, request)) as events:  # type: ignore[type-var]
        return collect([event async for event in events])


def head(asked: Asked, kind: str, identity: str, started: Started | None) -> dict[str, Json]:
    """What every reply of OpenAI's begins with."""
    told: dict[str, Json] = {
        "id": identity,
        "object": kind,
        "created": int(asked.at),
        "model": getattr(asked.body, "model", None) or asked.desk.names[0],
    }
    if started is not None and started.content_hash:
        told["system_fingerprint"] = started.content_hash
    return told


def new_id(prefix: str) -> str:
    """A name that nothing else has."""
    return f"{prefix}{uuid.uuid4().hex}"


def finish_word(reason: FinishReason) -> str:
    """Why an answer ended, in OpenAI's words."""
    return reason if reason in ("length", "tool_calls", "content_filter") else "stop"


def usage_told(usage: Usage) -> dict[str, Json]:
    """What was read and written, as chat and raw completions say it."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def tokens_told(tokens: tuple[Token, ...]) -> list[Json]:
    """Tokens with their probabilities, and their reads where they were asked for."""
    return [_token(one) for one in tokens]


def _token(token: Token) -> dict[str, Json]:
    told: dict[str, Json] = {
        **_spelled(token.text, token.logprob, token.id),
        "top_logprobs": [_spelled(one.text, one.logprob, one.id) for one in token.alternatives],
    }
    if token.reads:
        told["reads"] = [
            {"layer": one.layer, "slot": one.slot, "influence": finite(one.influence), "overlay": one.overlay}
            for one in token.reads
        ]
    return told


def _spelled(text: str, logprob: float | None, number: int | None) -> dict[str, Json]:
    told: dict[str, Json] = {
        "token": text,
        "logprob": None if logprob is None else finite(logprob),
        "bytes": list(text.encode("utf-8", "surrogatepass")),
    }
    if number is not None:
        told["id"] = number
    return told


def finite(number: float) -> float:
    """A number that JSON can say."""
    if number - number == 0:
        return float(number)
    return _LEAST_LOGPROB if not number > 0 else -_LEAST_LOGPROB


def _check_end(reason: FinishReason) -> None:
    if reason == "error":
        raise CallError("the model broke off its answer")
    if reason == "cancelled":
        raise DrainingError
