"""What the tokens of a model cost: nothing where answering is computing here, else what the list of prices says."""

from __future__ import annotations

from mindset.calls.call import Usage
from mindset.llm.budget import Tariff

__all__ = ["tariff_of"]


def tariff_of(model: str, *, free: bool) -> Tariff:
    """The tariff of MODEL; asking it is what loads the list."""

    def priced(usage: Usage) -> float | None:
        from mindset.calls.prices import price

        return price(model, usage)

    def nothing(_: Usage) -> float:
        return 0.0

    return nothing if free else priced
