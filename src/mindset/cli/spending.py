"""What answers cost: tokens, seconds, money; of one, and of all in a session. Reads the log's rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mindset.calls.call import Usage
from mindset.calls.log import CallLog

__all__ = ["Spent", "by_model", "money", "seconds", "spent_on", "told", "total"]


@dataclass(frozen=True)
class Spent:
    """The cost of one call, or of several."""

    model: str
    calls: int = 1
    usage: Usage = Usage()
    seconds: float = 0.0
    first_token: float | None = None
    money: float | None = None
    """US dollars; 0 where it was computed here, None where nobody knows the price."""


def spent_on(log: CallLog, call: int) -> Spent:
    """The cost of a call that is over."""
    row = log.call(call)
    outcome = row.outcome
    return Spent(row.asked.model, 1, outcome.usage, outcome.seconds, outcome.first_token, row.cost)


def told(spent: Spent) -> str:
    """One answer's cost in a line."""
    tokens, read, cached = spent.usage.completion_tokens, spent.usage.prompt_tokens, spent.usage.cached_tokens
    parts = [f"{tokens} token{'s' * (tokens != 1)} in " if tokens else ""]
    parts[0] += seconds(spent.seconds)
    if spent.first_token is not None:
        if tokens > 1 and spent.seconds > spent.first_token:
            parts[0] += f" ({(tokens - 1) / (spent.seconds - spent.first_token):.1f}/s)"
        parts.append(f"first after {seconds(spent.first_token)}")
    if read:
        parts.append(f"{read} read" + (f", {cached} of them cached" if cached else ""))
    if spent.money:
        parts.append(money(spent.money))
    return " · ".join(parts)


def by_model(all_spent: Iterable[Spent]) -> list[Spent]:
    """Sums, a row for each model, in the order in which they first answered."""
    sums: dict[str, Spent] = {}
    for one in all_spent:
        sums[one.model] = _sum(sums[one.model], one) if one.model in sums else one
    return list(sums.values())


def total(spent: Sequence[Spent]) -> Spent:
    """Of the calls of one turn; its first token is that of the first call."""
    whole = spent[0]
    for one in spent[1:]:
        whole = _sum(whole, one)
    return whole


def money(dollars: float | None) -> str:
    """An amount as people read it."""
    if dollars is None:
        return "unknown"
    if dollars == 0:
        return "-"
    return f"${dollars:.2f}" if dollars >= 1 else f"${dollars:.4f}"


def seconds(count: float) -> str:
    """A time as people read it."""
    if count < 90:
        return f"{count:.1f} s" if count >= 1 else f"{count:.2f} s"
    return f"{count / 60:.1f} min"


def _sum(one: Spent, other: Spent) -> Spent:
    a, b = one.usage, other.usage
    usage = Usage(
        a.prompt_tokens + b.prompt_tokens,
        a.completion_tokens + b.completion_tokens,
        a.cached_tokens + b.cached_tokens,
        a.reasoning_tokens + b.reasoning_tokens,
    )
    known = None if one.money is None or other.money is None else one.money + other.money
    return Spent(
        one.model, one.calls + other.calls, usage, one.seconds + other.seconds, one.first_token, known
    )
