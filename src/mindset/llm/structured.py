"""An answer as a value: asked for in a shape, checked, and asked for once more where it does not fit.

A model that can be held to a schema is; another one is told the schema in words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from mindset.errors import CallError, DataError
from mindset.llm.events import Answer
from mindset.llm.messages import Message, system, user
from mindset.llm.shapes import Shape

__all__ = ["ask_for"]

Chat = Callable[..., Coroutine[Any, Any, Answer]]


async def ask_for(
    shape: Shape, chat: Chat, messages: Sequence[Message], *, can: bool, parent: int | None
) -> Any:
    """The value that a dialog is answered with. `chat` asks; `can`: the model can be held to a schema."""
    held = {"schema": dict(shape.schema)} if can else {}
    dialog = tuple(messages) if can else _with_words(messages, shape)
    answer = await chat(dialog, parent=parent, **held)
    try:
        return shape.read(answer.text)
    except DataError as error:
        wrong = str(error)
    again = (
        *dialog,
        answer.message,
        user(f"That does not fit: {wrong}. Answer again, with nothing but the JSON."),
    )
    second = await chat(again, parent=answer.call_id, **held)
    try:
        return shape.read(second.text)
    except DataError as error:
        raise CallError(
            f"{second.model or 'the model'} gave no answer of the wanted shape, even when told what was wrong: "
            f"{error} (it ended because of: {second.finish_reason})"
        ) from error


def _with_words(messages: Sequence[Message], shape: Shape) -> tuple[Message, ...]:
    """The dialog, told of the shape: in its instructions where it has some, as many templates take only one."""
    words = "Answer with JSON alone, no other words. It must fit this JSON schema:\n" + json.dumps(
        shape.schema, ensure_ascii=False
    )
    if messages and messages[0].role == "system":
        return (system(f"{messages[0].text}\n\n{words}"), *messages[1:])
    return (system(words), *messages)
