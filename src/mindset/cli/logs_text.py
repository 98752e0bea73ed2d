"""Calls as text on a terminal. What models said may hold anything: control characters stay out of the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindset.calls.costs import Cost
    from mindset.calls.listing import Line

__all__ = ["call", "clean", "cost_rows", "line", "moment", "money"]


def clean(text: str) -> str:
    """Text without what a terminal would obey; lines and tabs stay."""
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")


def money(cost: float | None) -> str:
    """US dollars; a question mark where nobody knows."""
    if cost is None:
        return "$?"
    return "$0" if cost == 0 else f"${cost:.6f}" if cost < 0.01 else f"${cost:,.2f}"


def moment(iso: str) -> str:
    """A moment to the second, in UTC as it is stored."""
    return iso[:19].replace("T", " ")


def line(one: Line, width: int) -> Iterator[str]:
    """A call in two or three lines: how it went, what was asked, what was answered."""
    head = [f"{one.id:>6}", moment(one.began), one.status, one.model]
    if one.seconds is not None:
        head += [f"{one.seconds:.2f} s", f"{one.prompt_tokens or 0:,}+{one.completion_tokens or 0:,} tokens"]
        head += [money(one.cost)]
    yield clean("  ".join([*head, one.run_name]))
    for sign, text in ((">", one.prompt), ("<", one.answer), ("!", one.error or "")):
        words = clean(" ".join(text.split()))
        if words:
            room = max(width - 10, 20)
            yield f"        {sign} {words if len(words) <= room else words[: room - 1] + '…'}"


def call(told: Mapping[str, Any]) -> Iterator[str]:
    """All that is known of a call."""
    for name, value in _head(told):
        yield clean(f"{name:<10}{value}")
    for title, nodes in (("", told["asked"]), (" (answer)", told["answer"])):
        for node in nodes:
            yield from _node(node, title)
    if not told["answer"] and told["result"] is not None:
        yield clean(f"--- result\n{_json(told['result'])}")


def cost_rows(found: Sequence[Cost], by: str) -> Iterator[list[str]]:
    """Rows of a table, and their sum."""
    for one in found:
        names = [clean(one.name), one.run or ""] if by == "run" else [clean(one.name)]
        yield [*names, *_figures([one])]
    if len(found) > 1:
        yield ["all", *([""] if by == "run" else []), *_figures(found)]


def _figures(found: Sequence[Cost]) -> list[str]:
    counts = [sum(getattr(one, name) for one in found) for name in _COUNTS]
    return [
        *(f"{count:,}" for count in counts),
        money(sum(c.cost for c in found)),
        f"{sum(c.local_seconds for c in found):,.1f}",
    ]


_COUNTS = ("calls", "failed", "prompt_tokens", "completion_tokens")


def _head(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    usage, run, process = told["usage"], told["run"], told["process"]
    yield "call", f"{told['id']}, {told['status']}: {told['verb']} by {told['model']} ({told['client']})"
    yield (
        "run",
        f"{run['name']} ({run['id']})" + (f", a replay of {run['replays']}" if run["replays"] else ""),
    )
    yield "process", f"{process['pid']} on {process['host']}: {' '.join(process['command'])}"
    yield "began", f"{moment(told['began'])} UTC{_speed(told)}"
    if usage["prompt_tokens"] is not None:
        cached = f" ({usage['cached_tokens']:,} cached)" if usage["cached_tokens"] else ""
        thought = f" ({usage['reasoning_tokens']:,} not shown)" if usage["reasoning_tokens"] else ""
        yield (
            "tokens",
            f"{usage['prompt_tokens']:,} read{cached}, {usage['completion_tokens']:,} written{thought}",
        )
        yield "cost", _price(told)
    if told["options"]:
        yield "options", _json(told["options"])
    for name in (
        "answered_by",
        "content_hash",
        "endpoint",
        "finish_reason",
        "parent",
        "replayed_from",
        "error",
    ):
        if told[name] is not None:
            yield _TITLES.get(name, name), str(told[name])
    for one in told["retries"] or []:
        yield "retried", f"after {one['at']:.2f} s, {one['waited']:.2f} s later: {one['reason']}"
    if told["calls_below"]:
        yield "below", ", ".join(f"call {child}" for child in told["calls_below"])


_TITLES = {
    "answered_by": "model",
    "content_hash": "files",
    "finish_reason": "stopped",
    "replayed_from": "replays",
}


def _speed(told: Mapping[str, Any]) -> str:
    if told["seconds"] is None:
        return ", and runs"
    first = f", first token {told['first_token']:.2f} s" if told["first_token"] is not None else ""
    rate = f", {told['pieces_a_second']:.1f} pieces/s" if told["pieces_a_second"] else ""
    here = f", {told['local_seconds']:.2f} s computed here" if told["local_seconds"] else ""
    return f", {told['seconds']:.2f} s{first}{rate}{here}"


def _price(told: Mapping[str, Any]) -> str:
    price = told["price"]
    if price is None:
        return money(told["cost"])
    return (
        f"{money(told['cost'])} ({price['provider']} {price['model']}, {price['table']} of {price['dated']})"
    )


def _node(node: Mapping[str, Any], title: str) -> Iterator[str]:
    from mindset.calls.call import NewNode
    from mindset.calls.words import words_of

    content = node["content"]
    if content is None:
        yield f"--- {node['kind']}{title}, deleted"
        return
    yield clean(f"--- {content.get('role', node['kind'])}{title}")
    yield clean(words_of([NewNode(node["kind"], content)]) or _json(content))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
