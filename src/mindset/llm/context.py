"""What of a long dialog is sent when not all of it fits: the instructions, and the latest exchanges.

Tokens are estimated from bytes, at the rate that the model itself has shown. Does not know the tree, which keeps
everything. Invariant: what is sent begins with the system's messages and goes on with whole exchanges, the last one
always among them.
"""

from __future__ import annotations

from collections.abc import Sequence

from mindset.llm.events import Answer
from mindset.llm.messages import Image, Message, Reasoning, Text, ToolCall, ToolResult

__all__ = ["BYTES_A_TOKEN", "bytes_a_token", "fitting", "room", "weight"]

BYTES_A_TOKEN = 3.5
"""Until a model has shown its own; English has about 4.5 with a large vocabulary."""
MESSAGE_BYTES = 16
"""What a chat template puts around a message."""
IMAGE_BYTES = 4000
"""A picture costs about a thousand tokens, whatever the size of its file."""
SLACK = 0.9
"""Of the room, since it is an estimate."""
ANSWER_TOKENS = 1024
"""Kept free for an answer of which nobody said how long it may be, a quarter of a small context at most."""
LEAST_MEASURED = 32
"""Tokens of a dialog that say what a token holds; a shorter one is mostly template."""


def room(context: int | None, answer: int | None, rate: float) -> int | None:
    """Bytes that may be sent to a model that takes `context` tokens, `answer` of them to be kept for what it says."""
    if context is None:
        return None
    kept = min(answer or ANSWER_TOKENS, context // 2 if answer else context // 4)
    return max(int((context - kept) * rate * SLACK), 1)


def bytes_a_token(sent: Sequence[Message], answer: Answer, so_far: float) -> float:
    """How many bytes a token of the model holds, by what was sent and counted."""
    tokens = answer.usage.prompt_tokens
    if tokens < LEAST_MEASURED:
        return so_far
    return sum(weight(message) for message in sent) / tokens


def fitting(messages: Sequence[Message], free: int | None) -> tuple[tuple[Message, ...], int]:
    """The messages to send, and how many exchanges were left out."""
    start = next((at for at, message in enumerate(messages) if message.role == "user"), len(messages))
    head, groups = list(messages[:start]), _exchanges(messages[start:])
    if free is None:
        return tuple(messages), 0
    free -= sum(weight(message) for message in head)
    kept: list[list[Message]] = []
    for group in reversed(groups):
        free -= sum(weight(message) for message in group)
        if kept and free < 0:
            break
        kept.insert(0, group)
    return (*head, *(message for group in kept for message in group)), len(groups) - len(kept)


def weight(message: Message) -> int:
    """About how many bytes of text a message is."""
    return MESSAGE_BYTES + sum(_weight(part) for part in message.parts)


def _weight(part: object) -> int:
    if isinstance(part, Text | Reasoning):
        return len(part.text.encode())
    if isinstance(part, ToolCall):
        return len(part.arguments.encode()) + 2 * MESSAGE_BYTES
    if isinstance(part, ToolResult):
        return len(part.content.encode()) + MESSAGE_BYTES
    return IMAGE_BYTES if isinstance(part, Image) else 0


def _exchanges(messages: Sequence[Message]) -> list[list[Message]]:
    groups: list[list[Message]] = []
    for message in messages:
        if message.role == "user" or not groups:
            groups.append([])
        groups[-1].append(message)
    return groups
