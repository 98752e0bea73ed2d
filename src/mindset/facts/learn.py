"""Facts into a memory: written as radius slots of an overlay, one entry of the history, each citing its line.

A slot of the overlay that spoke of the same subject is replaced by one that says both; a new target for the same prompt
replaces the old one. What was learned is checked at once: the targets' probabilities before and after.

Does not know the command line. Invariant: where anything fails the memory is as it was.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mindset.errors import UsageError
from mindset.facts.fact import Fact, FactText, parse_facts
from mindset.facts.lessons import by_subject, make_lesson, target_tokens
from mindset.facts.subject_keys import measure_background
from mindset.facts.write_values import WriteSettings, Written, write_values
from mindset.graft.model import banks
from mindset.graft.mounting import mount, without_overlays
from mindset.graft.sources import load_teacher
from mindset.store.edit import NewShard
from mindset.store.memory import Memory
from mindset.store.scan import Where, scan
from mindset.store.shard_info import OWN_SHARDS, RADIUS, ShardInfo
from mindset.store.slots import Citation, NewSlot, SlotRecord
from mindset.store.store import Incoming, IncomingSlots

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["DEPTH", "Learned", "LearnedFact", "fact_layer", "learn", "learn_into"]

DEPTH = 0.13
"""Share of the layers below the one that facts are written to; measured on SmolLM2."""
FACT_TAG = "fact"
_DTYPE = "float16"


@dataclass(frozen=True)
class LearnedFact:
    """One fact that was learned."""

    fact: Fact
    slots: tuple[int, ...]
    """Ids of the slots that say it; none where its subject cannot be told from ordinary text."""
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
    facts: tuple[LearnedFact, ...]
    slots: tuple[int, ...]
    """All slots that were put in."""
    replaced: tuple[int, ...]
    """Slots whose facts the new ones say too."""


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
    if overlay in OWN_SHARDS:
        raise UsageError(f"an overlay cannot be called {overlay!r}; these are a bank's own slots")
    layer = fact_layer(model, layer)
    settings = settings or WriteSettings()
    known = _known(memory, overlay, layer)
    groups = [_Group(one, known.get(one[0].subject, []), memory) for one in by_subject(facts.facts)]
    with without_overlays(model):
        lessons = [make_lesson(tokenizer, group.facts, settings) for group in groups]
        background = measure_background(model, tokenizer, layer)
        written = write_values(model, banks(model)[layer], background, lessons, settings)
    if not written:
        raise UsageError(
            "no subject can be told from ordinary text at this layer, and nothing was learned; give longer names, or "
            "another layer"
        )
    before = target_probabilities(model, tokenizer, facts.facts)
    ids = memory.put_in(
        _incoming(memory, facts, overlay, layer, groups, written), f"{facts.name}, overlay {overlay}"
    )
    mount(model, memory.store, overlay)
    after = target_probabilities(model, tokenizer, facts.facts)
    return _report(facts, overlay, layer, groups, written, ids.tolist(), before, after)


def fact_layer(model: PreTrainedModel, layer: int | None = None) -> int:
    """The layer to write to: the one asked for, or that with a bank nearest to the measured depth."""
    there = sorted(banks(model))
    if layer is None:
        wanted = round(DEPTH * int(model.config.get_text_config().num_hidden_layers))
        return min(there, key=lambda one: (abs(one - wanted), one))
    if layer not in there:
        raise UsageError(f"layer {layer} has no memory; those that have: {', '.join(map(str, there))}")
    return layer


@dataclass(frozen=True)
class TargetScore:
    """How a model goes on after a fact's prompt."""

    probability: float
    """Of the whole target."""
    greedy: bool
    """Whether each of its tokens is the likeliest."""


@torch.no_grad()
def target_probabilities(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, facts: Sequence[Fact]
) -> list[TargetScore]:
    """The targets after their prompts."""
    scores = []
    for fact in facts:
        prompt = tokenizer(fact.prompt, add_special_tokens=False)["input_ids"]
        target = target_tokens(tokenizer, fact.target)
        ids = torch.tensor([[*prompt, *target]], device=model.device)
        said = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1).cpu()
        wanted = torch.tensor(target)
        likelihood = said[torch.arange(len(target)), wanted].sum()
        scores.append(TargetScore(float(likelihood.exp()), bool((said.argmax(-1) == wanted).all())))
    return scores


