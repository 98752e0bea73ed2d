"""How long a prompt is before anybody has read it: its text, and its pictures, which count by number, not by bytes."""

from __future__ import annotations

from collections.abc import Mapping

from mindset.calls.call import Asked
from mindset.calls.canonical import Json, canonical

__all__ = ["PICTURE_TOKENS", "bytes_as_tokens", "spoken"]

BYTES_A_TOKEN = 4
PICTURE_TOKENS = 1000
"""About what a picture of ordinary size costs."""


def spoken(asked: Asked) -> tuple[str, int]:
    """All the text that a call sends, and the number of its pictures."""
    pictures = 0

    def without_bytes(value: Json) -> Json:
        nonlocal pictures
        if isinstance(value, Mapping):
            pictures += value.get("type") == "image"
            return {name: without_bytes(inner) for name, inner in value.items() if name != "base64"}
        if isinstance(value, list | tuple):
            return [without_bytes(inner) for inner in value]
        return value

    nodes = without_bytes([dict(node.content) for node in asked.nodes])
    return canonical([nodes, dict(asked.options)]).decode(), pictures


def bytes_as_tokens(text: str) -> int:
    """Tokens of a text, where nobody can count them."""
    return len(text.encode()) // BYTES_A_TOKEN + 1
