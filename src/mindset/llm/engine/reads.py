"""Which slots of a memory spoke most for a token, told while a model runs and for those texts alone that ask.

A bank that is recorded reads by masked products, whatever it would do otherwise; the rest of the cost is a text's own.
Slots are called by the ids of their memory where the model was loaded from one, else by their row in their bank. A slot
of an overlay that only leans adds nothing whose length could be told, and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from jaxtyping import Float, Int
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
        """`memory`: the folder that the banks were loaded from, as it is now."""
        self._model, self._banks = model, banks(model)
        self._norms: dict[int, Float[Tensor, "n_heads n_slots"]] = {}
        shards = {} if memory is None else Positions.of(memory).shards
        self._ids = {place: shard.ids for place, shard in shards.items()}

    def __bool__(self) -> bool:
        return bool(self._banks)

    @contextmanager
    def watching(self, places: Sequence[int], count: int) -> Iterator[Watch]:
        """Watch the `count` slots of each bank that say most to the tokens in these places of the next pass.

        Places are counted over all rows of the pass.
        """
        watch = Watch(self, places, count)
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

    def slot(self, layer: int, place: int) -> int:
        """What a slot is called, whose place is counted over all heads of its bank."""
        head, row = divmod(place, self._banks[layer].n_slots)
        shard, own = located(self._banks[layer], row)
        return self._named(layer, shard, head, own) or place

    def overlay_slot(self, answer: Answer, row: int) -> int:
        """What a slot of an overlay is called."""
        return self.named(answer.layer, answer.overlay, row)

    def named(self, layer: int, overlay: str, row: int) -> int:
        """What a slot of an overlay in some layer is called."""
        return self._named(layer, overlay, 0, row) or row

    def added(self, layer: int, x: Float[Tensor, "places d_model"]) -> Iterator[tuple[str, Tensor]]:
        """By overlay that is read at every token: the influence `[places, n_slots]` of each of its slots."""
        for overlay, shard in self._banks[layer].added.items():
            yield overlay, (shard.weights(x).abs() * shard.value.norm(dim=-1)).float().cpu()

    def value_length(self, answer: Answer, row: int) -> float:
        """How much a slot of an overlay adds when it answers; nothing if it only recognises a subject."""
        value = self._banks[answer.layer].overlays[answer.overlay].value
        return 0.0 if value is None else float(value[row].float().norm())

    def _named(self, layer: int, shard: str, head: int, row: int) -> int:
        ids = self._ids.get((layer, shard))
        return 0 if ids is None else int(ids[head, row])


class Watch:
    """What some tokens of one pass read."""

    def __init__(self, reads: Reads, places: Sequence[int], count: int) -> None:
        self._reads, self._places, self._count = reads, list(places), count
        self._at = torch.tensor(self._places, dtype=torch.long)
        self._best: dict[int, tuple[Float[Tensor, "places best"], Int[Tensor, "places best"]]] = {}
        self._answers: dict[int, list[Read]] = {place: [] for place in self._places}

    def see(self, read: BankRead) -> None:
        """A bank tells what it read."""
        weights = read.weights[self._at.to(read.weights.device)].abs().float()
        influence = (weights * self._reads.norms(read.layer)).flatten(1)
        best = influence.topk(min(self._count, influence.shape[1]))
        self._best[read.layer] = best.values.cpu(), best.indices.cpu()
        for overlay, influences in self._reads.added(read.layer, read.x[self._at.to(read.x.device)]):
            self._see_added(read.layer, overlay, influences)

    def _see_added(self, layer: int, overlay: str, influences: Float[Tensor, "places n_slots"]) -> None:
        best = influences.topk(min(self._count, influences.shape[1]))
        for place, values, rows in zip(
            self._places, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            self._answers[place] += [
                Read(layer, self._reads.named(layer, overlay, row), value, overlay)
                for value, row in zip(values, rows, strict=True)
                if value > 0
            ]

    def hear(self, answer: Answer) -> None:
        """Slots of an overlay have answered, or leaned."""
        told = zip(answer.tokens.tolist(), answer.slots.tolist(), answer.margins.tolist(), strict=True)
        for token, row, margin in told:
            if token not in self._answers or margin <= 0:
                continue
            if (added := self._reads.value_length(answer, row)) > 0:
                number = self._reads.overlay_slot(answer, row)
                self._answers[token].append(Read(answer.layer, number, added, answer.overlay))

    def most(self, place: int, count: int) -> tuple[Read, ...]:
        """The slots that said most at a place, the most influential first; `count` at most what is watched for."""
        found = sorted(self._all(place), key=lambda one: -one[0])[:count]
        return tuple(self._told(*one) for one in found)

    def by_bank(self, place: int) -> tuple[Read, ...]:
        """Of every bank the slots that said most, and all of overlays that answered; by layer."""
        found = sorted(self._all(place), key=lambda one: (one[1], -one[0]))
        return tuple(self._told(*one) for one in found)

    def _all(self, place: int) -> list[tuple[float, int, int | Read]]:
        """Influence, layer, and the slot's place in its bank or what an overlay's slot was told as."""
        at = self._places.index(place)
        found: list[tuple[float, int, int | Read]] = [
            (read.influence, read.layer, read) for read in self._answers[place]
        ]
        for layer, (values, indices) in self._best.items():
            pairs = zip(values[at].tolist(), indices[at].tolist(), strict=True)
            found += [(much, layer, slot) for much, slot in pairs if much > 0]
        return found

    def _told(self, influence: float, layer: int, slot: int | Read) -> Read:
        return slot if isinstance(slot, Read) else Read(layer, self._reads.slot(layer, slot), influence)