def _known(memory: Memory, overlay: str, layer: int) -> dict[str, list[SlotRecord]]:
    """The overlay's facts by subject."""
    found: dict[str, list[SlotRecord]] = {}
    for record in scan(memory.store.ledger, Where(layer=layer, shard=overlay, tag=FACT_TAG), limit=1_000_000):
        found.setdefault(record.label, []).append(record)
    return found


class _Group:
    """Facts on one subject, with those that the overlay knows of it already; what is told anew is not kept."""

    def __init__(self, facts: Sequence[Fact], replaced: list[SlotRecord], memory: Memory) -> None:
        self.facts, self.replaced = list(facts), replaced
        told = {fact.prompt for fact in self.facts}
        for cited in {one.cites for one in self.replaced if one.cites}:
            source = memory.store.ledger.source(cited.source)
            old = parse_facts(source.text[cited.start : cited.stop], source.name)
            self.facts = [*(fact for fact in old.facts if fact.prompt not in told), *self.facts]

    def source(self, given: FactText) -> tuple[str, str, int, int]:
        """Name, text and range of what the group's slots cite."""
        if len(self.facts) == 1:
            return given.name, given.text, *self.facts[0].span
        lines = "\n".join(_line(fact) for fact in self.facts)
        return f"{given.name}, on {self.facts[0].subject}", lines, 0, len(lines)


def _line(fact: Fact) -> str:
    told: dict[str, Any] = {"prompt": fact.prompt, "target": fact.target, "subject": fact.subject}
    if fact.paraphrases:
        told["paraphrases"] = list(fact.paraphrases)
    if fact.source:
        told["source"] = fact.source
    return json.dumps(told, ensure_ascii=False)


def _incoming(
    memory: Memory,
    given: FactText,
    overlay: str,
    layer: int,
    groups: Sequence[_Group],
    written: Sequence[Written],
) -> Incoming:
    sources: dict[tuple[str, str], int] = {}
    new = []
    for one in written:
        group = groups[one.lesson]
        name, text, start, stop = group.source(given)
        cites = Citation(sources.setdefault((name, text), len(sources)), start, stop)
        new.append(NewSlot(cites=cites, label=group.facts[0].subject, tags=(FACT_TAG,)))
    arrays = {
        "key": torch.stack([one.key.key for one in written]).numpy().astype(_DTYPE),
        "key_bias": np.array([one.key.bias for one in written])[:, None].astype(_DTYPE),
        "value": torch.stack([one.value for one in written]).cpu().numpy().astype(_DTYPE),
    }
    replaced = tuple(one.id for group in groups for one in group.replaced)
    shard = _shard(memory, overlay, layer, arrays)
    return Incoming([*sources], [IncomingSlots(shard, new, arrays)], replaced)


def _shard(memory: Memory, overlay: str, layer: int, arrays: dict[str, np.ndarray]) -> ShardInfo | NewShard:
    for info in memory.store.shards():
        if (info.layer, info.name) == (layer, overlay):
            return info
    fields = {name: {"dtype": _DTYPE, "d": int(array.shape[1])} for name, array in arrays.items()}
    return NewShard(layer, overlay, RADIUS, 1, RADIUS, gated=False, fields=fields)


def _report(
    given: FactText,
    overlay: str,
    layer: int,
    groups: Sequence[_Group],
    written: Sequence[Written],
    ids: list[int],
    before: Sequence[TargetScore],
    after: Sequence[TargetScore],
) -> Learned:
    slots: dict[str, list[int]] = {}
    for one, number in zip(written, ids, strict=True):
        slots.setdefault(groups[one.lesson].facts[0].subject, []).append(number)
    facts = tuple(
        LearnedFact(fact, tuple(slots.get(fact.subject, ())), then.probability, now.probability, now.greedy)
        for fact, then, now in zip(given.facts, before, after, strict=True)
    )
    replaced = tuple(one.id for group in groups for one in group.replaced)
    return Learned(overlay, layer, facts, tuple(ids), replaced)
