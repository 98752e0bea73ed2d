"""OpenAI's messages and tools as bodies, and as ours.

Kinds of message and of part that nobody here understands (audio, files) are refused by name. Does not know options.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any, Literal

from pydantic import Field

from mindset.calls.canonical import Json
from mindset.llm.messages import Image, Message, Part, Reasoning, Text, ToolCall, ToolResult
from mindset.llm.request import ToolSpec
from mindset.llm.serve.body import Body
from mindset.llm.serve.errors import RefusedError
from mindset.llm.serve.limits import Limits

__all__ = [
    "AskedMessage",
    "AskedTool",
    "ToolChoice",
    "Words",
    "image",
    "messages_of",
    "tool_choice_of",
    "tools_of",
]

_NAME = r"^[A-Za-z0-9_.:/-]{1,128}$"
_DATA_URL = re.compile(r"data:(image/[a-z0-9.+-]+);base64,", re.IGNORECASE)
_LONGEST_URL = 8192


class Words(Body):
    """A part of a message: text."""

    type: Literal["text"]
    text: str


class ImageAddress(Body):
    """Where a picture is."""

    url: str = Field(min_length=1)
    """`data:image/png;base64,...` or an address, which is handed on."""


class Picture(Body):
    """A part of a message: a picture."""

    type: Literal["image_url"]
    image_url: ImageAddress


class FunctionCall(Body):
    """What an assistant wanted to run."""

    name: str = Field(pattern=_NAME)
    arguments: str = ""


class AskedToolCall(Body):
    """A tool call of an assistant."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class SystemMessage(Body):
    """An instruction."""

    role: Literal["system", "developer"]
    content: str | list[Words]


class UserMessage(Body):
    """What a person says."""

    role: Literal["user"]
    content: str | list[Annotated[Words | Picture, Field(discriminator="type")]]


class AssistantMessage(Body):
    """What a model said."""

    role: Literal["assistant"]
    content: str | list[Words] | None = None
    reasoning_content: str | None = None
    tool_calls: list[AskedToolCall] | None = None


class ToolMessage(Body):
    """What a tool answered."""

    role: Literal["tool"]
    tool_call_id: str
    content: str | list[Words]
    name: str | None = None


AskedMessage = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class Function(Body):
    """A tool as a model is told of it."""

    name: str = Field(pattern=_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None


class AskedTool(Body):
    """A tool."""

    type: Literal["function"]
    function: Function


class ChosenFunction(Body):
    """The name of a tool."""

    name: str


class ChosenTool(Body):
    """The tool that has to be used."""

    type: Literal["function"]
    function: ChosenFunction


ToolChoice = Literal["none", "auto", "required"] | ChosenTool


def messages_of(asked: list[Any], limits: Limits) -> tuple[Message, ...]:
    """Ours for those of a body; several results of tools in a row stay several messages."""
    return tuple(_message(one, limits, f"messages.{place}") for place, one in enumerate(asked))


def tools_of(asked: list[AskedTool] | None) -> tuple[ToolSpec, ...]:
    """Ours for those of a body."""
    return tuple(
        _tool(one.function.name, one.function.description, one.function.parameters) for one in asked or ()
    )


def tool_choice_of(choice: str | ChosenTool | None, tools: tuple[ToolSpec, ...]) -> str | None:
    """The choice by name; one that names no tool of the request is refused."""
    name = choice.function.name if isinstance(choice, ChosenTool) else choice
    if isinstance(choice, ChosenTool) and name not in {tool.name for tool in tools}:
        raise RefusedError(
            400, f"tool_choice names {name!r}, which is not among the tools", param="tool_choice"
        )
    if name == "required" and not tools:
        raise RefusedError(400, "tool_choice is required, and there are no tools", param="tool_choice")
    return name if tools else None


def image(url: str, limits: Limits, param: str) -> Image:
    """A picture by value, or by its address."""
    found = _DATA_URL.match(url)
    if found is None:
        if not url.startswith(("https://", "http://")) or len(url) > _LONGEST_URL:
            raise RefusedError(
                400, f"{param}: a picture is data:image/TYPE;base64,... or an https address", param=param
            )
        return Image(url=url)
    encoded = url[found.end() :]
    if len(encoded) * 3 // 4 > limits.image_bytes + 2:
        raise RefusedError(413, f"{param}: a picture of more than {limits.image_bytes:,} bytes", param=param)
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError(400, f"{param}: the picture is not base64 ({error})", param=param) from error
    if not data:
        raise RefusedError(400, f"{param}: the picture is empty", param=param)
    return Image(found[1].lower(), data)


def _message(one: Any, limits: Limits, param: str) -> Message:
    if isinstance(one, ToolMessage):
        return Message("tool", (ToolResult(one.tool_call_id, _words(one.content), one.name or ""),))
    if isinstance(one, AssistantMessage):
        return Message("assistant", _said(one))
    if isinstance(one, SystemMessage):
        return Message("system", (Text(_words(one.content)),))
    if isinstance(one.content, str):
        return Message("user", (Text(one.content),))
    if not one.content:
        raise RefusedError(400, f"{param}.content: a message has at least one part", param=f"{param}.content")
    return Message(
        "user",
        tuple(
            Text(part.text)
            if isinstance(part, Words)
            else image(part.image_url.url, limits, f"{param}.content.{place}")
            for place, part in enumerate(one.content)
        ),
    )


def _said(one: AssistantMessage) -> tuple[Part, ...]:
    parts: list[Part] = []
    if one.reasoning_content:
        parts.append(Reasoning(one.reasoning_content))
    if one.content:
        parts.append(Text(_words(one.content)))
    parts += [ToolCall(call.id, call.function.name, call.function.arguments) for call in one.tool_calls or ()]
    return tuple(parts)


def _words(content: str | list[Words]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _tool(name: str, description: str | None, parameters: dict[str, Json] | None) -> ToolSpec:
    return ToolSpec(name, description or "", parameters or {"type": "object", "properties": {}})
