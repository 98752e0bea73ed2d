"""What people, models and tools say to each other: messages of typed parts, and how they stand in the dialog tree.

    system("Answer briefly."), user("Who wrote it?"), assistant("She did.")

Immutable. Invariant: `from_nodes(to_nodes(messages))` is `messages`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mindset.calls.call import NewNode
from mindset.calls.canonical import Json
from mindset.errors import DataError

__all__ = [
    "Image",
    "Message",
    "Part",
    "Reasoning",
    "Role",
    "Text",
    "ToolCall",
    "ToolResult",
    "assistant",
    "from_nodes",
    "system",
    "to_nodes",
    "tool_result",
    "user",
]

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Text:
    """Words."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """What a model thought aloud before it answered."""

    text: str
    signature: str | None = None
    """What its provider wants to see again with it."""


@dataclass(frozen=True)
class Image:
    """A picture, by value or by address; exactly one of the two."""

    media_type: str = "image/png"
    data: bytes | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        """Refuse a picture with two sources or none."""
        if (self.data is None) == (self.url is None):
            raise DataError("an Image has either data or a url")


@dataclass(frozen=True)
class ToolCall:
    """A model's wish that a tool run."""

    id: str
    name: str
    arguments: str
    """JSON text as the model wrote it, which need not be valid."""

    def parsed(self) -> dict[str, Json]:
        """The arguments as an object."""
        try:
            found = json.loads(self.arguments or "{}")
        except ValueError as error:
            raise DataError(f"the arguments of {self.name} are no JSON: {error}") from error
        if not isinstance(found, dict):
            raise DataError(f"the arguments of {self.name} are no JSON object but {type(found).__name__}")
        return found


@dataclass(frozen=True)
class ToolResult:
    """What a tool returned."""

    call_id: str
    """Id of the `ToolCall` it answers."""
    content: str
    name: str = ""
    is_error: bool = False


Part = Text | Reasoning | Image | ToolCall | ToolResult


@dataclass(frozen=True)
class Message:
    """Everything that one side says in a row."""

    role: Role
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        """Refuse a role nobody has."""
        if self.role not in get_args(Role):
            raise DataError(f"role {self.role!r} is none of {', '.join(get_args(Role))}")

    @property
    def text(self) -> str:
        """Its words alone."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that it wants to run."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


def system(text: str) -> Message:
    """An instruction that stands above the dialog."""
    return Message("system", (Text(text),))


def user(text: str, *images: Image) -> Message:
    """What a person says."""
    return Message("user", (Text(text), *images))


def assistant(text: str, *calls: ToolCall) -> Message:
    """What a model says."""
    return Message("assistant", (*((Text(text),) if text else ()), *calls))


def tool_result(result: ToolResult) -> Message:
    """What a tool answers."""
    return Message("tool", (result,))


def to_nodes(messages: Iterable[Message]) -> tuple[NewNode, ...]:
    """A dialog as nodes of the tree: a message, and below it a node for every tool call or result in it."""
    nodes: list[NewNode] = []
    for message in messages:
        spoken = [_written(p) for p in message.parts if not isinstance(p, ToolCall | ToolResult)]
        if spoken or message.role != "tool":
            nodes.append(NewNode("message", {"role": message.role, "parts": spoken}))
        for part in message.parts:
            if isinstance(part, ToolCall):
                nodes.append(
                    NewNode("tool_call", {"id": part.id, "name": part.name, "arguments": part.arguments})
                )
            elif isinstance(part, ToolResult):
                nodes.append(NewNode("tool_result", _result(part)))
    return tuple(nodes)


def from_nodes(nodes: Sequence[NewNode]) -> tuple[Message, ...]:
    """The dialog that nodes hold; kinds that say nothing to a model are passed over."""
    messages: list[Message] = []
    for node in nodes:
        content = node.content
        if node.kind == "message":
            messages.append(Message(content["role"], tuple(_read(part) for part in content["parts"])))
        elif node.kind == "tool_call" and messages:
            last = messages.pop()
            call = ToolCall(content["id"], content["name"], content["arguments"])
            messages.append(Message(last.role, (*last.parts, call)))
        elif node.kind == "tool_result":
            result = ToolResult(
                content["call_id"],
                content["content"],
                content.get("name", ""),
                content.get("is_error", False),
            )
            messages.append(tool_result(result))
    return tuple(messages)


def _result(part: ToolResult) -> dict[str, Json]:
    told: dict[str, Json] = {"call_id": part.call_id, "content": part.content}
    if part.name:
        told["name"] = part.name
    if part.is_error:
        told["is_error"] = True
    return told


def _written(part: Text | Reasoning | Image) -> dict[str, Json]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Reasoning):
        more = {} if part.signature is None else {"signature": part.signature}
        return {"type": "reasoning", "text": part.text, **more}
    if part.data is None:
        return {"type": "image", "media_type": part.media_type, "url": part.url}
    return {"type": "image", "media_type": part.media_type, "base64": base64.b64encode(part.data).decode()}


def _read(told: Mapping[str, Json]) -> Part:
    kind = told["type"]
    if kind == "text":
        return Text(told["text"])
    if kind == "reasoning":
        return Reasoning(told["text"], told.get("signature"))
    if kind == "image":
        data = base64.b64decode(told["base64"]) if "base64" in told else None
        return Image(told["media_type"], data, told.get("url"))
    raise DataError(f"a message has a part of kind {kind!r}; known: text, reasoning, image")
