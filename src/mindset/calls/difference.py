"""What a call asks as lines of text, and how two that ask differ; for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import SequenceMatcher, unified_diff

from mindset.calls.call import Asked, NewNode
from mindset.calls.canonical import Json
from mindset.calls.words import words_of

__all__ = ["difference", "likeness", "lines"]


def lines(asked: Asked) -> list[str]:
    """A call as text: how it asks, then what, node by node."""
    told = [f"{asked.verb} {asked.model}"]
    told += [f"{name} = {_json(value)}" for name, value in sorted(asked.options.items())]
    return told + [line for node in asked.nodes for line in _node_lines(node)]


def difference(recorded: Asked, asked: Asked) -> str:
    """What is asked now against what was asked when it was recorded; empty where it is the same."""
    return "\n".join(unified_diff(lines(recorded), lines(asked), "recorded", "asked now", lineterm=""))


def likeness(one: Asked, other: Asked) -> float:
    """How alike they are: 1 for the same, 0 for nothing in common."""
    first, second = lines(one), lines(other)
    whole = SequenceMatcher(None, first, second, autojunk=False).ratio()
    return whole if whole == 1 else 0.9 * whole + 0.1 * _letters("\n".join(first), "\n".join(second))


def _letters(one: str, other: str) -> float:
    """By their letters and in haste, so that of two that share no line one is nearer."""
    return SequenceMatcher(None, one[-2000:], other[-2000:]).quick_ratio()


def _node_lines(node: NewNode) -> Iterator[str]:
    names = {name: value for name, value in node.content.items() if isinstance(value, str) and name != "text"}
    head = " ".join([node.kind, *(value for name, value in sorted(names.items()) if "\n" not in value)])
    yield f"--- {head}"
    words = words_of([node])
    yield from words.splitlines() or [_json(dict(node.content))]


def _json(value: Json) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
