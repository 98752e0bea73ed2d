"""The value of a fact: what has to be added at its subject so that the model goes on with its target.

A value is found by a few steps of Adam on the target's likelihood over several phrasings, held back by the divergence
from the model as it is on guards: prompts on the same subject that the fact says nothing about. Many facts are written
at once, each with its own value; each step draws a few phrasings and guards of every fact. After Meng et al. 2022
(ROME, section 3.1, step 2), with guards of many relations in place of one.

Knows no slots and no files. Invariant: the model's weights are not touched, nor is what they say of gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mindset.errors import UsageError
from mindset.facts.cut_texts import Cut, CutTexts
from mindset.facts.subject_keys import Background, SubjectKey, subject_keys
from mindset.graft.bank import Bank

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Lesson", "WriteSettings", "Written", "write_values"]


@dataclass(frozen=True)
class WriteSettings:
    """How values are found."""

    steps: int = 20
    """Steps of Adam."""
    learning_rate: float = 0.5
    """At the first step; falls with the square root of what is left."""
    guard: float = 0.5
    """Weight of the guards' KL divergence beside the target's negative log-likelihood."""
    phrasings: int = 6
    """Prompts that a fact is learned from, at most."""
    guards: int = 8
    """Prompts that it must leave alone."""
    phrasings_a_step: int = 2
    """Drawn anew for every key of a fact in every step."""
    guards_a_step: int = 2
    """As `phrasings_a_step`; 0: nothing is guarded."""
    together: int = 16
    """Facts that are written at once."""

    def __post_init__(self) -> None:
        for name in ("steps", "learning_rate", "phrasings", "phrasings_a_step", "together"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} = {getattr(self, name)}; give more than 0")
        if min(self.guard, self.guards, self.guards_a_step) < 0:
            raise UsageError("guards and their weight are 0 or more")


@dataclass(frozen=True)
class Lesson:
    """What one value is to do; cuts lie before the last token of the subject."""

    prompts: tuple[Cut, ...]
    """Phrasings, each followed by the tokens of its target."""
    targets: tuple[int, ...]
    """How many tokens of each are target."""
    guards: tuple[Cut, ...]
    """Prompts whose next token must stay as it is."""


@dataclass(frozen=True, eq=False)
class Written:
    """A value with the key that it is for."""

    lesson: int
    """Which of the lessons it is of."""
    key: SubjectKey
    value: Float[Tensor, " d_model"]


def write_values(
    model: PreTrainedModel,
    bank: Bank,
    background: Background,
    lessons: Sequence[Lesson],
    settings: WriteSettings,
) -> list[Written]:
    """Find keys and values for `lessons`, to be added to what `bank` returns at the subject."""
    written: list[Written] = []
    with _frozen(model):
        for start in range(0, len(lessons), settings.together):
            batch = _Batch(model, bank, lessons[start : start + settings.together], settings, seed=start)
            keys = batch.recognise(background)
            values = batch.train() if keys else ()
            written += [
                Written(start + lesson, key, value) for (lesson, key), value in zip(keys, values, strict=True)
            ]
    return written


@contextmanager
def _frozen(model: PreTrainedModel) -> Iterator[None]:
    asked = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    was_training = model.training
    model.eval()
    try:
        for parameter, _ in asked:
            parameter.requires_grad_(False)
        yield
    finally:
        model.train(was_training)
        for parameter, wanted in asked:
            parameter.requires_grad_(wanted)


class _Batch:
    """Lessons that are learned together."""

    def __init__(
        self,
        model: PreTrainedModel,
        bank: Bank,
        lessons: Sequence[Lesson],
        settings: WriteSettings,
        seed: int,
    ) -> None:
        self.bank, self.lessons, self.settings = bank, lessons, settings
        prompts = [
            (i, cut, n)
            for i, one in enumerate(lessons)
            for cut, n in zip(one.prompts, one.targets, strict=True)
        ]
        guards = [(i, cut) for i, one in enumerate(lessons) for cut in one.guards]
        self.owner = torch.tensor([i for i, _, _ in prompts] + [i for i, _ in guards])
        self.n_prompts = len(prompts)
        self.target_lengths = torch.tensor([n for _, _, n in prompts])
        self.target_ids = [cut.ids[len(cut.ids) - n :] for _, cut, n in prompts]
        self.texts = CutTexts(model, [cut for _, cut, _ in prompts] + [cut for _, cut in guards])
        self.generator = torch.Generator().manual_seed(seed)
        self.before: Tensor | None = None
        self.count = 0

    def recognise(self, background: Background) -> list[tuple[int, SubjectKey]]:
        """Run everything once without a value; returns the keys, each with its lesson.

        From now on every text belongs to the key that it is nearest to; a key that nothing is learned at is left out.
        """
        inputs, last = self._unchanged()
        self.before = last[self.n_prompts :].log_softmax(-1)
        lesson_of, keys = self.owner, list[tuple[int, SubjectKey]]()
        self.owner = torch.full_like(lesson_of, -1)
        for lesson in range(len(self.lessons)):
            mine = (lesson_of == lesson).nonzero()[:, 0]
            balls = subject_keys(inputs[mine], background)
            if not balls:
                continue
            nearest = torch.stack([ball.margins(inputs[mine].cpu()) for ball in balls]).argmax(0)
            for i, ball in enumerate(balls):
                rows = mine[nearest == i]
                if (rows < self.n_prompts).any():
                    self.owner[rows] = len(keys)
                    keys.append((lesson, ball))
        self.count = len(keys)
        return keys

    def _unchanged(self) -> tuple[Float[Tensor, "texts d_model"], Float[Tensor, "texts vocab"]]:
        """The bank's inputs at the subjects, and the logits at the ends."""
        rows, seen = torch.arange(len(self.texts)), []
        places, width = self.texts.places(rows)

        def keep(_: Bank, args: tuple[Tensor, ...]) -> None:
            seen.append(args[0].reshape(len(rows), width, -1)[rows, places])

        handle = self.bank.register_forward_pre_hook(keep)
        try:
            with torch.no_grad():
                last = self.texts.logits(rows, 1)[:, 0]
        finally:
            handle.remove()
        return seen[0], last

    def train(self) -> Float[Tensor, "keys d_model"]:
        """The values."""
        wanted = self.settings
        first = next(self.bank.parameters())
        values = torch.zeros(self.count, self.bank.d_model, device=first.device, requires_grad=True)
        optimizer = torch.optim.Adam([values], lr=wanted.learning_rate, betas=(0.9, 0.95))
        for step in range(wanted.steps):
            optimizer.param_groups[0]["lr"] = wanted.learning_rate * (1 - step / wanted.steps) ** 0.5
            optimizer.zero_grad()
            with torch.enable_grad():
                self._loss(values).backward()
            optimizer.step()
        return values.detach()

    def _loss(self, values: Float[Tensor, "keys d_model"]) -> Float[Tensor, ""]:
        prompts, guards = self._drawn()
        rows = torch.cat([prompts, guards])
        keep = int(self.target_lengths[prompts].max()) + 1
        with self._added(values, rows):
            said = self.texts.logits(rows, keep).float().log_softmax(-1)
        loss = -self._target_likelihood(said[: len(prompts)], prompts, keep)
        if len(guards) and self.before is not None:
            held = self.before[guards - self.n_prompts]
            now = said[len(prompts) :, -1]
            loss = (
                loss + self.settings.guard * (held.exp() * (held - now)).sum() / self.settings.guards_a_step
            )
        return loss

    def _target_likelihood(
        self, said: Float[Tensor, "rows keep vocab"], rows: Int[Tensor, " rows"], keep: int
    ) -> Float[Tensor, ""]:
        """The summed log-likelihood of the targets, a lesson's mean over its prompts."""
        which, column, token = list[int](), list[int](), list[int]()
        for i, row in enumerate(rows.tolist()):
            ids = self.target_ids[row]
            which += [i] * len(ids)
            column += range(keep - 1 - len(ids), keep - 1)
            token += ids
        return said[which, column, token].sum() / self.settings.phrasings_a_step

    def _drawn(self) -> tuple[Int[Tensor, " prompts"], Int[Tensor, " guards"]]:
        """A few prompts and guards of every lesson."""
        prompts, guards = [], []
        for i in range(self.count):
            mine = (self.owner == i).nonzero()[:, 0]
            shuffled = mine[torch.randperm(len(mine), generator=self.generator)]
            prompts.append(shuffled[shuffled < self.n_prompts][: self.settings.phrasings_a_step])
            guards.append(shuffled[shuffled >= self.n_prompts][: self.settings.guards_a_step])
        return torch.cat(prompts), torch.cat(guards)

    @contextmanager
    def _added(self, values: Float[Tensor, "keys d_model"], rows: Int[Tensor, " rows"]) -> Iterator[None]:
        """Each row's value in what the bank returns at the row's subject."""
        places, width = self.texts.places(rows)

        def add(_: Bank, __: object, output: Tensor) -> Tensor:
            own = values[self.owner[rows]].to(output.dtype)
            at = torch.zeros(len(rows), width, 1, dtype=output.dtype, device=output.device)
            at[torch.arange(len(rows)), places] = 1
            return output + (at * own[:, None]).view_as(output)

        handle = self.bank.register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()
