"""POST /v1/responses: OpenAI's newer shape of a dialog answered: text, tools, streams.

Nothing is kept here between requests, so a request brings its whole dialog along.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from mindset.calls.call import Usage
from mindset.calls.canonical import Json
from mindset.llm.events import Finished
from mindset.llm.messages import Message, Part, Reasoning, Role, Text, ToolCall, ToolResult
from mindset.llm.request import Options, Request, ToolSpec
from mindset.llm.serve.answering import events_of, new_id
from mindset.llm.serve.asked_messages import image
from mindset.llm.serve.asked_options import ObjectFormat
from mindset.llm.serve.endpoint import Asked, Endpoint
from mindset.llm.serve.errors import RefusedError
from mindset.llm.serve.limits import Limits
from mindset.llm.serve.response_body import (
    FlatChoice,
    FlatSchema,
    InputCall,
    InputReasoning,
    InputResult,
    InputText,
    ResponseBody,
    TextFormat,
)
from mindset.llm.serve.response_items import Items
from mindset.llm.serve.sse import Events, Reply, event, json_reply

__all__ = ["RESPONSES"]

_ENDS = {"length": "max_output_tokens", "content_filter": "content_filter"}


async def respond(asked: Asked) -> Reply | Events:
    """Answer a dialog."""
    body: ResponseBody = asked.body
    request = _request(body, asked.desk.limits)
    if body.stream:
        return Events(_written(asked, request))
    async with aclosing(_told(asked, request)) as told:  # type: ignore[type-var]
        events = [one async for one in told]
    return json_reply(events[-1]["response"])


async def _written(asked: Asked, request: Request) -> AsyncIterator[bytes]:
    number = 0
    async with aclosing(_told(asked, request)) as told:  # type: ignore[type-var]
        async for one in told:
            yield event(one | {"sequence_number": number}, one["type"])
            number += 1


async def _told(asked: Asked, request: Request) -> AsyncIterator[dict[str, Json]]:
    """The events of the stream; the last one has the whole response."""
    items, common = Items(), _common(asked)
    begun = False
    async with aclosing(events_of(asked, request)) as events:  # type: ignore[type-var]
        async for one in events:
            if not begun:
                begun = True
                for word in ("created", "in_progress"):
                    yield {"type": f"response.{word}", "response": common | {"status": "in_progress"}}
            for told in items.add(one):
                yield told
            if isinstance(one, Finished):
                status = "incomplete" if one.reason in _ENDS else "completed"
                for told in items.end(status):
                    yield told
                whole = common | {"status": status, "output": items.told, "usage": _usage(one.usage)}
                if status == "incomplete":
                    whole["incomplete_details"] = {"reason": _ENDS[one.reason]}
                yield {"type": f"response.{status}", "response": whole}


def _common(asked: Asked) -> dict[str, Json]:
    body: ResponseBody = asked.body
    choice = body.tool_choice
    return {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": int(asked.at),
        "model": body.model or asked.desk.names[0],
        "output": [],
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": False,
        "tool_choice": choice.model_dump() if isinstance(choice, FlatChoice) else choice or "auto",
        "tools": [tool.model_dump() | {"strict": None} for tool in body.tools or ()],
        "metadata": {},
        "usage": None,
    }


def _usage(usage: Usage) -> dict[str, Json]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _request(body: ResponseBody, limits: Limits) -> Request:
    if body.previous_response_id is not None:
        raise RefusedError(
            400, "nothing is kept here between requests: send the whole dialog", param="previous_response_id"
        )
    if body.background:
        raise RefusedError(400, "nothing is answered in the background here", param="background")
    items = body.input if isinstance(body.input, list) else []
    for what, many, most in (("input", items, limits.messages), ("tools", body.tools or (), limits.tools)):
        if len(many) > most:
            raise RefusedError(413, f"{len(many):,} of {what} in one request; at most {most:,}", param=what)
    tools = tuple(
        ToolSpec(one.name, one.description or "", one.parameters or {"type": "object", "properties": {}})
        for one in body.tools or ()
    )
    return Request(_messages(body, limits), options=_options(body), tools=tools, tool_choice=_choice(body))


def _choice(body: ResponseBody) -> str | None:
    choice, names = body.tool_choice, {tool.name for tool in body.tools or ()}
    if isinstance(choice, FlatChoice) and choice.name not in names:
        raise RefusedError(
            400, f"tool_choice names {choice.name!r}, which is not among the tools", param="tool_choice"
        )
    if choice == "required" and not names:
        raise RefusedError(400, "tool_choice is required, and there are no tools", param="tool_choice")
    if not names:
        return None
    return choice.name if isinstance(choice, FlatChoice) else choice


def _options(body: ResponseBody) -> Options:
    wanted = "message.output_text.logprobs" in (body.include or ()) or body.top_logprobs is not None
    return Options(
        max_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        seed=body.seed,
        logprobs=(body.top_logprobs or 0) if wanted else None,
        schema=_schema(body.text),
    )


def _schema(text: TextFormat | None) -> dict[str, Json] | None:
    asked = None if text is None else text.format
    if isinstance(asked, FlatSchema):
        return asked.schema_
    return {"type": "object"} if isinstance(asked, ObjectFormat) else None


def _messages(body: ResponseBody, limits: Limits) -> tuple[Message, ...]:
    said = [Message("system", (Text(body.instructions),))] if body.instructions else []
    if isinstance(body.input, str):
        return (*said, Message("user", (Text(body.input),)))
    for place, item in enumerate(body.input):
        one = _message(item, limits, f"input.{place}")
        if one.role == "assistant" and said and said[-1].role == "assistant":
            said[-1] = Message("assistant", said[-1].parts + one.parts)
        else:
            said.append(one)
    return tuple(said)


def _message(item: Any, limits: Limits, param: str) -> Message:
    if isinstance(item, InputCall):
        return Message("assistant", (ToolCall(item.call_id, item.name, item.arguments),))
    if isinstance(item, InputResult):
        output = item.output if isinstance(item.output, str) else "".join(part.text for part in item.output)
        return Message("tool", (ToolResult(item.call_id, output),))
    if isinstance(item, InputReasoning):
        return Message("assistant", (Reasoning("".join(part.text for part in item.content or ())),))
    parts: tuple[Part, ...]
    if isinstance(item.content, str):
        parts = (Text(item.content),)
    else:
        parts = tuple(
            Text(part.text)
            if isinstance(part, InputText)
            else image(part.image_url, limits, f"{param}.content.{place}")
            for place, part in enumerate(item.content)
        )
    role: Role = "system" if item.role == "developer" else item.role
    return Message(role, parts or (Text(""),))


RESPONSES = Endpoint(
    "POST",
    "/v1/responses",
    "Answer a dialog, in the shape of responses.",
    respond,
    body=ResponseBody,
    streams=True,
)
