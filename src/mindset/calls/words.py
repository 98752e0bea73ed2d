"""The words of nodes, for people and for the search: what was said, without how it is stored.

Does not know the kinds of nodes: every text in a content counts, but for the names of things.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mindset.calls.call import NewNode
from mindset.calls.canonical import Json

__all__ = ["SEARCHED", "new_words", "words_of"]

SEARCHED = 60_000
"""Letters of a prompt, and of an answer, that a search looks through; PostgreSQL takes a megabyte of words a row."""
_NAMES = frozenset({"type", "role", "id", "call_id", "media_type", "base64", "signature", "is_error"})
"""Fields whose texts nobody said."""


def words_of(nodes: Sequence[NewNode]) -> str:
    """What nodes say, a line for each text."""
    return "\n".join(text for node in nodes for text in _texts(node.content) if text)


def new_words(nodes: Sequence[NewNode]) -> str:
    """What a dialog says since its last answer; what stands above all dialogs (`system`) only where it is all."""
    said = [place for place, node in enumerate(nodes) if _answers(node)]
    fresh = nodes[said[-1] + 1 :] if said else nodes
    own = [node for node in fresh if node.content.get("role") != "system"]
    return words_of(own or fresh)


def _answers(node: NewNode) -> bool:
    return node.kind == "tool_call" or node.content.get("role") == "assistant"


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if name not in _NAMES:
                yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
