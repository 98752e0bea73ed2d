"""What answers cost: tokens, seconds, money; of one and of all in a session. Does not know where the figures come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mindset.calls.call import Usage

__all__ = ["Spent", "by_model", "money", "told"]


@dataclass(frozen=True)
class Spent:
    """The cost of one call, or of several."""

    model: str
    calls: int = 1
    usage: Usage = Usage()
    seconds: float = 0.0
    first_token: float | None = None
    money: float | None = None
    """US dollars; None where nobody knows the price."""
    local: bool = False
    """Whether it was computed here, which costs no money."""


def told(spent: Spent) -> str:
    """One answer's cost in a line."""
    tokens = spent.usage.completion_tokens
    speed = ""
    if spent.first_token is not None and tokens > 1 and spent.seconds > spent.first_token:
        speed = f" ({(tokens - 1) / (spent.seconds - spent.first_token):.1f}/s)"
    parts = [f"{tokens} tokens in {seconds(spent.seconds)}{speed}"]
    if spent.first_token is not None:
        parts.append(f"first after {seconds(spent.first_token)}")
    read = f"{spent.usage.prompt_tokens} read"
    parts.append(f"{read}, {spent.usage.cached_tokens} of them cached" if spent.usage.cached_tokens else read)
    if not spent.local:
        parts.append(money(spent.money))
    return " · ".join(parts)


def by_model(all_spent: Iterable[Spent]) -> list[Spent]:
    """Sums, a row for each model, in the order in which they first answered."""
    sums: dict[str, Spent] = {}
    for one in all_spent:
        sums[one.model] = _sum(sums[one.model], one) if one.model in sums else one
    return list(sums.values())


def money(dollars: float | None) -> str:
    """An amount as people read it."""
    if dollars is None:
        return "price unknown"
    return f"${dollars:.2f}" if dollars >= 1 or dollars == 0 else f"${dollars:.4f}"


def seconds(count: float) -> str:
    """A time as people read it."""
    return f"{count:.1f} s" if count < 90 else f"{count / 60:.1f} min"


def _sum(one: Spent, other: Spent) -> Spent:
    a, b = one.usage, other.usage
    usage = Usage(
        a.prompt_tokens + b.prompt_tokens,
        a.completion_tokens + b.completion_tokens,
        a.cached_tokens + b.cached_tokens,
        a.reasoning_tokens + b.reasoning_tokens,
    )
    known = None if one.money is None or other.money is None else one.money + other.money
    return Spent(one.model, one.calls + other.calls, usage, one.seconds + other.seconds, None, known, one.local)
