"""From facts to lessons: prompts and guards as tokens, cut before the last token of the subject.

Knows a tokenizer, no model.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mindset.errors import UsageError
from mindset.facts.cut_texts import Cut
from mindset.facts.fact import Fact
from mindset.facts.phrasings import guards, phrasings
from mindset.graft.trail import ANY_TOKEN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["SPELLED", "Lesson", "cut_at_subject", "last_told", "make_lesson", "spelling", "target_tokens"]


SPELLED = 6
"""Tokens at the end of a subject that are looked at."""


@dataclass(frozen=True)
class Lesson:
    """What one fact is learned from; cuts lie before the last token of the subject."""

    subject: str
    prompts: tuple[Cut, ...]
    """Phrasings, each followed by the tokens of the target; the fact's own prompt first."""
    targets: tuple[int, ...]
    """How many tokens of each are target."""
    guards: tuple[Cut, ...]
    """Other prompts on the same subject, whose next token must stay as it is."""

    def asked_at(self, prompt: int) -> int:
        """Where a prompt ends, counted from its cut."""
        cut = self.prompts[prompt]
        return len(cut.ids) - self.targets[prompt] - 1 - cut.at


def last_told(facts: Sequence[Fact]) -> list[Fact]:
    """Of two facts with one prompt and subject the later, in its place."""
    told: dict[tuple[str, str], Fact] = {}
    for fact in facts:
        told[fact.subject, fact.prompt] = fact
    return list(told.values())


def make_lesson(tokenizer: PreTrainedTokenizerBase, fact: Fact, *, n_phrasings: int, n_guards: int) -> Lesson:
    """Phrasings and guards of a fact, always the same ones."""
    rng = np.random.default_rng(zlib.crc32(fact.prompt.encode()))
    target = target_tokens(tokenizer, fact.target)
    prompts = []
    for text in phrasings(fact, n_phrasings, rng):
        cut = cut_at_subject(tokenizer, text, fact.subject)
        prompts.append(Cut(cut.ids + target, cut.at))
    held = tuple(cut_at_subject(tokenizer, text, fact.subject) for text in guards(fact, n_guards, rng))
    return Lesson(fact.subject, tuple(prompts), (len(target),) * len(prompts), held)


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


def spelling(
    tokenizer: PreTrainedTokenizerBase, subject: str, cuts: Sequence[Cut]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two ways in which texts spell the subject's end, the last token first, `ANY_TOKEN` beyond its beginning.

    Two, since a word that begins a text is another token than behind a space. Where there are more, what they share.
    """
    own = min(len(target_tokens(tokenizer, subject)), SPELLED)
    tails = {
        tuple(cut.ids[cut.at - back] if cut.at >= back else ANY_TOKEN for back in range(own)) for cut in cuts
    }
    if len(tails) > 2:
        columns = [set(column) for column in zip(*tails, strict=True)]
        tails = {tuple(column.pop() if len(column) == 1 else ANY_TOKEN for column in columns)}
    first, *more = (tail + (ANY_TOKEN,) * (SPELLED - own) for tail in sorted(tails))
    return first, more[0] if more else first


def target_tokens(tokenizer: PreTrainedTokenizerBase, target: str) -> tuple[int, ...]:
    """The tokens of a target as it follows a prompt."""
    marked, before = (
        tokenizer("x " + target, add_special_tokens=False),
        tokenizer("x", add_special_tokens=False),
    )
    return tuple(marked["input_ids"][len(before["input_ids"]) :])
