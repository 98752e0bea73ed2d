"""A branch of a conversation as a file to read or to go on with elsewhere: Markdown, plain text or JSON by its ending.

Does not know a database. Invariant: no file that is there is overwritten.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mindset.atomic_file import replacing
from mindset.errors import MissingError, UsageError
from mindset.llm.exchanges import Exchange
from mindset.llm.messages import Message, ToolResult

__all__ = ["write"]

ENDINGS = (".md", ".txt", ".json")


def write(path: Path, system: str | None, said: Sequence[Exchange], model: str) -> None:
    """Write what was said on the present branch."""
    if path.suffix not in ENDINGS:
        raise UsageError(f"{path} ends with none of {', '.join(ENDINGS)}, which say how to write it")
    if path.exists():
        raise UsageError(f"{path} is there already; give another name")
    if not path.parent.is_dir():
        raise MissingError(f"{path.parent}: there is no such folder")
    text = (
        _json(system, said, model) if path.suffix == ".json" else _prose(path.suffix == ".md", system, said)
    )
    with replacing(path) as file:
        file.write(text.encode())


def _json(system: str | None, said: Sequence[Exchange], model: str) -> str:
    """Messages as most endpoints take them."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": m.role, "content": _words(m)} for exchange in said for m in exchange.messages]
    return json.dumps({"model": model, "messages": messages}, ensure_ascii=False, indent=2) + "\n"


def _prose(marked: bool, system: str | None, said: Sequence[Exchange]) -> str:
    parts = [] if system is None else [_part("System", system, marked)]
    for exchange in said:
        parts.append(_part("You", exchange.question, marked))
        parts.append(_part("Model", exchange.answer, marked))
    return "\n".join(parts)


def _part(who: str, words: str, marked: bool) -> str:
    return f"## {who}\n\n{words}\n" if marked else f"{who}: {words}\n"


def _words(message: Message) -> str:
    results = [part.content for part in message.parts if isinstance(part, ToolResult)]
    return "\n".join([message.text, *results]).strip("\n") if results else message.text
