"""Try a model's layers: in which subjects are told from other names, and in which facts answer best.

Two dozen made-up facts are judged on words that nothing was made or trained from. Subjects are met or not, in every
layer below; facts are written in several layers, as `learn` writes them, one layer after the other. Which layer best
tells questions apart does not say which answers best (docs/results/facts.notes.md), so values are trained. Nothing
stays in the model, and nothing is written into its memory but the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mindset.errors import UsageError
from mindset.facts.background import RadiusKey, measure_backgrounds
from mindset.facts.fact import make_fact
from mindset.facts.fact_layers import (
    FactLayers,
    SubjectScore,
    Sweep,
    TriedLayer,
    by_depth,
    nearest,
    save_sweep,
)
from mindset.facts.keyed_lessons import Names
from mindset.facts.lessons import cut_at_subject, make_lesson
from mindset.facts.probe_facts import ELSEWHERE, PROBE_FACTS, ProbeFact
from mindset.facts.seen_inputs import inputs_from_cuts
from mindset.facts.target_scores import next_tokens, target_scores
from mindset.facts.write_values import WriteSettings
from mindset.facts.written import mounted_facts, write_facts
from mindset.graft.model import banks
from mindset.graft.mounting import without_overlays
from mindset.graft.sources import load_teacher
from mindset.store.memory_dir import MemoryDir

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["sweep_folder", "sweep_layers"]

_TIE = 0.02
"""Layers that differ by less are as good as each other."""
_AMONG, _MOST = (0.33, 0.83), 8
"""Depths between which facts are tried, and in how many layers at most."""
_NAME = "sweep"

Progress = Callable[[str, int, int], None]


def _silent(stage: str, done: int, total: int) -> None: ...


def sweep_folder(
    folder: Path, settings: WriteSettings | None = None, *, device: str = "cpu", progress: Progress = _silent
) -> Sweep:
    """Choose the layers of the model in `folder`, for every `learn` that comes."""
    loaded = load_teacher(str(folder), device=device)
    if not banks(loaded.model):
        raise UsageError(f"{loaded.name} has no memory; `mindset convert {folder} --out DIR` gives it one")
    found = sweep_layers(loaded.model, loaded.tokenizer, settings, progress=progress)
    memory = MemoryDir.open(Path(folder) / "memory")
    save_sweep(found, memory.folder, memory.generation)
    return found


def sweep_layers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: WriteSettings | None = None,
    probes: Sequence[ProbeFact] = PROBE_FACTS,
    *,
    progress: Progress = _silent,
) -> Sweep:
    """Judge layers that have a bank, and choose two."""
    there = sorted(banks(model))
    if len(there) < 2:
        raise UsageError("facts need a memory in two layers; there is nothing to choose")
    settings, (low, middle) = settings or WriteSettings(), by_depth(model)
    with without_overlays(model):
        trial = _Subjects(model, tokenizer, there[:-1], settings)
        for i, probe in enumerate(probes):
            progress("subjects", i, len(probes))
            trial.take(probe)
        subjects = tuple(SubjectScore(layer, *trial.met(layer)) for layer in there[:-1])
        # Subjects are met nearly anywhere; high up there would be no layer left that has read what was marked.
        low_enough = [one for one in subjects if one.layer <= max(middle / 2, there[0])]
        subject = _chosen({one.layer: one.score for one in low_enough}, low)
        tried: list[TriedLayer] = []
        candidates = _candidates([layer for layer in there if layer > subject], model)
        for i, layer in enumerate(candidates):
            progress("facts", i, len(candidates))
            tried.append(_tried(model, tokenizer, FactLayers(subject, layer), probes, settings))
    fact = _chosen({one.layer: one.score for one in tried}, middle)
    return Sweep(FactLayers(subject, fact), subjects, tuple(tried))


def _candidates(layers: list[int], model: PreTrainedModel) -> list[int]:
    """Layers that are spread over the depths facts are tried at, the one that would be taken unswept among them."""
    count = int(model.config.get_text_config().num_hidden_layers)
    first, last = (depth * count for depth in _AMONG)
    inside = [layer for layer in layers if first <= layer <= last]
    every = -(-len(inside) // _MOST) or 1
    usual = nearest(layers, by_depth(model)[1], layers[0])
    spread = [layer for layer in inside if (layer - usual) % every == 0]
    return sorted({*spread, usual})


def _chosen(scores: dict[int, float], depth: float) -> int:
    """The best layer, and of those that are as good the nearest to a depth."""
    best = max(scores.values())
    return nearest([layer for layer, score in scores.items() if score > best - _TIE], depth, 0)


def _tried(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    layers: FactLayers,
    probes: Sequence[ProbeFact],
    settings: WriteSettings,
) -> TriedLayer:
    """What the facts are worth, written in these layers."""
    asked = [
        make_fact(text, probe.fact.target, probe.fact.subject) for probe in probes for text in probe.rephrased
    ]
    others = [text.format(probe.fact.subject) for probe in probes for text in ELSEWHERE]
    before = next_tokens(model, tokenizer, others)
    written = write_facts(model, tokenizer, [probe.fact for probe in probes], layers, settings)
    with mounted_facts(model, written, layers, settings.lean, _NAME):
        said = [one.greedy for one in target_scores(model, tokenizer, asked)]
        after = next_tokens(model, tokenizer, others)
    kept = [then == now for then, now in zip(before, after, strict=True)]
    return TriedLayer(layers.fact, sum(said) / len(said), sum(kept) / len(kept))


class _Subjects:
    """Balls around several subjects, in several layers."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        layers: Sequence[int],
        settings: WriteSettings,
    ) -> None:
        self.model, self.tokenizer, self.layers, self.settings = model, tokenizer, tuple(layers), settings
        found = measure_backgrounds(model, tokenizer, self.layers)
        self.backgrounds = dict(zip(self.layers, found, strict=True))
        self.names = Names(model, tokenizer, self.layers)
        self.balls: dict[int, list[list[RadiusKey]]] = {layer: [] for layer in self.layers}
        self.mentions: dict[int, list[Tensor]] = {layer: [] for layer in self.layers}

    def take(self, probe: ProbeFact) -> None:
        """Find a subject's balls in every layer, and what they are judged on."""
        subject, settings = probe.fact.subject, self.settings
        lesson = make_lesson(
            self.tokenizer, probe.fact, n_phrasings=settings.phrasings, n_guards=settings.guards
        )
        texts = (*probe.rephrased, *(text.format(subject) for text in ELSEWHERE))
        held = [cut_at_subject(self.tokenizer, text, subject) for text in texts]
        seen = inputs_from_cuts(self.model, [*lesson.prompts, *lesson.guards, *held], self.layers)
        near = self.names.ends_like(subject)
        for layer in self.layers:
            rows = torch.stack([one[layer][0] for one in seen])
            self.balls[layer].append(
                self.names.keys(layer, subject, near, rows[: -len(held)], self.backgrounds[layer])
            )
            self.mentions[layer].append(rows[-len(held) :].cpu())

    def met(self, layer: int) -> tuple[float, float]:
        """Share of a subject's mentions that its balls hold, and of other subjects'."""
        found, taken = list[Tensor](), [torch.zeros(1, dtype=torch.bool)]
        for i, balls in enumerate(self.balls[layer]):
            for j, mentions in enumerate(self.mentions[layer]):
                (found if i == j else taken).append(_held(balls, mentions))
        return float(torch.cat(found).double().mean()), float(torch.cat(taken).double().mean())


def _held(balls: list[RadiusKey], inputs: Float[Tensor, "n d_model"]) -> Bool[Tensor, " n"]:
    """Which inputs lie in one of the balls."""
    inside = torch.zeros(len(inputs), dtype=torch.bool)
    for ball in balls:
        inside |= ball.margins(inputs) > 0
    return inside
