"""The value of a fact: what has to be added where a text asks for it so that the model goes on with its target.

A value is found by a few steps of Adam on the target's likelihood over several phrasings, held back by the divergence
from the model as it is on guards: prompts on the same subject at which the fact's key fires though they do not ask for
it. It is added wherever the key fires, so that it is trained under the conditions it will be read in. Many facts are
written at once, each with its own value; each step draws a few phrasings and guards of every fact. After Meng et al.
2022 (ROME, section 3.1, step 2).

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
from mindset.graft.bank import Bank

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Exercise", "WriteSettings", "write_values"]

_SHORT = 4
"""Tokens from the cut on of texts that are computed together; longer ones are, too, so that padding stays little."""


@dataclass(frozen=True)
class WriteSettings:
    """How values are found."""

    steps: int = 30
    """Steps of Adam."""
    learning_rate: float = 1.0
    """At the first step; falls with the square root of what is left."""
    guard: float = 0.5
    """Weight of the guards' KL divergence beside the target's negative log-likelihood."""
    phrasings: int = 9
    """Prompts that a fact is learned from, at most."""
    guards: int = 56
    """Prompts that its key is told from, at most."""
    phrasings_a_step: int = 2
    """Drawn anew for every fact in every step."""
    guards_a_step: int = 2
    """As `phrasings_a_step`, of those at which the key fires; 0: nothing is guarded."""
    together: int = 16
    """Facts that are written at once."""
    lean: float = 4.5
    """Nats by which the target's first token is likelier behind the subject, whatever is asked; 0: not at all."""

    def __post_init__(self) -> None:
        for name in ("steps", "learning_rate", "phrasings", "guards", "phrasings_a_step", "together"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} = {getattr(self, name)}; give more than 0")
        if min(self.guard, self.guards_a_step, self.lean) < 0:
            raise UsageError("guards a step, their weight and the lean are 0 or more")


@dataclass(frozen=True, eq=False)
class Exercise:
    """What one value is trained on, and at which tokens it is added."""

    prompts: tuple[Cut, ...]
    """Phrasings, each followed by the tokens of its target."""
    targets: tuple[int, ...]
    """How many tokens of each are target."""
    guards: tuple[Cut, ...]
    """Prompts whose next token must stay as it is."""
    fires: tuple[Tensor, ...]
    """For every prompt, then for every guard, booleans: the tokens from the cut on to which the value is added."""


def write_values(
    model: PreTrainedModel, bank: Bank, exercises: Sequence[Exercise], settings: WriteSettings
) -> Float[Tensor, "exercises d_model"]:
    """Find values to be added to what `bank` returns where the exercises say."""
    found = [torch.empty(0, bank.d_model)]
    with _frozen(model):
        for start in range(0, len(exercises), settings.together):
            some = exercises[start : start + settings.together]
            found.append(_Batch(model, bank, some, settings, seed=start).train().cpu())
    return torch.cat(found)


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
        for parameter, wanted in asked:
            parameter.requires_grad_(wanted)
        model.train(was_training)


