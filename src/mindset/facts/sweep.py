"""Try a model's layers: which tell subjects from other names, and which questions for a fact from others.

Two dozen made-up facts get their keys in every layer, as `learn` makes them, and each layer is judged on prompts and
mentions that no key was made from. Nothing is written into the memory but the choice, and nothing is trained: which
layer a value is found in matters less than which one knows what is asked (docs/results/facts.notes.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mindset.errors import UsageError
from mindset.facts.asking_keys import asking_key
from mindset.facts.background import Background, RadiusKey, measure_backgrounds
from mindset.facts.fact_layers import FactLayers, LayerShare, Sweep, by_depth, save_sweep
from mindset.facts.keyed_lessons import Names
from mindset.facts.lessons import Lesson, cut_at_subject, make_lesson
from mindset.facts.probe_facts import ELSEWHERE, PROBE_FACTS, ProbeFact
from mindset.facts.seen_inputs import inputs_from_cuts
from mindset.facts.write_values import WriteSettings
from mindset.graft.model import banks
from mindset.graft.mounting import without_overlays
from mindset.graft.sources import load_teacher
from mindset.store.memory_dir import MemoryDir

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["sweep_folder", "sweep_layers"]

_ALLOWED = (0.03, 0.05, 0.08, 0.10)
"""Shares of other prompts that may be taken for the question."""
_TIE = 0.02
"""Layers that differ by less are as good as each other: a share of 72 prompts says no more."""

Progress = Callable[[int, int], None]


def sweep_folder(folder: Path, *, device: str = "cpu", progress: Progress = lambda _done, _of: None) -> Sweep:
    """Choose the layers of the model in `folder`, for every `learn` that comes."""
    loaded = load_teacher(str(folder), device=device)
    if not banks(loaded.model):
        raise UsageError(f"{loaded.name} has no memory; `mindset convert {folder} --out DIR` gives it one")
    found = sweep_layers(loaded.model, loaded.tokenizer, progress=progress)
    memory = MemoryDir.open(Path(folder) / "memory")
    save_sweep(found, memory.folder, memory.generation)
    return found


def sweep_layers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    probes: Sequence[ProbeFact] = PROBE_FACTS,
    *,
    progress: Progress = lambda _done, _of: None,
) -> Sweep:
    """Judge every layer that has a bank, and choose two."""
    there = sorted(banks(model))
    if len(there) < 2:
        raise UsageError("facts need a memory in two layers; there is nothing to choose")
    low, middle = by_depth(model)
    with without_overlays(model):
        trial = _Trial(model, tokenizer, there)
        for i, probe in enumerate(probes):
            progress(i, len(probes))
            trial.take(probe)
    facts = tuple(LayerShare(layer, trial.asked(layer)) for layer in there[1:])
    fact = _chosen(facts, middle)
    subjects = tuple(LayerShare(layer, trial.met(layer)) for layer in there if layer < fact)
    return Sweep(FactLayers(_chosen(subjects, low), fact), subjects, facts)


def _chosen(shares: Sequence[LayerShare], depth: float) -> int:
    """The best, and of those that are as good the nearest to a depth."""
    best = max(one.share for one in shares)
    good = [one.layer for one in shares if one.share > best - _TIE]
    return min(good, key=lambda layer: (abs(layer - depth), layer))


@dataclass(frozen=True, eq=False)
class _Judged:
    """What one fact's keys in one layer are judged on."""

    balls: list[RadiusKey]
    mentions: Float[Tensor, "texts d_model"]
    """The subject in prompts that no ball was made from."""
    asked: Float[Tensor, " rephrased"]
    """Margins of the question's key at rephrased prompts."""
    elsewhere: Float[Tensor, " others"]
    """And at other prompts."""


class _Trial:
    """Keys of several facts in all layers."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layers: Sequence[int]
    ) -> None:
        self.model, self.tokenizer, self.layers = model, tokenizer, tuple(layers)
        found = measure_backgrounds(model, tokenizer, self.layers)
        self.backgrounds: dict[int, Background] = dict(zip(self.layers, found, strict=True))
        self.names = Names(model, tokenizer, self.layers)
        self.judged: dict[int, list[_Judged]] = {layer: [] for layer in self.layers}

    def take(self, probe: ProbeFact) -> None:
        """Find a fact's keys in every layer, and what they are judged on."""
        settings, subject = WriteSettings(), probe.fact.subject
        lesson = make_lesson(
            self.tokenizer, probe.fact, n_phrasings=settings.phrasings, n_guards=settings.guards
        )
        others = [text.format(subject) for text in ELSEWHERE]
        held = [cut_at_subject(self.tokenizer, text, subject) for text in (*probe.rephrased, *others)]
        seen = inputs_from_cuts(self.model, [*lesson.prompts, *lesson.guards, *held], self.layers)
        taught, unseen = seen[: -len(held)], seen[-len(held) :]
        near = self.names.ends_like(subject)
        for layer in self.layers:
            balls = self.names.keys(
                layer, subject, near, torch.stack([one[layer][0] for one in taught]), self.backgrounds[layer]
            )
            margins = _key(lesson, taught, layer, self.backgrounds[layer]).margins(
                torch.stack([one[layer][-1] for one in unseen]).cpu()
            )
            mentions = torch.stack([one[layer][0] for one in unseen]).cpu()
            asked, elsewhere = margins[: len(probe.rephrased)], margins[len(probe.rephrased) :]
            self.judged[layer].append(_Judged(balls, mentions, asked, elsewhere))

    def asked(self, layer: int) -> float:
        """Share of rephrased prompts beyond what a few of the other prompts reach."""
        right = torch.cat([one.asked for one in self.judged[layer]])
        wrong = torch.cat([one.elsewhere for one in self.judged[layer]])
        bounds = torch.quantile(wrong, 1 - torch.tensor(_ALLOWED, dtype=wrong.dtype))
        return float((right[:, None] > bounds).double().mean())

    def met(self, layer: int) -> float:
        """Share of a subject's mentions that its balls hold, less that of other subjects'."""
        found, taken = list[Tensor](), list[Tensor]()
        for own in self.judged[layer]:
            for one in self.judged[layer]:
                held = _held(own.balls, one.mentions)
                (found if one is own else taken).append(held)
        wrong = float(torch.cat(taken).double().mean()) if taken else 0.0
        return float(torch.cat(found).double().mean()) - wrong


def _key(lesson: Lesson, taught: list[dict[int, Tensor]], layer: int, background: Background) -> RadiusKey:
    """What recognises the question in a layer."""
    count = len(lesson.prompts)
    asking = [one[layer][lesson.asked_at(i)] for i, one in enumerate(taught[:count])]
    return asking_key(
        torch.stack(asking), torch.stack([one[layer][-1] for one in taught[count:]]), background
    )


def _held(balls: list[RadiusKey], inputs: Float[Tensor, "n d_model"]) -> Tensor:
    """Which inputs lie in one of the balls."""
    inside = torch.zeros(len(inputs), dtype=torch.bool)
    for ball in balls:
        inside |= ball.margins(inputs) > 0
    return inside
