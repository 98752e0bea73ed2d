"""Lessons with their keys: where in a network a subject is met, and where a text asks for a fact on it.

Two layers take part: a low one, where the last token of a subject says whom the text is about, and a middle one, where
the last token of a prompt says what is asked. Knows no slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mindset.facts.asking_keys import asking_key
from mindset.facts.background import Background, RadiusKey, measure_backgrounds
from mindset.facts.cut_texts import Cut
from mindset.facts.fact_layers import FactLayers
from mindset.facts.lessons import Lesson, cut_at_subject, spelling
from mindset.facts.names import NAMES, namesakes, other_names
from mindset.facts.seen_inputs import inputs_from_cuts
from mindset.facts.subject_keys import NEAR, REACH, subject_keys
from mindset.facts.write_values import Exercise

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["KeyedLesson", "Names", "key_lessons"]

_MOST_GUARDS = 6
"""Prompts at which a key fires though it should not, that its value is held back at."""
_MENTION = "We read about {} yesterday"
"""A text with a name in it."""
_BEGINNING = "{} is"
"""One that begins with it, where a block sees less of a name and more of the place."""


@dataclass(frozen=True, eq=False)
class KeyedLesson:
    """The keys of one fact, and what its value is trained on."""

    subject: tuple[RadiusKey, ...]
    """Balls around its subject; none where that cannot be told from ordinary text."""
    spelled: tuple[tuple[int, ...], tuple[int, ...]]
    """The ways in which it ends, see `spelling`."""
    asking: RadiusKey
    """Fires where a text asks for the fact."""
    exercise: Exercise

    @property
    def target(self) -> tuple[int, ...]:
        """Its tokens."""
        return self.exercise.prompts[0].ids[-self.exercise.targets[0] :]


def key_lessons(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, lessons: Sequence[Lesson], layers: FactLayers
) -> list[KeyedLesson]:
    """Find the keys of all lessons; the model is as it is without what they teach."""
    low, middle = measure_backgrounds(model, tokenizer, (layers.subject, layers.fact))
    told = Names(model, tokenizer, (layers.subject,))
    return [_keyed(model, tokenizer, lesson, layers, low, middle, told) for lesson in lessons]


class Names:
    """What layers see at the ends of names that are not the subject."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layers: tuple[int, ...]
    ) -> None:
        self.model, self.tokenizer, self.layers = model, tokenizer, layers
        inside, first = self._ends(NAMES), self._ends(NAMES, _BEGINNING)
        self.known = {
            layer: {
                name: torch.stack(ends)
                for name, *ends in zip(NAMES, inside[layer], first[layer], strict=True)
            }
            for layer in layers
        }

    def ends_like(self, subject: str) -> dict[int, Float[Tensor, "names d_model"]]:
        """By layer: the ends of names that end as the subject does; nothing where it is one word."""
        made = namesakes(subject)
        return {layer: torch.stack(ends) for layer, ends in self._ends(made).items()} if made else {}

    def keys(
        self,
        layer: int,
        subject: str,
        ends_like: dict[int, Float[Tensor, "names d_model"]],
        inputs: Float[Tensor, "texts d_model"],
        background: Background,
    ) -> list[RadiusKey]:
        """Balls around the subject; told from other names as far as its place in the first text stays inside."""
        others = torch.cat([self.known[layer][name] for name in other_names(subject)])
        same_end = ends_like.get(layer)
        for known in (
            (others, same_end, NEAR),
            (others, same_end, REACH),
            (others, None, REACH),
            (None, None, REACH),
        ):
            found = subject_keys(inputs, background, *known)
            if any(float(ball.margins(inputs[:1].cpu())) > 0 for ball in found):
                return found
        return found

    def _ends(self, names: Sequence[str], text: str = _MENTION) -> dict[int, list[Float[Tensor, " d_model"]]]:
        cuts = [cut_at_subject(self.tokenizer, text.format(name), name) for name in names]
        seen = inputs_from_cuts(self.model, cuts, self.layers)
        return {layer: [one[layer][0] for one in seen] for layer in self.layers}


def _keyed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    lesson: Lesson,
    layers: FactLayers,
    low: Background,
    middle: Background,
    names: Names,
) -> KeyedLesson:
    cuts = [*lesson.prompts, *lesson.guards]
    seen = inputs_from_cuts(model, cuts, (layers.subject, layers.fact))
    prompts, guards = seen[: len(lesson.prompts)], seen[len(lesson.prompts) :]
    met = torch.stack([one[layers.subject][0] for one in seen])
    subject = names.keys(layers.subject, lesson.subject, names.ends_like(lesson.subject), met, low)
    asked_at = [lesson.asked_at(i) for i in range(len(prompts))]
    asking = asking_key(
        torch.stack([one[layers.fact][at] for one, at in zip(prompts, asked_at, strict=True)]),
        torch.stack([one[layers.fact][-1] for one in guards]),
        middle,
    )
    fires = [_fires(one[layers.fact], asking) for one in seen]
    for i, (one, at) in enumerate(zip(fires, asked_at, strict=False)):
        one[at] = True  # a prompt that the key misses teaches all the same
        one[at + lesson.targets[i] :] = False  # the target is said
    disturbed = [i for i in range(len(prompts), len(cuts)) if fires[i].any()][:_MOST_GUARDS]
    recut = [_from_first_fire(cuts[i], fires[i]) for i in (*range(len(prompts)), *disturbed)]
    exercise = Exercise(
        tuple(cut for cut, _ in recut[: len(prompts)]),
        lesson.targets,
        tuple(cut for cut, _ in recut[len(prompts) :]),
        tuple(one for _, one in recut),
    )
    return KeyedLesson(tuple(subject), spelling(tokenizer, lesson.subject, cuts), asking, exercise)


def _fires(seen: Float[Tensor, "pos d_model"], key: RadiusKey) -> Bool[Tensor, " pos"]:
    """Where the key fires from the subject on."""
    return key.margins(seen.cpu()) > 0


def _from_first_fire(cut: Cut, fires: Bool[Tensor, " pos"]) -> tuple[Cut, Bool[Tensor, " rest"]]:
    """The text cut where the key fires first: what lies before stays as it is."""
    first = int(fires.nonzero()[0])
    return Cut(cut.ids, cut.at + first), fires[first:]
