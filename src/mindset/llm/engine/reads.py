"""Which slots of a memory spoke most for a token, told while a model runs and for those texts alone that ask.

A bank that is recorded reads by masked products, whatever it would do otherwise; the rest of the cost is a text's own.
Slots are called by the ids of their memory where the model was loaded from one, else by their row in their bank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from mindset.graft.influence import located, residual_norms
from mindset.graft.model import banks
from mindset.graft.radius import Answer
from mindset.graft.recording import Read as BankRead
from mindset.graft.recording import listen, record
from mindset.llm.events import Read
from mindset.store.positions import Positions

__all__ = ["Reads", "Watch"]


class Reads:
    """The banks of one model, ready to be watched."""

    def __init__(self, model: PreTrainedModel, memory: Path | None = None) -> None:
        """`memory`: the folder that the banks were loaded from, as it was then."""
        self._model, self._banks = model, banks(model)
        self._norms: dict[int, Float[Tensor, "n_heads n_slots"]] = {}
        shards = {} if memory is None else Positions.of(memory).shards
        self._ids = {place: shard.ids for place, shard in shards.items()}

    def __bool__(self) -> bool:
        return bool(self._banks)

    @contextmanager
    def watching(self, places: Sequence[int]) -> Iterator[Watch]:
        """Watch what the tokens in these places of the next pass read, counted over all its rows."""
        watch = Watch(self, places)
        with ExitStack() as stack:
            if places:
                stack.enter_context(record(self._model, watch.see))
                stack.enter_context(listen(self._model, watch.hear))
            yield watch

    def norms(self, layer: int) -> Float[Tensor, "n_heads n_slots"]:
        """Lengths of a bank's values; they do not change while a model serves."""
        if layer not in self._norms:
            self._norms[layer] = residual_norms(self._banks[layer])
        return self._norms[layer]

    def slot(self, layer: int, head: int, row: int) -> int:
        """What a slot is called."""
        shard, place = located(self._banks[layer], row)
        return self._named(layer, shard, head, place, row)

    def overlay_slot(self, answer: Answer, row: int) -> int:
        """What a slot of an overlay is called."""
        return self._named(answer.layer, answer.overlay, 0, row, row)

    def value_length(self, answer: Answer, slot: int) -> float:
        """How much a slot of an overlay adds when it answers; nothing if it only recognises a subject."""
        value = self._banks[answer.layer].overlays[answer.overlay].value
        return 0.0 if value is None else float(value[slot].float().norm())

    def _named(self, layer: int, shard: str, head: int, place: int, otherwise: int) -> int:
        ids = self._ids.get((layer, shard))
        number = 0 if ids is None else int(ids[head, place])
        return number or otherwise


class Watch:
    """What some tokens of one pass read."""

    def __init__(self, reads: Reads, places: Sequence[int]) -> None:
        self._reads, self._places = reads, list(places)
        self._at = torch.tensor(self._places, dtype=torch.long)
        self._influence: dict[int, Float[Tensor, "places n_heads n_slots"]] = {}
        self._answers: dict[int, list[Read]] = {place: [] for place in self._places}

    def see(self, read: BankRead) -> None:
        """A bank tells what it read."""
        weights = read.weights[self._at.to(read.weights.device)]
        self._influence[read.layer] = (weights.abs().float() * self._reads.norms(read.layer)).cpu()

    def hear(self, answer: Answer) -> None:
        """Slots of an overlay have answered; those that only lean add nothing that has a length."""
        told = zip(answer.tokens.tolist(), answer.slots.tolist(), answer.margins.tolist(), strict=True)
        for token, slot, margin in told:
            if token not in self._answers or margin <= 0:
                continue
            if (added := self._reads.value_length(answer, slot)) > 0:
                number = self._reads.overlay_slot(answer, slot)
                self._answers[token].append(Read(answer.layer, number, added, answer.overlay))

    def most(self, place: int, count: int) -> tuple[Read, ...]:
        """The slots that said most at a place, the most influential first."""
        at, found = self._places.index(place), list(self._answers[place])
        layers = list(self._influence)
        flat = [self._influence[layer][at].flatten() for layer in layers]
        if flat:
            found += self._best(layers, flat, count)
        found.sort(key=lambda read: -read.influence)
        return tuple(found[:count])

    def most_of_each(self, place: int, count: int) -> tuple[Read, ...]:
        """As `most`, but so many of every bank, and all that answered of overlays."""
        at, found = self._places.index(place), list(self._answers[place])
        for layer, influence in self._influence.items():
            found += self._best([layer], [influence[at].flatten()], count)
        return tuple(sorted(found, key=lambda read: (read.layer, -read.influence)))

    def _best(self, layers: list[int], flat: list[Float[Tensor, " places"]], count: int) -> list[Read]:
        every = torch.cat(flat)
        starts = np.cumsum([0, *(len(one) for one in flat)])
        best = every.topk(min(count, len(every)))
        found = []
        for number, much in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            if much > 0:
                which = int(np.searchsorted(starts, number, side="right")) - 1
                layer = layers[which]
                head, row = divmod(number - int(starts[which]), self._influence[layer].shape[2])
                found.append(Read(layer, self._reads.slot(layer, head, row), much))
        return found
