"""A body of text written into new slots of every layer, while the model itself stays as it is.

The slots are trained to expect the text, and beside that to leave ordinary text alone: some of every batch are windows
of documentation on which the likeliest tokens of the untouched model are to keep their probabilities. Where they begin
is for `corpus_start`. Does not know stores.

Source: parallel adapters, He et al. 2022 ("Towards a Unified View of Parameter-Efficient Transfer Learning", 3.3).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mindset.errors import DataError, UsageError
from mindset.facts.background import ordinary_tokens
from mindset.facts.corpus_start import first_slots
from mindset.graft.added import AddedShard
from mindset.graft.model import banks

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["CorpusSettings", "train_slots"]

_KEPT = 64
"""Likeliest tokens of the untouched model that a guard holds at each place; the rest is held as one."""
_GUARDS, _GUARD_WINDOW = 16, 256
"""Windows of ordinary text that guards are drawn from, and their tokens."""


@dataclass(frozen=True)
class CorpusSettings:
    """How a text is written."""

    slots: int = 128
    """New slots in each layer."""
    minutes: float = 15.0
    """Wall time of the training at most."""
    passes: float = 3.0
    """Times that the text is read at most."""
    window: int = 512
    """Tokens of a training window."""
    batch: int = 2
    """Windows of the text in a step."""
    guards: int = 1
    """Windows of ordinary text in a step; 0: none."""
    guard: float = 1.0
    """Weight of what they cost, nats a token."""
    learning_rate: float = 6e-4
    """Adam's, falling to zero in a straight line."""
    seed: int = 0
    """Names the order of windows, and first keys where no neuron lends its own."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("slots", "window", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}: give 1 or more")
        if (
            self.minutes <= 0
            or self.passes <= 0
            or self.learning_rate <= 0
            or min(self.guards, self.guard) < 0
        ):
            raise UsageError("minutes, passes and the learning rate must be above 0, guards not below")


@dataclass(frozen=True, eq=False)
class _Guard:
    """A window of ordinary text and what the untouched model says on it."""

    ids: Int[Tensor, " pos"]
    tokens: Int[Tensor, "pos kept"]
    probabilities: Float[Tensor, "pos kept"]


def train_slots(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: Int[Tensor, " n_tokens"],
    overlay: str,
    settings: CorpusSettings,
    progress: Callable[[float, float], None] = lambda _share, _loss: None,
) -> dict[int, AddedShard]:
    """Slots by layer, mounted in `model` as `overlay`; `progress` gets the share that is done and the loss in nats."""
    windows = _windows(ids, settings.window)
    guards = _guards(model, tokenizer) if settings.guards else []
    shards = first_slots(model, windows, settings.slots, seed=settings.seed)
    for layer, shard in shards.items():
        banks(model)[layer].mount(overlay, shard)
    with _only(model, shards) as parameters:
        _train(model, windows, guards, parameters, settings, progress)
    return shards


def _windows(ids: Int[Tensor, " n_tokens"], length: int) -> Int[Tensor, "windows pos"]:
    """The text in windows, the last of which begins before the one before it has ended."""
    if len(ids) < 2:
        raise DataError(f"a text of {len(ids)} tokens is too short to learn from; give at least a sentence")
    length = min(length, len(ids))
    starts = list(range(0, len(ids) - length + 1, length))
    if starts[-1] + length < len(ids):
        starts.append(len(ids) - length)
    return torch.stack([ids[start : start + length] for start in starts])


@torch.no_grad()
def _guards(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[_Guard]:
    flat, found = ordinary_tokens(tokenizer).flatten(), []
    rows = flat[: len(flat) // _GUARD_WINDOW * _GUARD_WINDOW].view(-1, _GUARD_WINDOW)[:_GUARDS]
    for row in rows:
        said = model(row[None].to(model.device), use_cache=False).logits[0].float().softmax(-1)
        best = said.topk(min(_KEPT, said.shape[-1]), dim=-1)
        found.append(_Guard(row, best.indices, best.values))
    return found


@contextmanager
def _only(model: PreTrainedModel, shards: dict[int, AddedShard]) -> Iterator[list[Tensor]]:
    """Gradients for the slots and for nothing else."""
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    for parameter in wanted:
        parameter.requires_grad_(False)
    parameters = [rows for shard in shards.values() for rows in shard.trainable()]
    try:
        yield parameters
    finally:
        for rows in parameters:
            rows.requires_grad_(False)
            rows.grad = None
        for parameter, wants in wanted.items():
            parameter.requires_grad_(wants)


def _train(
    model: PreTrainedModel,
    windows: Int[Tensor, "windows pos"],
    guards: list[_Guard],
    parameters: list[Tensor],
    settings: CorpusSettings,
    progress: Callable[[float, float], None],
) -> None:
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(settings.seed)
    steps, began = max(1, round(settings.passes * len(windows) / settings.batch)), time.monotonic()
    order = _drawn(len(windows), generator)
    for step in range(steps):
        # Time counts in hundredths: else no seed would fix anything, not even where there is time enough.
        taken = (time.monotonic() - began) / (60 * settings.minutes)
        share = max(step / steps, int(100 * taken) / 100)
        if share >= 1:
            break
        optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - share)
        loss = _text_loss(model, windows[[next(order) for _ in range(settings.batch)]])
        said = float(loss.detach())
        for _ in range(settings.guards):
            picked = guards[int(torch.randint(len(guards), (1,), generator=generator))]
            loss = loss + settings.guard * _guard_loss(model, picked) / settings.guards
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress(share, said)


def _drawn(count: int, generator: torch.Generator) -> Iterator[int]:
    """Places in an order that begins anew, shuffled, whenever all were drawn."""
    while True:
        yield from torch.randperm(count, generator=generator).tolist()


def _text_loss(model: PreTrainedModel, rows: Int[Tensor, "batch pos"]) -> Float[Tensor, ""]:
    rows = rows.to(model.device)
    logits = model(rows, use_cache=False).logits[:, :-1].float()
    return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def _guard_loss(model: PreTrainedModel, guard: _Guard) -> Float[Tensor, ""]:
    """KL from what the untouched model said, nats a token; tokens beyond the likeliest count as one."""
    now = model(guard.ids[None].to(model.device), use_cache=False).logits[0].float().log_softmax(-1)
    kept, was = now.gather(-1, guard.tokens), guard.probabilities
    rest = (1 - was.sum(-1)).clamp_min(1e-6)
    left = (1 - kept.exp().sum(-1)).clamp_min(1e-6)
    inside = (was * (was.clamp_min(1e-12).log() - kept)).sum(-1)
    cost: Tensor = (inside + rest * (rest.log() - left.log())).mean()
    return cost
