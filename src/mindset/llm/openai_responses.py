"""OpenAI's newer way to be asked, /responses: what is sent, and its events as ours. Knows no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mindset.calls.call import Usage
from mindset.calls.canonical import Json
from mindset.errors import CallError, UnsupportedRequestError
from mindset.llm.events import (
    Event,
    Finished,
    FinishReason,
    ReasoningPiece,
    Started,
    TextPiece,
    ToolCallPiece,
)
from mindset.llm.messages import Image, Message, Reasoning, Text, ToolCall, ToolResult
from mindset.llm.openai_body import image_url, schema_format
from mindset.llm.openai_chunks import error_in, parsed, token_in
from mindset.llm.request import Request
from mindset.llm.sse import ServerEvent

__all__ = ["ResponseEvents", "response_body"]

_NOT_HERE = ("stop", "seed", "top_k", "regex", "reads")


def response_body(request: Request, name: str, *, stream: bool) -> dict[str, Json]:
    """What /responses is asked. The server keeps nothing; a model's encrypted thoughts travel with the dialog."""
    options = request.options
    wrong = [word for word in _NOT_HERE if getattr(options, word) not in (None, ())]
    if wrong:
        raise UnsupportedRequestError(
            f"/responses knows no {', '.join(wrong)}: leave it out, or use api='chat'"
        )
    body: dict[str, Json] = {
        "model": name,
        "input": [item for message in request.messages for item in _items(message)],
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    if stream:
        body["stream"] = True
    for ours, theirs in (
        ("max_tokens", "max_output_tokens"),
        ("temperature", "temperature"),
        ("top_p", "top_p"),
    ):
        if getattr(options, ours) is not None:
            body[theirs] = getattr(options, ours)
    if options.logprobs is not None:
        body["top_logprobs"] = options.logprobs
        body["include"] = [*body["include"], "message.output_text.logprobs"]
    if options.schema is not None:
        body["text"] = {"format": {"type": "json_schema", **schema_format(options.schema)}}
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
                "strict": False,
            }
            for tool in request.tools
        ]
    if request.tool_choice is not None:
        plain = request.tool_choice in ("auto", "none", "required")
        body["tool_choice"] = (
            request.tool_choice if plain else {"type": "function", "name": request.tool_choice}
        )
    return body | dict(options.extra)


class ResponseEvents:
    """Events of one response on their way to ours."""

    def __init__(self, name: str) -> None:
        """`name` stands for the model where it does not say what it is called."""
        self._name = name
        self._started = False
        self._calls: dict[int, int] = {}
        self._finished: Finished | None = None

    @property
    def done(self) -> bool:
        """Whether the answer is complete."""
        return self._finished is not None

    def take(self, event: ServerEvent) -> Iterator[Event]:
        """The events in one event of the server."""
        told = parsed(event.data)
        if event.name == "whole":
            yield from self._whole(told)
            return
        kind = str(told.get("type") or event.name)
        if kind == "error" or told.get("error"):
            raise error_in(told if "error" in told else {"error": told})
        if not self._started:
            self._started = True
            yield Started(str((told.get("response") or {}).get("model") or self._name))
        yield from self._one(kind, told)

    def end(self) -> Iterator[Event]:
        """The last event, if the answer is complete."""
        if self._finished is not None:
            yield self._finished

    def _one(self, kind: str, told: Mapping[str, Json]) -> Iterator[Event]:
        if kind in ("response.output_text.delta", "response.refusal.delta"):
            tokens = tuple(token_in(one) for one in told.get("logprobs") or ())
            yield TextPiece(told["delta"], tokens)
        elif kind in ("response.reasoning_text.delta", "response.reasoning_summary_text.delta"):
            yield ReasoningPiece(told["delta"])
        elif kind == "response.output_item.added" and told["item"]["type"] == "function_call":
            item = told["item"]
            yield ToolCallPiece(self._index(told["output_index"]), item["call_id"], item["name"])
        elif kind == "response.function_call_arguments.delta":
            yield ToolCallPiece(self._index(told["output_index"]), arguments=told["delta"])
        elif kind == "response.output_item.done" and told["item"]["type"] == "reasoning":
            if told["item"].get("encrypted_content"):
                yield ReasoningPiece("", _signature(told["item"]))
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            self._end(told["response"])

    def _end(self, response: Mapping[str, Any]) -> None:
        if response.get("error") or response.get("status") in ("failed", "cancelled"):
            raise error_in({"error": response.get("error") or f"the response is {response.get('status')}"})
        reason: FinishReason = "tool_calls" if self._calls else "stop"
        if response.get("status") == "incomplete":
            why = (response.get("incomplete_details") or {}).get("reason")
            reason = "content_filter" if why == "content_filter" else "length"
        self._finished = Finished(reason, _usage(response.get("usage") or {}))

    def _whole(self, response: Mapping[str, Any]) -> Iterator[Event]:
        """A response that came in one piece."""
        if "output" not in response and not response.get("error"):
            raise CallError("the server answered with something that is no response")
        yield Started(str(response.get("model") or self._name))
        for place, item in enumerate(response.get("output") or ()):
            if item["type"] == "message":
                for part in item["content"]:
                    tokens = tuple(token_in(one) for one in part.get("logprobs") or ())
                    yield TextPiece(part.get("text") or part.get("refusal") or "", tokens)
            elif item["type"] == "function_call":
                yield ToolCallPiece(self._index(place), item["call_id"], item["name"], item["arguments"])
            elif item["type"] == "reasoning":
                thoughts = [*(item.get("summary") or ()), *(item.get("content") or ())]
                text = "\n".join(part["text"] for part in thoughts)
                yield ReasoningPiece(text, _signature(item) if item.get("encrypted_content") else None)
        self._end(response)

    def _index(self, place: int) -> int:
        return self._calls.setdefault(place, len(self._calls))


def _usage(told: Mapping[str, Any]) -> Usage:
    return Usage(
        told.get("input_tokens") or 0,
        told.get("output_tokens") or 0,
        (told.get("input_tokens_details") or {}).get("cached_tokens") or 0,
        (told.get("output_tokens_details") or {}).get("reasoning_tokens") or 0,
    )


def _signature(item: Mapping[str, Any]) -> str:
    """What has to be sent again with a thought: its id and its encrypted content."""
    return f"{item.get('id') or ''} {item['encrypted_content']}"


def _items(message: Message) -> Iterator[dict[str, Json]]:
    """One of our messages as the items that /responses takes."""
    said: list[dict[str, Json]] = []
    kind = "output_text" if message.role == "assistant" else "input_text"
    for part in message.parts:
        if isinstance(part, Text):
            said.append({"type": kind, "text": part.text})
        elif isinstance(part, Image):
            said.append({"type": "input_image", "image_url": image_url(part)})
        elif isinstance(part, Reasoning) and part.signature and " " in part.signature:
            identity, _, content = part.signature.partition(" ")
            thoughts = [{"type": "summary_text", "text": part.text}] if part.text else []
            yield {"type": "reasoning", "id": identity, "summary": thoughts, "encrypted_content": content}
    if said:
        yield {"role": message.role, "content": said}
    for part in message.parts:
        if isinstance(part, ToolCall):
            yield {
                "type": "function_call",
                "call_id": part.id,
                "name": part.name,
                "arguments": part.arguments or "{}",
            }
        elif isinstance(part, ToolResult):
            yield {"type": "function_call_output", "call_id": part.call_id, "output": part.content}
