"""Which token comes next, by one text's own settings and its own randomness: what others draw changes nothing here.

Cuts are made as transformers makes them: temperature, then `top_k`, then `top_p`. Log-probabilities are the model's,
before temperature, cuts and grammar. Invariant: without cuts and grammar the tokens are those of `graft.decoding.draw`
with the same seed.
"""

from __future__ import annotations

import math
import secrets

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mindset.errors import CallError
from mindset.graft.decoding import draw
from mindset.llm.request import Options

__all__ = ["Chooser", "logprobs"]

LIKELY = 1024
"""So many of the likeliest tokens are nearly always enough for `top_p`; sorting all takes longer than the head."""


class Chooser:
    """Draws the tokens of one text."""

    def __init__(self, options: Options) -> None:
        """Temperature None counts as 0; seed None is a new one."""
        self._temperature = options.temperature or 0.0
        self._top_k, self._top_p = options.top_k, options.top_p
        seed = secrets.randbits(63) if options.seed is None else options.seed
        self._generator = torch.Generator().manual_seed(seed)

    def choose(self, logits: Float[Tensor, " vocab"], allowed: Bool[Tensor, " vocab"] | None = None) -> int:
        """The next token, of those allowed."""
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -torch.inf)
        if not math.isfinite(float(logits.max())):
            raise CallError("the model's logits are not numbers; nothing can be drawn from them")
        cut = self._top_k is not None or (self._top_p is not None and self._top_p < 1)
        if self._temperature == 0 or not cut:
            return draw(logits, self._temperature, self._generator)
        likely, tokens = self._cut(logits / self._temperature)
        return int(tokens[torch.multinomial(likely, 1, generator=self._generator)])

    def _cut(self, scaled: Float[Tensor, " vocab"]) -> tuple[Float[Tensor, " some"], Int[Tensor, " some"]]:
        """The probabilities of what is left, likeliest first, and the tokens they belong to."""
        top_k, top_p = min(self._top_k or len(scaled), len(scaled)), self._top_p or 1.0
        if top_k < len(scaled) or top_p == 1:
            best, tokens = scaled.topk(top_k)
            likely = best.softmax(0)
        else:
            best, tokens = scaled.topk(min(LIKELY, len(scaled)))
            likely = (best - scaled.logsumexp(0)).exp()
            if float(likely.sum()) < top_p:
                best, tokens = scaled.sort(descending=True)
                likely = best.softmax(0)
        if top_p == 1:
            return likely, tokens
        kept = int((likely.cumsum(0) - likely < top_p).sum().clamp_min(1))
        return likely[:kept], tokens[:kept]


def logprobs(
    logits: Float[Tensor, " vocab"], token: int, alternatives: int
) -> tuple[float, list[tuple[int, float]]]:
    """The log-probability of a token, and the likeliest ones with theirs."""
    all_of_them = logits.log_softmax(-1)
    best = all_of_them.topk(min(alternatives, len(logits)))
    return float(all_of_them[token]), list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
