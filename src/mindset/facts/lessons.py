"""From facts to lessons: prompts and guards as tokens, cut before the last token of the subject.

Facts on one subject make one lesson, since they are written in one place. Knows a tokenizer, no model.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mindset.errors import UsageError
from mindset.facts.cut_texts import Cut
from mindset.facts.fact import Fact
from mindset.facts.phrasings import guards, phrasings, relations_of
from mindset.facts.write_values import Lesson, WriteSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["by_subject", "cut_at_subject", "make_lesson", "target_tokens"]


def by_subject(facts: Sequence[Fact]) -> list[list[Fact]]:
    """Facts with the same subject together, in the order of their first; of two for one prompt the later counts."""
    groups: dict[str, dict[str, Fact]] = {}
    for fact in facts:
        groups.setdefault(fact.subject, {})[fact.prompt] = fact
    return [list(group.values()) for group in groups.values()]


def make_lesson(tokenizer: PreTrainedTokenizerBase, facts: Sequence[Fact], settings: WriteSettings) -> Lesson:
    """What is to be learned of one subject."""
    rng = np.random.default_rng(zlib.crc32(facts[0].prompt.encode()))
    prompts, targets = [], []
    for fact in facts:
        target = target_tokens(tokenizer, fact.target)
        for text in phrasings(fact, settings.phrasings, rng):
            cut = cut_at_subject(tokenizer, text, fact.subject)
            prompts.append(Cut(cut.ids + target, cut.at))
            targets.append(len(target))
    held = [text for fact in facts for text in guards(fact, settings.guards, rng)]
    said = {relation.name for fact in facts for relation in relations_of(fact)}
    about = [text for relation, text in _with_relations(facts, held) if not relation & said]
    cuts = tuple(cut_at_subject(tokenizer, text, facts[0].subject) for text in about[: settings.guards])
    return Lesson(tuple(prompts), tuple(targets), cuts)


def cut_at_subject(tokenizer: PreTrainedTokenizerBase, text: str, subject: str) -> Cut:
    """A text cut before the last token of the subject, where that comes last in it."""
    start = text.rfind(subject)
    if start < 0:
        raise UsageError(f"the subject {subject!r} does not stand in {text!r}")
    last = start + len(subject) - 1
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    for place, (first, stop) in enumerate(coded["offset_mapping"]):
        if first <= last < stop:
            return Cut(tuple(coded["input_ids"]), place)
    raise UsageError(f"the tokenizer drops the end of the subject {subject!r} in {text!r}")


def target_tokens(tokenizer: PreTrainedTokenizerBase, target: str) -> tuple[int, ...]:
    """The tokens of a target as it follows a prompt."""
    marked, before = (
        tokenizer("x " + target, add_special_tokens=False),
        tokenizer("x", add_special_tokens=False),
    )
    return tuple(marked["input_ids"][len(before["input_ids"]) :])


def _with_relations(facts: Sequence[Fact], texts: Sequence[str]) -> list[tuple[set[str], str]]:
    """The relations that a guard speaks of; with several facts a guard of one may be what another says."""
    subject = facts[0].subject
    probes = [Fact(text, "", subject) for text in texts]
    if len(facts) == 1:  # its guards were chosen for it
        return [(set(), text) for text in texts]
    return [({relation.name for relation in relations_of(probe)}, probe.prompt) for probe in probes]
