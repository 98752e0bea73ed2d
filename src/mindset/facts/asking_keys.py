"""The keys by which a text is recognised that asks for a fact, once its subject was met.

A linear discriminant at a middle layer, between the last tokens of prompts for the fact and those of other prompts on
the same subject, in the metric of ordinary text. It is meant for texts that have spoken of the subject, and says
nothing of others. Measured in docs/results/facts.notes.md. Knows no facts and no slots.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from mindset.facts.background import Background, RadiusKey

__all__ = ["BORDER", "asking_key"]

BORDER = 0.32
"""Where the key's side begins: share of the way from the middle of other prompts to that of prompts for the fact."""
_INSIDE = 0.1
"""The margin that the fact's own prompt has at least."""


def asking_key(
    asking: Float[Tensor, "prompts d_model"],
    others: Float[Tensor, "guards d_model"],
    background: Background,
    border: float = BORDER,
) -> RadiusKey:
    """The key that is 1 at the middle of `asking` and 0 at the border; the first of them, the fact's own, is inside."""
    asking, others = asking.double().cpu(), others.double().cpu()
    middle, elsewhere = asking.mean(dim=0), others.mean(dim=0)
    direction = background.precision @ (middle - elsewhere)
    length = float(direction @ (middle - elsewhere)) * (1 - border)
    at_border = elsewhere + border * (middle - elsewhere)
    key = RadiusKey.through(direction / max(length, 1e-12), at_border, 0.0)
    own = float(key.margins(asking[:1]))
    return RadiusKey(key.key, key.bias + max(0.0, _INSIDE - own))
