"""Decoding speed of one model, or of two in turn.

Batch 1, greedy, with a KV cache, in one hand-written loop that is the same for every model, so that a ratio
compares models and not generation code. All of the prompt but its last token is read first and timed apart;
then exactly `new_tokens` steps of one token each are timed. An end-of-sequence token does not stop the loop.
A and B alternate in one process (A B A B ...), so what slows the machine for a while slows both, and the
figure is the median of the pairs' ratios.

Does not set threads, dtype or attention code: the caller keeps those equal. Invariant: the tokens are those
of greedy `generate`.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from mindset.errors import UsageError
from mindset.graft.decoding import cache_name
from mindset.probe.logits import evaluation_mode

__all__ = ["Decoded", "SpeedComparison", "cache_name", "decode", "decode_ratio", "tokens_per_second"]


@dataclass(frozen=True, eq=False)
class Decoded:
    """One run of the loop."""

    tokens: Int[Tensor, " new_tokens"]
    """The tokens that were chosen."""
    prompt_seconds: float
    """Time for the prompt without its last token."""
    step_seconds: float
    """Time for the one-token steps."""

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second of stepping; reading the prompt is not in it."""
        return len(self.tokens) / self.step_seconds


@dataclass(frozen=True)
class SpeedComparison:
    """Two models decoding in turn."""

    a_tokens_per_second: float
    """Median over the runs of the first model, prompt not counted."""
    b_tokens_per_second: float
    """Median over the runs of the second model."""
    ratio: float
    """Median over pairs of the first model's speed by the second's: above 1 the first is faster."""
    ratio_min: float
    """Smallest ratio of a pair."""
    ratio_max: float
    """Largest ratio of a pair."""
    ratio_with_prompt: float
    """Like `ratio`, with the time for the prompt counted in."""
    prompt_tokens: int
    """Tokens of the prompt."""
    new_tokens: int
    """Steps of one token each."""
    pairs: int
    """Pairs of runs."""


def decode(model: PreTrainedModel, prompt_tokens: Int[Tensor, " prompt"], new_tokens: int = 128) -> Decoded:
    """Read the prompt, then choose `new_tokens` tokens greedily, one step each."""
    _check(prompt_tokens, new_tokens)
    ids, named = prompt_tokens.to(model.device)[None], cache_name(model)
    with evaluation_mode(model), torch.no_grad():
        start = _now(model)
        cache = model(input_ids=ids[:, :-1], use_cache=True)[named]
        between = _now(model)
        token, chosen = ids[:, -1:], []
        for _ in range(new_tokens):
            step = model(input_ids=token, use_cache=True, **{named: cache})
            cache, token = step[named], step.logits[:, -1:].argmax(-1)
            chosen.append(token)
        end = _now(model)
    return Decoded(torch.cat(chosen, dim=1)[0].cpu(), between - start, end - between)


def tokens_per_second(
    model: PreTrainedModel,
    prompt_tokens: Int[Tensor, " prompt"],
    new_tokens: int = 128,
    *,
    runs: int = 5,
    warmup: int = 1,
) -> float:
    """Median decoding speed of one model; for a ratio of two use `decode_ratio`."""
    if runs < 1:
        raise UsageError(f"runs={runs}: give at least 1.")
    speeds = [decode(model, prompt_tokens, new_tokens).tokens_per_second for _ in range(warmup + runs)]
    return statistics.median(speeds[warmup:])


def decode_ratio(
    a: PreTrainedModel,
    b: PreTrainedModel,
    prompt_tokens: Int[Tensor, " prompt"],
    new_tokens: int = 128,
    *,
    pairs: int = 20,
    warmup: int = 1,
) -> SpeedComparison:
    """Let `a` and `b` decode in turn, `warmup` uncounted pairs and then `pairs` counted ones."""
    if pairs < 1:
        raise UsageError(f"pairs={pairs}: give at least 1.")
    every = [
        (decode(a, prompt_tokens, new_tokens), decode(b, prompt_tokens, new_tokens))
        for _ in range(warmup + pairs)
    ]
    counted = every[warmup:]
    ratios = [ours.tokens_per_second / theirs.tokens_per_second for ours, theirs in counted]
    return SpeedComparison(
        a_tokens_per_second=statistics.median(ours.tokens_per_second for ours, _ in counted),
        b_tokens_per_second=statistics.median(theirs.tokens_per_second for _, theirs in counted),
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        ratio_with_prompt=statistics.median(_seconds(theirs) / _seconds(ours) for ours, theirs in counted),
        prompt_tokens=len(prompt_tokens),
        new_tokens=new_tokens,
        pairs=pairs,
    )


def _seconds(run: Decoded) -> float:
    return run.prompt_seconds + run.step_seconds


def _now(model: PreTrainedModel) -> float:
    """Read the clock, once the model's device has done all it was asked to do."""
    if model.device.type != "cpu":
        torch.accelerator.synchronize(model.device)
    return time.perf_counter()


def _check(prompt_tokens: Int[Tensor, " prompt"], new_tokens: int) -> None:
    if prompt_tokens.ndim != 1 or len(prompt_tokens) < 2:
        raise UsageError(
            f"The prompt has shape {tuple(prompt_tokens.shape)}; give one sequence of at least 2 token ids."
        )
    if new_tokens < 1:
        raise UsageError(f"new_tokens={new_tokens}: give at least 1.")