class _Batch:
    """Values that are found together."""

    def __init__(
        self,
        model: PreTrainedModel,
        bank: Bank,
        exercises: Sequence[Exercise],
        settings: WriteSettings,
        seed: int,
    ) -> None:
        self.bank, self.settings, self.count = bank, settings, len(exercises)
        prompts = [cut for one in exercises for cut in one.prompts]
        guards = [cut for one in exercises for cut in one.guards]
        self.n_prompts = len(prompts)
        self.owner = torch.tensor(
            [i for i, one in enumerate(exercises) for _ in one.prompts]
            + [i for i, one in enumerate(exercises) for _ in one.guards]
        )
        lengths = [length for one in exercises for length in one.targets]
        self.target_ids = [cut.ids[len(cut.ids) - n :] for cut, n in zip(prompts, lengths, strict=True)]
        self.target_lengths = torch.tensor(lengths)
        self.texts = CutTexts(model, [*prompts, *guards], bank.layer)
        self.fires = self._flush_right(
            [fires for one in exercises for fires in one.fires[: len(one.prompts)]]
            + [fires for one in exercises for fires in one.fires[len(one.prompts) :]]
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.before: Tensor | None = None
        if guards and settings.guards_a_step:
            with torch.no_grad():
                rows = torch.arange(self.n_prompts, len(self.owner))
                self.before = torch.cat(
                    [self.texts.logits(some, 1)[:, -1].float().log_softmax(-1) for some in rows.split(64)]
                )

    def _flush_right(self, fires: Sequence[Tensor]) -> Float[Tensor, "texts width"]:
        width = max(len(one) for one in fires)
        out = torch.zeros(len(fires), width)
        for row, one in zip(out, fires, strict=True):
            row[width - len(one) :] = one.to(out.dtype)
        return out

    def train(self) -> Float[Tensor, "exercises d_model"]:
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

    def _loss(self, values: Float[Tensor, "exercises d_model"]) -> Float[Tensor, ""]:
        """Of some prompts and guards, those of about one length computed together."""
        drawn = self._drawn()
        lengths = self.texts.lengths[drawn]
        loss = torch.zeros((), device=values.device)
        for rows in (drawn[lengths <= _SHORT], drawn[lengths > _SHORT]):
            if len(rows):
                loss = loss + self._loss_of(values, rows.sort().values)
        return loss

    def _loss_of(
        self, values: Float[Tensor, "exercises d_model"], rows: Int[Tensor, " rows"]
    ) -> Float[Tensor, ""]:
        prompts, guards = rows[rows < self.n_prompts], rows[rows >= self.n_prompts]
        keep = int(self.target_lengths[prompts].max()) + 1 if len(prompts) else 1
        with self._added(values, rows):
            said = self.texts.logits(rows, keep)
        loss = torch.zeros((), device=said.device)
        if len(prompts):
            loss = loss - self._target_likelihood(said[: len(prompts)], prompts, keep)
        if len(guards) and self.before is not None:
            held = self.before[guards - self.n_prompts]
            now = said[len(prompts) :, -1].float().log_softmax(-1)
            loss = (
                loss + self.settings.guard * (held.exp() * (held - now)).sum() / self.settings.guards_a_step
            )
        return loss

    def _target_likelihood(
        self, said: Float[Tensor, "rows keep vocab"], rows: Int[Tensor, " rows"], keep: int
    ) -> Float[Tensor, ""]:
        """The summed log-likelihood of the targets, a fact's mean over its prompts."""
        which, column, token = list[int](), list[int](), list[int]()
        for i, row in enumerate(rows.tolist()):
            ids = self.target_ids[row]
            which += [i] * len(ids)
            column += range(keep - 1 - len(ids), keep - 1)
            token += ids
        asked = said[which, column].float().log_softmax(-1)
        return asked[torch.arange(len(token)), token].sum() / self.settings.phrasings_a_step

    def _drawn(self) -> Int[Tensor, " rows"]:
        """A few prompts and guards of every fact."""
        drawn = []
        for i in range(self.count):
            mine = (self.owner == i).nonzero()[:, 0]
            shuffled = mine[torch.randperm(len(mine), generator=self.generator)]
            drawn.append(shuffled[shuffled < self.n_prompts][: self.settings.phrasings_a_step])
            drawn.append(shuffled[shuffled >= self.n_prompts][: self.settings.guards_a_step])
        return torch.cat(drawn)

    @contextmanager
    def _added(
        self, values: Float[Tensor, "exercises d_model"], rows: Int[Tensor, " rows"]
    ) -> Iterator[None]:
        """Each row's value in what the bank returns, at the tokens at which its key fires."""
        _, width = self.texts.places(rows)
        at = self.fires[rows, -width:].to(values)[..., None]

        def add(_: Bank, __: object, output: Tensor) -> Tensor:
            own = values[self.owner[rows]].to(output.dtype)
            return output + (at.to(output.dtype) * own[:, None]).view_as(output)

        handle = self.bank.register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()
