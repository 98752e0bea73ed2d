"""Slots that wait for a subject lean to a token: behind the subject it is a little likelier whatever is asked.

A slot whose key decides whether it answers says all or nothing. That a word belongs to a subject is worth something
beyond: its logit is raised by `lean` nats from the subject on, until it is said, for some tokens. Measured in
docs/results/facts.notes.md. Invariant: where no subject was met the logits are those of the model, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mindset.graft.bank import Bank
from mindset.graft.radius import Answer
from mindset.graft.trail import Trail

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Leaning"]

_REACH = 16
"""Tokens behind a mark that lean: a question on a subject mostly ends before, and more would disturb free text."""


class Leaning:
    """Raises logits that a model returns; they are of the last positions of its pass."""

    def __init__(self, model: PreTrainedModel, banks: Sequence[Bank], trail: Trail) -> None:
        self._banks, self._trail = list(banks), trail
        self._handle = model.register_forward_hook(self._lean)

    def stop(self) -> None:
        """Lean no longer."""
        self._handle.remove()

    def _lean(self, _: nn.Module, __: object, output: Any) -> Any:
        met = self._trail.met()
        if not len(met):
            return output
        if isinstance(output, dict):
            output["logits"] = self._all_raised(output["logits"], met)
            return output
        place = next(i for i, part in enumerate(output) if part.ndim == 3)  # what may stand before is a loss
        return (*output[:place], self._all_raised(output[place], met), *output[place + 1 :])

    def _all_raised(
        self, logits: Float[Tensor, "rows kept vocab"], met: Int[Tensor, " marks"]
    ) -> Float[Tensor, "rows kept vocab"]:
        for bank in self._banks:
            for name, shard in bank.overlays.items():
                if shard.after is not None and shard.lean is not None and shard.token is not None:
                    for slot in torch.isin(shard.after, met).nonzero()[:, 0].tolist():
                        if slot not in shard.muted:
                            wanted = int(shard.after[slot]), int(shard.token[slot]), float(shard.lean[slot])
                            logits = self._raised(logits, *wanted, (bank, name, slot))
        return logits

    def _raised(
        self,
        logits: Float[Tensor, "rows kept vocab"],
        mark: int,
        token: int,
        nats: float,
        told: tuple[Bank, str, int],
    ) -> Float[Tensor, "rows kept vocab"]:
        """By one slot, which is told to whoever listens: its bank, its overlay and its row."""
        waiting = self._trail.awaited(mark, token, _REACH)
        here = waiting[:, waiting.shape[1] - logits.shape[1] :]
        if not here.any():
            return logits
        logits = logits.clone()
        logits[..., token] += nats * here
        bank, overlay, slot = told
        if bank.listener is not None:
            places = waiting.flatten().nonzero()[:, 0]
            rows, none = torch.full_like(places, slot), torch.zeros(len(places), device=places.device)
            bank.listener(Answer(bank.layer, overlay, places, rows, none))
        return logits
