"""Facts into a memory: written as radius slots of an overlay, one entry of the history, each citing its line.

A subject gets a slot in a low layer that leaves a mark where the text names it. A fact gets a slot in a middle layer
that waits for its subject's mark and answers where the text asks for the fact. A new target for the same prompt
replaces the old one. What was learned is checked at once: the targets' probabilities before and after.

Does not know the command line. Invariant: where anything fails the memory is as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mindset.errors import UsageError
from mindset.facts.background import RadiusKey
from mindset.facts.fact import Fact, FactText, parse_facts
from mindset.facts.fact_layers import FactLayers, fact_layers, read_sweep
from mindset.facts.lessons import last_told
from mindset.facts.target_scores import target_scores
from mindset.facts.write_values import WriteSettings
from mindset.facts.written import Written, mark_of, write_facts
from mindset.graft.model import banks
from mindset.graft.mounting import mount, without_overlays
from mindset.graft.sources import load_teacher
from mindset.store.edit import NewShard
from mindset.store.memory import Memory
from mindset.store.overlays import check_overlay_name
from mindset.store.scan import Where, scan
from mindset.store.shard_info import RADIUS, ShardInfo
from mindset.store.slots import Citation, NewSlot, SlotRecord
from mindset.store.store import Incoming, IncomingSlots

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Learned", "LearnedFact", "learn", "learn_into"]

FACT_TAG, SUBJECT_TAG = "fact", "subject"


@dataclass(frozen=True)
class LearnedFact:
    """One fact that was learned."""

    fact: Fact
    slot: int | None
    """Id of the slot that says it; none where its subject cannot be told from ordinary text."""
    before: float
    """Probability of the whole target before."""
    after: float
    """And after."""
    greedy: bool
    """Whether each token of the target is the likeliest one now."""


@dataclass(frozen=True)
class Learned:
    """What a learning did."""

    overlay: str
    layer: int
    """That the facts answer in."""
    facts: tuple[LearnedFact, ...]
    slots: tuple[int, ...]
    """All slots that were put in, those of subjects among them."""
    replaced: tuple[int, ...]
    """Slots that said something else on the same prompts."""


def learn(
    folder: Path,
    facts: FactText,
    overlay: str = "facts",
    *,
    layer: int | None = None,
    settings: WriteSettings | None = None,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
) -> Learned:
    """Write facts into the memory of the model in `folder`."""
    loaded = load_teacher(str(folder), dtype=dtype, device=device)
    if not banks(loaded.model):
        raise UsageError(f"{loaded.name} has no memory; `mindset convert {folder} --out DIR` gives it one")
    with Memory(Path(folder)) as memory:
        return learn_into(
            memory, loaded.model, loaded.tokenizer, facts, overlay, layer=layer, settings=settings
        )


def learn_into(
    memory: Memory,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    facts: FactText,
    overlay: str = "facts",
    *,
    layer: int | None = None,
    settings: WriteSettings | None = None,
) -> Learned:
    """As `learn`, with the folder's memory open and its model loaded; the model knows the facts afterwards."""
    check_overlay_name(overlay)
    layers = fact_layers(model, layer, _chosen_layers(memory, overlay))
    _refuse_other_slots(memory, overlay, layers)
    settings = settings or WriteSettings()
    with without_overlays(model):
        written = write_facts(model, tokenizer, last_told(facts.facts), layers, settings)
    if not written.facts:
        raise UsageError(
            "no subject can be told from ordinary text at this layer, and nothing was learned; give longer names, or "
            "another layer"
        )
    before = target_scores(model, tokenizer, facts.facts)
    writing = _Writing(memory, overlay, layers, facts)
    incoming = writing.incoming(written, settings.lean)
    ids = memory.put_in(incoming, f"{facts.name}, overlay {overlay}").tolist()
    mount(model, memory.store, overlay)
    after = target_scores(model, tokenizer, facts.facts)
    slot_of = dict(zip(written.facts, ids[-len(written.facts) :], strict=True))
    learned = tuple(
        LearnedFact(fact, slot_of.get(fact), then.probability, now.probability, now.greedy)
        for fact, then, now in zip(facts.facts, before, after, strict=True)
    )
    return Learned(overlay, layers.fact, learned, tuple(ids), incoming.replaced)


def _chosen_layers(memory: Memory, overlay: str) -> FactLayers | None:
    """Those that the overlay had its first facts in, else those of the model's sweep; None where there was none."""
    own = [info for info in memory.store.shards() if info.name == overlay]
    subjects = [info.layer for info in own if "mark" in info.fields]
    facts = [info.layer for info in own if "after" in info.fields]
    if subjects and facts:
        return FactLayers(subjects[0], facts[0])
    swept = read_sweep(memory.store.folder, memory.store.memory.generation)
    return None if swept is None else swept.layers


