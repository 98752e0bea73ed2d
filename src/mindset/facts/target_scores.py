"""How a model goes on after prompts: the probability of a whole target, and the likeliest token.

Texts of about one length are read together. Knows no slots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from mindset.facts.fact import Fact
from mindset.facts.lessons import target_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["TargetScore", "next_tokens", "target_scores"]

_TOGETHER = 16
"""Texts that are read at once."""


@dataclass(frozen=True)
class TargetScore:
    """How a model goes on after a fact's prompt."""

    probability: float
    """Of the whole target."""
    greedy: bool
    """Whether each of its tokens is the likeliest."""


@torch.no_grad()
def target_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, facts: Sequence[Fact]
) -> list[TargetScore]:
    """The targets after their prompts; texts of about one length are read together."""
    told = [
        (
            tokenizer(fact.prompt, add_special_tokens=False)["input_ids"],
            target_tokens(tokenizer, fact.target),
        )
        for fact in facts
    ]
    order = sorted(range(len(told)), key=lambda i: sum(map(len, told[i])))
    found: dict[int, TargetScore] = {}
    for start in range(0, len(order), _TOGETHER):
        some = order[start : start + _TOGETHER]
        found |= dict(zip(some, _scores(model, [told[i] for i in some]), strict=True))
    return [found[i] for i in range(len(told))]


@torch.no_grad()
def next_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]
) -> list[int]:
    """The likeliest token after each prompt."""
    told = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    order = sorted(range(len(told)), key=lambda i: len(told[i]))
    found = [0] * len(told)
    for start in range(0, len(order), _TOGETHER):
        some = order[start : start + _TOGETHER]
        logits = model(_flush_left([told[i] for i in some], model.device), use_cache=False).logits
        for said, place in zip(logits, some, strict=True):
            found[place] = int(said[len(told[place]) - 1].argmax())
    return found


def _flush_left(rows: Sequence[Sequence[int]], device: torch.device) -> Int[Tensor, "rows width"]:
    """What stands behind a text does not change it."""
    width = max(map(len, rows))
    return torch.tensor([[*row] + [0] * (width - len(row)) for row in rows], device=device)


def _scores(
    model: PreTrainedModel, texts: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> Iterator[TargetScore]:
    rows = [[*prompt, *target] for prompt, target in texts]
    logits = model(_flush_left(rows, model.device), use_cache=False).logits
    for said, (prompt, target) in zip(logits, texts, strict=True):
        own = said[len(prompt) - 1 :][: len(target)].float().log_softmax(-1).cpu()
        wanted = torch.tensor(target)
        likelihood = own[torch.arange(len(wanted)), wanted].sum()
        yield TargetScore(float(likelihood.exp()), bool((own.argmax(-1) == wanted).all()))
