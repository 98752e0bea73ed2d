"""What a call costs, by the price list that genai-prices ships: offline, and of a date, which is kept with the figure.

What this machine computes costs nothing, and its seconds are counted instead. A model that the list does not know has
no price, which is not the same as costing nothing. The list is loaded when a price is first asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from mindset.calls.call import Usage
from mindset.calls.canonical import Json

__all__ = ["FREE", "Price", "full_name", "price", "priced"]

_OFFICIAL = {
    "openai": ("OPENAI_BASE_URL", "https://api.openai.com/v1"),
    "anthropic": ("ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
}
_RATES = ("input_mtok", "output_mtok", "cache_read_mtok", "output_reasoning_mtok")


@dataclass(frozen=True)
class Price:
    """The price of one call, and how it comes about."""

    cost: float
    """US dollars."""
    table: str = ""
    """The list and its version; empty where nothing had to be looked up."""
    dated: str = ""
    """Day of the last change of a price that the list knows of."""
    provider: str = ""
    model: str = ""
    """As the list calls it."""
    rates: tuple[tuple[str, Json], ...] = ()
    """US dollars a million tokens; `[from, dollars]` for each step where it depends on how many are read."""

    def told(self) -> dict[str, Json]:
        """As JSON."""
        return asdict(self) | {"rates": dict(self.rates)}


FREE = Price(0.0)
"""Computed here, answered from the log, or never sent."""


def price(model: str, usage: Usage, *, endpoint: str | None = None) -> float | None:
    """US dollars for so many tokens of MODEL; None where its price is not known.

    `endpoint`: the address that is asked, where MODEL does not say it.
    """
    found = priced(model, usage, endpoint=endpoint)
    return None if found is None else found.cost


def priced(
    model: str, usage: Usage, *, endpoint: str | None = None, answered_by: str | None = None
) -> Price | None:
    """The same with how it comes about; `answered_by`: what the model calls itself, which names it more exactly."""
    address, name = _address(model, endpoint)
    if address is None or _is_here(address):
        return FREE
    for named in (answered_by, name):
        if named and (found := _listed(address, named, usage)) is not None:
            return found
    return None


def full_name(client: str, model: str) -> str:
    """MODEL with its kind in front, where a client of that kind was given the bare name."""
    return f"{client}:{model}" if client in _OFFICIAL and ":" not in model else model


def _address(model: str, endpoint: str | None) -> tuple[str | None, str]:
    """Where MODEL is asked, and its name there; None: in this process."""
    kind, _, name = model.partition(":")
    if kind in _OFFICIAL:
        variable, official = _OFFICIAL[kind]
        return endpoint or os.environ.get(variable) or official, name
    if kind in ("http", "https"):
        url, _, name = model.partition("#")
        return endpoint or url, name
    return endpoint, model


def _is_here(address: str) -> bool:
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https"):
        return True  # our own servers compute for whoever asks
    return host in ("localhost", "::1", "0.0.0.0") or host.startswith("127.") or host.endswith(".localhost")  # noqa: S104


def _listed(address: str, name: str, usage: Usage) -> Price | None:
    import genai_prices

    counted = genai_prices.Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cache_read_tokens=min(usage.cached_tokens, usage.prompt_tokens),
        output_reasoning_tokens=min(usage.reasoning_tokens, usage.completion_tokens),
    )
    try:
        found = genai_prices.calc_price(counted, name, provider_api_url=address)
    except (LookupError, ValueError):  # no such provider or model; tokens that it cannot count
        return None
    rates = tuple(_rates(found.model_price))
    table = f"genai-prices {genai_prices.__version__}"
    return Price(float(found.total_price), table, _dated(), found.provider.id, found.model.id, rates)


def _rates(listed: Any) -> Iterator[tuple[str, Json]]:
    for name in _RATES:
        rate = getattr(listed, name, None)
        if isinstance(rate, Decimal):
            yield name, float(rate)
        elif rate is not None:
            yield name, [[0, float(rate.base)], *([step.start, float(step.price)] for step in rate.tiers)]


@cache
def _dated() -> str:
    """The list does not tell its own date; prices in it have days from which they hold, some of them to come."""
    from genai_prices.data import providers

    today = datetime.now(UTC).date()
    days = [day for provider in providers for model in provider.models for day in _days(model.prices)]
    return max((day for day in days if day <= today), default=date.min).isoformat()


def _days(prices: Any) -> Iterator[date]:
    for one in prices if isinstance(prices, list) else ():
        if (day := getattr(one.constraint, "start_date", None)) is not None:
            yield day