def _refuse_other_slots(memory: Memory, overlay: str, layers: FactLayers) -> None:
    """An overlay has slots of one kind in a layer: those of subjects, or those of facts."""
    for info in memory.store.shards():
        if info.name == overlay and info.layer in (layers.subject, layers.fact):
            wanted = {"mark", "spelled"} if info.layer == layers.subject else {"after", "until"}
            if not wanted <= info.fields.keys():
                raise UsageError(
                    f"layer {info.layer} of overlay {overlay!r} has slots of another kind, from another layer or "
                    "another release; give the layer that it was learned with, or another overlay"
                )


class _Writing:
    """Facts on their way into an overlay of a memory."""

    def __init__(self, memory: Memory, overlay: str, layers: FactLayers, given: FactText) -> None:
        self.memory, self.overlay, self.layers, self.given = memory, overlay, layers, given

    def incoming(self, written: Written, lean: float) -> Incoming:
        """Slots of new subjects, then one for each fact, in their order."""
        named = {one.label for one in self._records(self.layers.subject, SUBJECT_TAG)}
        balls, parts = written.balls(named), []
        if balls:
            told = {
                "mark": np.array([[mark_of(subject)] for subject, _, _ in balls]),
                "spelled": np.array([sum(ways, ()) for _, ways, _ in balls], np.int32),
            }
            new = [NewSlot(label=subject, tags=(SUBJECT_TAG,)) for subject, _, _ in balls]
            arrays = _arrays([ball for _, _, ball in balls]) | told
            parts.append(self._slots(self.layers.subject, new, arrays))
        facts, keyed = written.facts, written.keyed
        arrays = _arrays([one.asking for one in keyed], written.values) | {
            "after": np.array([[mark_of(fact.subject)] for fact in facts]),
            "until": np.array([[one.target[-1]] for one in keyed], np.int32),
            "token": np.array([[one.target[0]] for one in keyed], np.int32),
            "lean": np.full((len(facts), 1), lean, np.float32),
        }
        new = [NewSlot(cites=Citation(0, *fact.span), label=fact.subject, tags=(FACT_TAG,)) for fact in facts]
        parts.append(self._slots(self.layers.fact, new, arrays))
        sources = [(self.given.name, self.given.text)]
        return Incoming(sources, parts, tuple(self._replaced(facts)))

    def _records(self, layer: int, tag: str) -> list[SlotRecord]:
        where = Where(layer=layer, shard=self.overlay, tag=tag)
        return list(scan(self.memory.store.ledger, where, limit=1_000_000))

    def _replaced(self, facts: Sequence[Fact]) -> list[int]:
        """Slots that say something on the same prompts."""
        told = {(fact.subject, fact.prompt) for fact in facts}
        subjects = {fact.subject for fact in facts}
        found = []
        for one in self._records(self.layers.fact, FACT_TAG):
            if one.label not in subjects or one.cites is None:
                continue
            source = self.memory.store.ledger.source(one.cites.source)
            old = parse_facts(source.text[one.cites.start : one.cites.stop], source.name).facts
            if any((fact.subject, fact.prompt) in told for fact in old):
                found.append(one.id)
        return found

    def _slots(self, layer: int, new: list[NewSlot], arrays: dict[str, np.ndarray]) -> IncomingSlots:
        return IncomingSlots(self._shard(layer, arrays), new, arrays)

    def _shard(self, layer: int, arrays: dict[str, np.ndarray]) -> ShardInfo | NewShard:
        for info in self.memory.store.shards():
            if (info.layer, info.name) == (layer, self.overlay):
                return info
        fields = {name: {"dtype": str(rows.dtype), "d": int(rows.shape[1])} for name, rows in arrays.items()}
        return NewShard(layer, self.overlay, RADIUS, 1, RADIUS, gated=False, fields=fields)


def _arrays(keys: Sequence[RadiusKey], values: torch.Tensor | None = None) -> dict[str, np.ndarray]:
    """Keys, and values where there are any, in bytes with a scale each; the borders stay where they were."""
    rows = {"key": torch.stack([one.key for one in keys])} | ({} if values is None else {"value": values})
    stored, scales = dict[str, np.ndarray](), []
    for name, some in rows.items():
        scale = some.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        stored[name] = (some / scale).round().numpy().astype(np.int8)
        scales.append(scale.numpy().astype(np.float32))
    stored["scale"] = np.concatenate(scales, axis=1)
    stored["key_bias"] = np.array([[one.bias] for one in keys], np.float32)
    return stored
