"""POST /v1/completions: raw text continued, at once or in pieces, in OpenAI's shapes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from pydantic import Field

from mindset.calls.canonical import Json
from mindset.llm.events import Answer, Finished, Started, TextPiece, Token
from mindset.llm.request import Request
from mindset.llm.serve.answering import (
    answered,
    events_of,
    finish_word,
    finite,
    head,
    new_id,
    tokens_told,
    usage_told,
)
from mindset.llm.serve.asked_options import MOST_ALTERNATIVES, Sampling, options_of
from mindset.llm.serve.endpoint import Asked, Endpoint
from mindset.llm.serve.errors import RefusedError
from mindset.llm.serve.sse import DONE, Events, Reply, event, json_reply

__all__ = ["COMPLETIONS", "CompletionBody"]


class CompletionBody(Sampling):
    """A text to continue."""

    prompt: str | Annotated[list[str], Field(min_length=1)]
    """One text; a list has one in it."""
    echo: bool | None = None
    """Whether the answer begins with the prompt."""
    logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    best_of: Annotated[int, Field(ge=1, le=128)] | None = None
    suffix: str | None = None


async def complete(asked: Asked) -> Reply | Events:
    """Continue a text."""
    body: CompletionBody = asked.body
    request = _request(body)
    if body.stream:
        usage = body.stream_options is not None and body.stream_options.include_usage is True
        return Events(_pieces(asked, request, usage=usage))
    return json_reply(_whole(asked, request, await answered(asked, request)))


def _request(body: CompletionBody) -> Request:
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    if len(prompts) != 1:
        raise RefusedError(
            400, f"{len(prompts)} prompts: one request continues one; ask for each", param="prompt"
        )
    if body.best_of not in (None, 1):
        raise RefusedError(400, "best_of: one request has one answer here", param="best_of")
    if body.suffix:
        raise RefusedError(400, "suffix: text is only continued here, not filled in", param="suffix")
    if body.echo and body.logprobs is not None:
        raise RefusedError(
            400, "echo with logprobs: ask /v1/forward for the logits of a prompt", param="echo"
        )
    return Request(
        prompt=prompts[0],
        options=options_of(body, max_tokens=body.max_tokens, logprobs=body.logprobs),
    )


def _whole(asked: Asked, request: Request, answer: Answer) -> dict[str, Json]:
    text = ((request.prompt or "") if asked.body.echo else "") + answer.text
    return head(asked, "text_completion", new_id("cmpl-"), Started(answer.model, answer.content_hash)) | {
        "choices": [_choice(text, answer.tokens, finish_word(answer.finish_reason))],
        "usage": usage_told(answer.usage),
    }


async def _pieces(asked: Asked, request: Request, *, usage: bool) -> AsyncIterator[bytes]:
    """The events of a stream."""
    common = head(asked, "text_completion", new_id("cmpl-"), None)
    more: dict[str, Json] = {"usage": None} if usage else {}
    at = 0
    async with aclosing(events_of(asked, request)) as events:  # type: ignore[type-var]
        async for one in events:
            if isinstance(one, Started):
                if one.content_hash:
                    common["system_fingerprint"] = one.content_hash
                text = (request.prompt or "") if asked.body.echo else ""
                yield event(common | {"choices": [_choice(text, (), None)]} | more)
            elif isinstance(one, TextPiece):
                yield event(common | {"choices": [_choice(one.text, one.tokens, None, at)]} | more)
                at += len(one.text)
            elif isinstance(one, Finished):
                yield event(common | {"choices": [_choice("", (), finish_word(one.reason))]} | more)
                if usage:
                    yield event(common | {"choices": [], "usage": usage_told(one.usage)})
    yield DONE


def _choice(text: str, tokens: tuple[Token, ...], end: str | None, at: int = 0) -> dict[str, Json]:
    return {"index": 0, "text": text, "logprobs": _logprobs(tokens, at), "finish_reason": end}


def _logprobs(tokens: tuple[Token, ...], at: int) -> dict[str, Json] | None:
    """OpenAI's older shape; `content` is the newer one's, which says bytes and reads too."""
    if not tokens:
        return None
    offsets = []
    for token in tokens:
        offsets.append(at)
        at += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [None if token.logprob is None else finite(token.logprob) for token in tokens],
        "top_logprobs": [{one.text: finite(one.logprob) for one in token.alternatives} for token in tokens],
        "text_offset": offsets,
        "content": tokens_told(tokens),
    }


COMPLETIONS = Endpoint(
    "POST",
    "/v1/completions",
    "Continue a text.",
    complete,
    body=CompletionBody,
    streams=True,
)
