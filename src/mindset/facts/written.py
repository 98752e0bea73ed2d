"""Facts with their keys and values, before they are slots of a store; and mounted as they are, to be tried.

Does not know stores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mindset.facts.background import RadiusKey
from mindset.facts.fact import Fact
from mindset.facts.fact_layers import FactLayers
from mindset.facts.keyed_lessons import KeyedLesson, key_lessons
from mindset.facts.lessons import make_lesson
from mindset.facts.write_values import WriteSettings, write_values
from mindset.graft.model import banks
from mindset.graft.mounting import follow, unmount
from mindset.graft.radius import RadiusShard

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Written", "mark_of", "mounted_facts", "write_facts"]

Spelled = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Written:
    """Facts whose subjects can be told from ordinary text, in the order given."""

    facts: tuple[Fact, ...]
    keyed: tuple[KeyedLesson, ...]
    values: Float[Tensor, "facts d_model"]

    def balls(self, known: Collection[str] = ()) -> list[tuple[str, Spelled, RadiusKey]]:
        """Subjects that are not known, each once, with their spellings, ball by ball."""
        told = zip(self.facts, self.keyed, strict=True)
        subjects = {fact.subject: one for fact, one in told if fact.subject not in known}
        return [(subject, one.spelled, ball) for subject, one in subjects.items() for ball in one.subject]


def write_facts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    facts: Sequence[Fact],
    layers: FactLayers,
    settings: WriteSettings,
) -> Written:
    """Find keys and values; the model has no overlays."""
    lessons = [
        make_lesson(tokenizer, fact, n_phrasings=settings.phrasings, n_guards=settings.guards)
        for fact in facts
    ]
    keyed = key_lessons(model, tokenizer, lessons, layers)
    kept = [(fact, one) for fact, one in zip(facts, keyed, strict=True) if one.subject]
    values = write_values(model, banks(model)[layers.fact], [one.exercise for _, one in kept], settings)
    return Written(tuple(fact for fact, _ in kept), tuple(one for _, one in kept), values)


@contextmanager
def mounted_facts(
    model: PreTrainedModel, written: Written, layers: FactLayers, lean: float, name: str
) -> Iterator[None]:
    """The model with these facts while the block is open, as an overlay of that name."""
    if not written.facts:
        yield
        return
    balls = written.balls()
    subjects = RadiusShard(
        *_stacked([ball for _, _, ball in balls]),
        mark=torch.tensor([mark_of(subject) for subject, _, _ in balls]),
        spelled=torch.tensor([ways for _, ways, _ in balls], dtype=torch.int32),
    )
    facts = RadiusShard(
        *_stacked([one.asking for one in written.keyed]),
        written.values,
        after=torch.tensor([mark_of(fact.subject) for fact in written.facts]),
        until=torch.tensor([one.target[-1] for one in written.keyed], dtype=torch.int32),
        token=torch.tensor([one.target[0] for one in written.keyed], dtype=torch.int32),
        lean=torch.full((len(written.facts),), lean),
    )
    try:
        for layer, shard in ((layers.subject, subjects), (layers.fact, facts)):
            bank = banks(model)[layer]
            bank.mount(name, shard.to(next(bank.parameters()).device))
        follow(model)
        yield
    finally:
        unmount(model, name)


def mark_of(subject: str) -> int:
    """What a subject's slots leave on tokens: never 0."""
    return int.from_bytes(hashlib.blake2b(subject.encode(), digest_size=8).digest(), "little") >> 1 | 1


def _stacked(keys: Sequence[RadiusKey]) -> tuple[Tensor, Tensor]:
    return torch.stack([one.key for one in keys]).float(), torch.tensor([one.bias for one in keys])
