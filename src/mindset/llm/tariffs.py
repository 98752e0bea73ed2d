"""What the tokens of a model cost: nothing where answering is computing here, else what the list of prices says."""

from __future__ import annotations

from mindset.calls.call import Usage
from mindset.llm.budget import Tariff

__all__ = ["tariff_of"]


def tariff_of(model: str, endpoint: str, remote: bool) -> Tariff:
    """The tariff of MODEL at its endpoint; asking it is what loads the list."""

    def listed(usage: Usage) -> float | None:
        from mindset.calls.prices import price

        return price(model, usage, endpoint=endpoint)

    def nothing(_: Usage) -> float:
        return 0.0

    return listed if remote else nothing
