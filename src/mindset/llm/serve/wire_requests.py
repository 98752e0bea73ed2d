"""Requests as messages of llm.proto, and back; what comes in is checked before it is believed.

Invariant: `read_request(request_message(request))` is `request`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast, get_args

from mindset.calls.canonical import Json
from mindset.errors import DataError, UsageError
from mindset.llm.messages import Image, Message, Part, Reasoning, Role, Text, ToolCall, ToolResult
from mindset.llm.request import ForwardRequest, Options, Request, ToolSpec
from mindset.llm.serve import llm_pb2 as pb
from mindset.llm.serve.limits import Limits

__all__ = ["forward_message", "read_forward_request", "read_request", "request_message", "texts_of"]

_NUMBERS = ("max_tokens", "temperature", "top_p", "top_k", "seed", "logprobs", "regex", "reads")


def request_message(request: Request, model: str = "") -> pb.CompleteRequest:
    """A request, to send."""
    with_prompt = {} if request.prompt is None else {"prompt": request.prompt}
    with_choice = {} if request.tool_choice is None else {"tool_choice": request.tool_choice}
    try:
        return pb.CompleteRequest(
            model=model,
            messages=[_message(one) for one in request.messages],
            options=_options(request.options),
            tools=[
                pb.Tool(name=one.name, description=one.description, parameters=_json(one.parameters))
                for one in request.tools
            ],
            **with_prompt,
            **with_choice,
        )
    except (ValueError, TypeError) as error:
        raise UsageError(f"this request cannot be sent: {error}") from error


def read_request(told: pb.CompleteRequest, limits: Limits) -> Request:
    """The request that came."""
    for what, count, most in (
        ("messages", len(told.messages), limits.messages),
        ("tools", len(told.tools), limits.tools),
    ):
        if count > most:
            raise UsageError(f"{count:,} {what} in one request; at most {most:,}")
    return Request(
        tuple(_read_message(one, limits) for one in told.messages),
        prompt=told.prompt if told.HasField("prompt") else None,
        options=_read_options(told.options, limits),
        tools=tuple(
            ToolSpec(one.name, one.description, _object(one.parameters, "a tool's parameters", limits))
            for one in told.tools
        ),
        tool_choice=told.tool_choice if told.HasField("tool_choice") else None,
    )


def forward_message(request: ForwardRequest, model: str = "") -> pb.ForwardRequest:
    """A pass, to ask for."""
    text: dict[str, Any] = (
        {"prompt": request.prompt} if request.ids is None else {"ids": pb.Ids(ids=request.ids)}
    )
    if request.reads is not None:
        text["reads"] = request.reads
    return pb.ForwardRequest(
        model=model,
        no_logits=not request.logits,
        hidden_states=request.hidden_states,
        attention=request.attention,
        last=request.last,
        **text,
    )


def read_forward_request(told: pb.ForwardRequest, limits: Limits) -> ForwardRequest:
    """The pass that was asked for."""
    kind = told.WhichOneof("text")
    if kind == "ids" and len(told.ids.ids) > limits.ids:
        raise UsageError(f"{len(told.ids.ids):,} tokens in one request; at most {limits.ids:,}")
    return ForwardRequest(
        prompt=told.prompt if kind == "prompt" else None,
        ids=tuple(told.ids.ids) if kind == "ids" else None,
        logits=not told.no_logits,
        hidden_states=told.hidden_states,
        attention=told.attention,
        reads=told.reads if told.HasField("reads") else None,
        last=told.last,
    )


def _message(message: Message) -> pb.Message:
    return pb.Message(role=message.role, parts=[_part(part) for part in message.parts])


def _part(part: Part) -> pb.Part:
    if isinstance(part, Text):
        return pb.Part(text=part.text)
    if isinstance(part, Reasoning):
        return pb.Part(reasoning=pb.Reasoning(text=part.text, signature=part.signature))
    if isinstance(part, Image):
        return pb.Part(image=pb.Image(media_type=part.media_type, data=part.data, url=part.url))
    if isinstance(part, ToolCall):
        return pb.Part(tool_call=pb.ToolCall(id=part.id, name=part.name, arguments=part.arguments))
    return pb.Part(
        tool_result=pb.ToolResult(
            call_id=part.call_id, content=part.content, name=part.name, is_error=part.is_error
        )
    )


def _read_message(told: pb.Message, limits: Limits) -> Message:
    if told.role not in get_args(Role):
        raise DataError(f"role {told.role[:80]!r} is none of {', '.join(get_args(Role))}")
    return Message(cast(Role, told.role), tuple(_read_part(part, limits) for part in told.parts))


def _read_part(told: pb.Part, limits: Limits) -> Part:
    kind = told.WhichOneof("kind")
    if kind == "text":
        return Text(told.text)
    if kind == "reasoning":
        signed = told.reasoning.HasField("signature")
        return Reasoning(told.reasoning.text, told.reasoning.signature if signed else None)
    if kind == "image":
        return _read_image(told.image, limits)
    if kind == "tool_call":
        return ToolCall(told.tool_call.id, told.tool_call.name, told.tool_call.arguments)
    if kind == "tool_result":
        result = told.tool_result
        return ToolResult(result.call_id, result.content, result.name, result.is_error)
    raise DataError("a message has an empty part, or one of a kind that this release does not know")


def _read_image(told: pb.Image, limits: Limits) -> Image:
    source = told.WhichOneof("source")
    if len(told.data) > limits.image_bytes:
        raise UsageError(f"a picture of more than {limits.image_bytes:,} bytes")
    return Image(
        told.media_type,
        told.data if source == "data" else None,
        told.url if source == "url" else None,
    )


def _options(options: Options) -> pb.Options:
    told: dict[str, Any] = {name: value for name in _NUMBERS if (value := getattr(options, name)) is not None}
    if options.schema is not None:
        told["schema"] = _json(options.schema)
    if options.extra:
        told["extra"] = _json(options.extra)
    return pb.Options(stop=options.stop, **told)


def _read_options(told: pb.Options, limits: Limits) -> Options:
    given: dict[str, Any] = {name: getattr(told, name) for name in _NUMBERS if told.HasField(name)}
    for name in ("temperature", "top_p"):
        if name in given and given[name] - given[name] != 0:
            raise UsageError(f"{name}={given[name]} is no number")
    if told.HasField("schema"):
        given["schema"] = _object(told.schema, "the schema", limits)
    if told.extra:
        given["extra"] = _object(told.extra, "extra", limits)
    return Options(stop=tuple(told.stop), **given)


def _json(value: Mapping[str, Json]) -> str:
    return json.dumps(dict(value), ensure_ascii=False, allow_nan=False)


def _object(text: str, what: str, limits: Limits) -> dict[str, Json]:
    """An object that came as JSON text."""
    from mindset.llm.serve.body import parsed

    if not text:
        return {}
    try:
        found = parsed(text.encode(), limits)
    except ValueError as error:
        raise UsageError(f"{what}: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{what} is a JSON object, not {type(found).__name__}")
    return found


def texts_of(texts: Iterable[str], limits: Limits) -> list[str]:
    """Texts to embed."""
    found = list(texts)
    if len(found) > limits.texts:
        raise UsageError(f"{len(found):,} texts in one request; at most {limits.texts:,}")
    if not found or "" in found:
        raise UsageError("give one text or more, and none that is empty")
    return found
