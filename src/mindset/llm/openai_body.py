"""A request as OpenAI's chat completions and completions are asked: JSON. Knows no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from mindset.calls.canonical import Json
from mindset.errors import UsageError
from mindset.llm.messages import Image, Message, Text, ToolCall, ToolResult
from mindset.llm.request import Options, Request, ToolSpec

__all__ = ["chat_body", "completion_body", "fits_strict", "image_url", "schema_format"]


def chat_body(request: Request, name: str, *, stream: bool, official: bool) -> dict[str, Json]:
    """What /chat/completions is asked. `official`: OpenAI itself, whose newer models know `max_tokens` no longer."""
    options = request.options
    body: dict[str, Json] = {
        "model": name,
        "messages": [one for message in request.messages for one in _messages(message)],
        **_streaming(stream),
        **_sampling(options),
    }
    if options.max_tokens is not None:
        body["max_completion_tokens" if official else "max_tokens"] = options.max_tokens
    if options.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": options.logprobs}
    if request.tools:
        body["tools"] = [{"type": "function", "function": _function(tool)} for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = _choice(request.tool_choice)
    return body | dict(options.extra)


def completion_body(request: Request, name: str, *, stream: bool) -> dict[str, Json]:
    """What /completions is asked."""
    options = request.options
    if request.tools:
        raise UsageError("a raw prompt knows no tools: give messages")
    body: dict[str, Json] = {
        "model": name,
        "prompt": request.prompt,
        **_streaming(stream),
        **_sampling(options),
    }
    if options.max_tokens is not None:
        body["max_tokens"] = options.max_tokens
    if options.logprobs is not None:
        body["logprobs"] = options.logprobs
    return body | dict(options.extra)


def schema_format(schema: Mapping[str, Json]) -> dict[str, Json]:
    """A JSON schema with what OpenAI wants around it; held to the letter wherever it allows that."""
    return {"name": "answer", "schema": dict(schema), "strict": fits_strict(schema)}


def fits_strict(schema: Json) -> bool:
    """Whether every object in a schema is closed and needs all its fields: only then can it be held to the letter."""
    if isinstance(schema, list):
        return all(fits_strict(item) for item in schema)
    if not isinstance(schema, Mapping):
        return True
    named = schema.get("properties")
    if schema.get("type") == "object" or named is not None:
        closed = schema.get("additionalProperties") is False
        if not closed or set(named or ()) != set(schema.get("required", ())):
            return False
    below = [
        value
        for name, value in schema.items()
        if name not in ("enum", "const", "default", "examples", "properties")
    ]
    return fits_strict(below + list((named or {}).values()))


def image_url(image: Image) -> str:
    """An address that holds the picture, or leads to it."""
    if image.url is not None:
        return image.url
    return f"data:{image.media_type};base64,{base64.b64encode(image.data or b'').decode()}"


def _streaming(stream: bool) -> dict[str, Json]:
    return {"stream": True, "stream_options": {"include_usage": True}} if stream else {}


def _sampling(options: Options) -> dict[str, Json]:
    """The options that both ways share; `top_k`, `regex` and `reads` are known to some servers only."""
    names = ("temperature", "top_p", "top_k", "seed", "regex", "reads")
    told: dict[str, Json] = {name: value for name in names if (value := getattr(options, name)) is not None}
    if options.stop:
        told["stop"] = list(options.stop)
    if options.schema is not None:
        told["response_format"] = {"type": "json_schema", "json_schema": schema_format(options.schema)}
    return told


def _function(tool: ToolSpec) -> dict[str, Json]:
    return {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}


def _choice(choice: str) -> Json:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _messages(message: Message) -> list[dict[str, Json]]:
    """One of ours as theirs: every tool result is a message of its own there."""
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    told: list[dict[str, Json]] = [
        {"role": "tool", "tool_call_id": result.call_id, "content": result.content} for result in results
    ]
    if len(results) < len(message.parts) or not results:
        told.append(_message(message))
    return told


def _message(message: Message) -> dict[str, Json]:
    content: Any = message.text
    if any(isinstance(part, Image) for part in message.parts):
        content = [_part(part) for part in message.parts if isinstance(part, Text | Image)]
    calls = [_call(part) for part in message.parts if isinstance(part, ToolCall)]
    if not calls:
        return {"role": message.role, "content": content}
    return {"role": message.role, "content": content or None, "tool_calls": calls}


def _part(part: Text | Image) -> dict[str, Json]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": image_url(part)}}


def _call(call: ToolCall) -> dict[str, Json]:
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    return {"id": call.id, "type": "function", "function": function}
