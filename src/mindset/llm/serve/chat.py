"""POST /v1/chat/completions: a dialog answered, at once or in pieces, in OpenAI's shapes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from pydantic import Field

from mindset.calls.canonical import Json
from mindset.llm.events import (
    Answer,
    Event,
    Finished,
    ReasoningPiece,
    Started,
    TextPiece,
    Token,
    ToolCallPiece,
)
from mindset.llm.messages import Reasoning
from mindset.llm.request import Request
from mindset.llm.serve.answering import (
    answered,
    events_of,
    finish_word,
    head,
    new_id,
    tokens_told,
    usage_told,
)
from mindset.llm.serve.asked_messages import (
    AskedMessage,
    AskedTool,
    ToolChoice,
    messages_of,
    tool_choice_of,
    tools_of,
)
from mindset.llm.serve.asked_options import MOST_ALTERNATIVES, Count, Sampling, options_of
from mindset.llm.serve.endpoint import Asked, Endpoint
from mindset.llm.serve.errors import RefusedError
from mindset.llm.serve.limits import Limits
from mindset.llm.serve.sse import DONE, Events, Reply, event, json_reply

__all__ = ["CHAT", "ChatBody"]


class ChatBody(Sampling):
    """A dialog to answer."""

    messages: Annotated[list[AskedMessage], Field(min_length=1)]
    max_completion_tokens: Count | None = None
    """The same as max_tokens, and before it."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    tools: list[AskedTool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    """Not looked at."""


async def chat(asked: Asked) -> Reply | Events:
    """Answer a dialog."""
    body: ChatBody = asked.body
    request = _request(body, asked.desk.limits)
    if body.stream:
        usage = body.stream_options is not None and body.stream_options.include_usage is True
        return Events(_pieces(asked, request, usage=usage))
    return json_reply(_whole(asked, await answered(asked, request)))


def _request(body: ChatBody, limits: Limits) -> Request:
    for what, many, most in (
        ("messages", body.messages, limits.messages),
        ("tools", body.tools or (), limits.tools),
    ):
        if len(many) > most:
            raise RefusedError(413, f"{len(many):,} {what} in one request; at most {most:,}", param=what)
    if body.top_logprobs is not None and not body.logprobs:
        raise RefusedError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    tools = tools_of(body.tools)
    options = options_of(
        body,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    return Request(
        messages_of(body.messages, limits),
        options=options,
        tools=tools,
        tool_choice=tool_choice_of(body.tool_choice, tools),
    )


def _whole(asked: Asked, answer: Answer) -> dict[str, Json]:
    message: dict[str, Json] = {"role": "assistant", "content": answer.text or None, "refusal": None}
    thoughts = "".join(part.text for part in answer.message.parts if isinstance(part, Reasoning))
    if thoughts:
        message["reasoning_content"] = thoughts
    if calls := answer.message.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id or new_id("call_"),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in calls
        ]
    else:
        message["content"] = answer.text
    choice = {
        "index": 0,
        "message": message,
        "logprobs": _logprobs(answer.tokens),
        "finish_reason": finish_word(answer.finish_reason),
    }
    started = Started(answer.model, answer.content_hash)
    return head(asked, "chat.completion", new_id("chatcmpl-"), started) | {
        "choices": [choice],
        "usage": usage_told(answer.usage),
    }


async def _pieces(asked: Asked, request: Request, *, usage: bool) -> AsyncIterator[bytes]:
    """The events of a stream."""
    common = head(asked, "chat.completion.chunk", new_id("chatcmpl-"), None)
    named: dict[int, bool] = {}
    first = True
    async with aclosing(events_of(asked, request)) as events:  # type: ignore[type-var]
        async for one in events:
            if isinstance(one, Started) and one.content_hash:
                common["system_fingerprint"] = one.content_hash
            if first and not isinstance(one, Finished):
                first = False
                yield _chunk(common, {"role": "assistant", "content": ""}, usage=usage)
            delta = _delta(one, named)
            if delta is not None:
                tokens = one.tokens if isinstance(one, TextPiece) else ()
                yield _chunk(common, delta, usage=usage, tokens=tokens)
            if isinstance(one, Finished):
                yield _chunk(common, {}, usage=usage, end=finish_word(one.reason))
                if usage:
                    yield event(common | {"choices": [], "usage": usage_told(one.usage)})
    yield DONE


def _delta(one: Event, named: dict[int, bool]) -> dict[str, Json] | None:
    """What an event adds to the message; None: nothing. `named`: the tool calls begun, and whether by name."""
    if isinstance(one, TextPiece):
        return {"content": one.text}
    if isinstance(one, ReasoningPiece):
        return {"reasoning_content": one.text}
    if not isinstance(one, ToolCallPiece):
        return None
    call: dict[str, Json] = {"index": one.index, "function": {"arguments": one.arguments}}
    if one.index not in named:
        named[one.index] = False
        call |= {"id": one.id or new_id("call_"), "type": "function"}
    if one.name and not named[one.index]:
        named[one.index] = True
        call["function"]["name"] = one.name
    return {"tool_calls": [call]}


def _chunk(
    common: dict[str, Json],
    delta: dict[str, Json],
    *,
    usage: bool,
    end: str | None = None,
    tokens: tuple[Token, ...] = (),
) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": _logprobs(tokens), "finish_reason": end}
    return event(common | {"choices": [choice]} | ({"usage": None} if usage else {}))


def _logprobs(tokens: tuple[Token, ...]) -> dict[str, Json] | None:
    return {"content": tokens_told(tokens), "refusal": None} if tokens else None


CHAT = Endpoint(
    "POST",
    "/v1/chat/completions",
    "Answer a dialog.",
    chat,
    body=ChatBody,
    streams=True,
)
