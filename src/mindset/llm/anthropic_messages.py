"""A request as Anthropic's messages API is asked, and its events as ours. Knows no network."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

from mindset.calls.call import Usage
from mindset.calls.canonical import Json
from mindset.errors import DataError, OverloadedError
from mindset.llm.events import (
    Event,
    Finished,
    FinishReason,
    ReasoningPiece,
    Started,
    TextPiece,
    ToolCallPiece,
)
from mindset.llm.messages import Image, Message, Part, Reasoning, Text, ToolCall
from mindset.llm.openai_chunks import error_in, parsed
from mindset.llm.request import Request
from mindset.llm.sse import ServerEvent

__all__ = ["MessageEvents", "message_body"]

LONGEST_ANSWER = 4096
"""Tokens, where the request sets no limit: this API wants one."""
OVERLOADED_SECONDS = 5.0
"""To the next attempt after an overload that was told in the middle of a stream, where no header is left to say it."""
REDACTED = "redacted:"
"""Stands before a thought that only its provider can read."""
_REASONS: dict[str, FinishReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def message_body(request: Request, name: str, *, stream: bool) -> dict[str, Json]:
    """What /v1/messages is asked."""
    options = request.options
    body: dict[str, Json] = {
        "model": name,
        "max_tokens": options.max_tokens or LONGEST_ANSWER,
        "messages": _dialog(request.messages),
    }
    system = "\n\n".join(message.text for message in request.messages if message.role == "system")
    if system:
        body["system"] = system
    for word in ("temperature", "top_p", "top_k"):
        if getattr(options, word) is not None:
            body[word] = getattr(options, word)
    if options.stop:
        body["stop_sequences"] = list(options.stop)
    if options.schema is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": dict(options.schema)}}
    if request.tools:
        body["tools"] = [
            {"name": tool.name, "description": tool.description, "input_schema": dict(tool.parameters)}
            for tool in request.tools
        ]
    if request.tool_choice is not None:
        body["tool_choice"] = _choice(request.tool_choice)
    if stream:
        body["stream"] = True
    return body | dict(options.extra)


class MessageEvents:
    """Events of one message on their way to ours."""

    def __init__(self, name: str) -> None:
        """`name` stands for the model where it does not say what it is called."""
        self._name = name
        self._calls: dict[int, int] = {}
        self._usage: dict[str, int] = {}
        self._reason: FinishReason | None = None
        self.done = False
        """Whether the answer is complete."""

    def take(self, event: ServerEvent) -> Iterator[Event]:
        """The events in one event of the server."""
        told = parsed(event.data)
        kind = str(told.get("type") or event.name)
        if kind == "error":
            raise _failure(told)
        if kind == "message" or event.name == "whole":
            yield from self._whole(told)
        elif kind == "message_start":
            self._count(told["message"].get("usage"))
            yield Started(str(told["message"].get("model") or self._name))
        elif kind == "content_block_start":
            yield from self._block(told["index"], told["content_block"])
        elif kind == "content_block_delta":
            yield from self._delta(told["index"], told["delta"])
        elif kind == "message_delta":
            self._count(told.get("usage"))
            self._stop(told["delta"].get("stop_reason"))
        elif kind == "message_stop":
            self.done = True

    def end(self) -> Iterator[Event]:
        """The last event, if the answer is complete."""
        if self._reason is not None:
            yield Finished(self._reason, self._used())

    def _whole(self, message: Mapping[str, Any]) -> Iterator[Event]:
        """A message that came in one piece."""
        self._count(message.get("usage"))
        yield Started(str(message.get("model") or self._name))
        for place, block in enumerate(message["content"]):
            yield from self._block(place, block)
        self._stop(message["stop_reason"])
        self.done = True

    def _block(self, index: int, block: Mapping[str, Any]) -> Iterator[Event]:
        kind = block["type"]
        if kind == "text" and block.get("text"):
            yield TextPiece(block["text"])
        elif kind == "thinking" and (block.get("thinking") or block.get("signature")):
            yield ReasoningPiece(block.get("thinking") or "", block.get("signature") or None)
        elif kind == "redacted_thinking":
            yield ReasoningPiece("", REDACTED + block["data"])
        elif kind == "tool_use":
            self._calls[index] = len(self._calls)
            given = json.dumps(block["input"], ensure_ascii=False) if block.get("input") else ""
            yield ToolCallPiece(self._calls[index], block["id"], block["name"], given)

    def _delta(self, index: int, delta: Mapping[str, Any]) -> Iterator[Event]:
        kind = delta["type"]
        if kind == "text_delta":
            yield TextPiece(delta["text"])
        elif kind == "thinking_delta":
            yield ReasoningPiece(delta["thinking"])
        elif kind == "signature_delta":
            yield ReasoningPiece("", delta["signature"])
        elif kind == "input_json_delta" and delta["partial_json"]:
            yield ToolCallPiece(self._calls[index], arguments=delta["partial_json"])

    def _stop(self, reason: str | None) -> None:
        if reason is not None:
            self._reason = _REASONS.get(reason, "stop")

    def _count(self, told: Mapping[str, Any] | None) -> None:
        """Later counts replace earlier ones: they are of the whole message."""
        self._usage |= {name: count for name, count in (told or {}).items() if isinstance(count, int)}

    def _used(self) -> Usage:
        cached = self._usage.get("cache_read_input_tokens", 0)
        read = self._usage.get("input_tokens", 0) + self._usage.get("cache_creation_input_tokens", 0) + cached
        return Usage(read, self._usage.get("output_tokens", 0), cached)


def _failure(told: Mapping[str, Any]) -> Exception:
    error = error_in(told)
    if (told.get("error") or {}).get("type") == "overloaded_error":
        return OverloadedError(str(error), retry_after=OVERLOADED_SECONDS)
    return error


def _choice(choice: str) -> dict[str, Json]:
    plain = {"auto": "auto", "none": "none", "required": "any"}
    return {"type": plain[choice]} if choice in plain else {"type": "tool", "name": choice}


def _dialog(messages: tuple[Message, ...]) -> list[dict[str, Json]]:
    """Ours as theirs: tool results are the user's, and one side says everything in a row in one message."""
    dialog: list[dict[str, Json]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = [block for part in message.parts for block in _blocks(part)]
        if message.role == "system" or not blocks:
            continue
        if dialog and dialog[-1]["role"] == role:
            dialog[-1]["content"] += blocks
        else:
            dialog.append({"role": role, "content": blocks})
    return dialog


def _blocks(part: Part) -> Iterator[dict[str, Json]]:
    if isinstance(part, Text):
        if part.text:  # empty ones are refused
            yield {"type": "text", "text": part.text}
    elif isinstance(part, Image):
        yield {"type": "image", "source": _source(part)}
    elif isinstance(part, Reasoning):
        if (part.signature or "").startswith(REDACTED):
            yield {"type": "redacted_thinking", "data": (part.signature or "").removeprefix(REDACTED)}
        elif part.signature:  # without one it is refused
            yield {"type": "thinking", "thinking": part.text, "signature": part.signature}
    elif isinstance(part, ToolCall):
        yield {"type": "tool_use", "id": part.id, "name": part.name, "input": _input(part)}
    else:
        error = {"is_error": True} if part.is_error else {}
        yield {"type": "tool_result", "tool_use_id": part.call_id, "content": part.content, **error}


def _input(call: ToolCall) -> dict[str, Json]:
    try:
        return call.parsed()
    except DataError:  # the model wrote no JSON, and was told so: what it wrote stays visible to it
        return {"not_json": call.arguments}


def _source(image: Image) -> dict[str, Json]:
    if image.url is not None:
        return {"type": "url", "url": image.url}
    data = base64.b64encode(image.data or b"").decode()
    return {"type": "base64", "media_type": image.media_type, "data": data}
