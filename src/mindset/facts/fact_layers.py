"""Which two layers of a model facts go to: what a sweep chose for it, else depths that were measured on SmolLM2.

A choice is a cache in the memory's folder, `cache/facts.g1.json`: without it facts go by depth. Knows no slots.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mindset.atomic_file import replacing
from mindset.errors import UsageError
from mindset.graft.model import banks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "DEPTHS",
    "FactLayers",
    "SubjectScore",
    "Sweep",
    "TriedLayer",
    "by_depth",
    "fact_layers",
    "nearest",
    "read_sweep",
    "save_sweep",
]

DEPTHS = (0.13, 0.53)
"""Shares of the layers below those that recognise subjects and that answer; measured on SmolLM2."""


@dataclass(frozen=True)
class FactLayers:
    """Where facts go."""

    subject: int
    """The layer that subjects are recognised in."""
    fact: int
    """The layer above it that facts answer in."""


@dataclass(frozen=True)
class SubjectScore:
    """How well a layer meets subjects."""

    layer: int
    met: float
    """Share of mentions in which a subject is met."""
    mistaken: float
    """Share of other subjects' mentions that are taken for it."""

    @property
    def score(self) -> float:
        """What layers are compared by."""
        return self.met - self.mistaken


@dataclass(frozen=True)
class TriedLayer:
    """What facts were worth that were written in a layer."""

    layer: int
    said: float
    """Share of prompts in other words that go on with the whole target."""
    kept: float
    """Share of other prompts on the same subjects that go on as before."""

    @property
    def score(self) -> float:
        """What layers are compared by."""
        return (self.said + self.kept) / 2


@dataclass(frozen=True)
class Sweep:
    """What was tried, and chosen."""

    layers: FactLayers
    subjects: tuple[SubjectScore, ...]
    facts: tuple[TriedLayer, ...]


def fact_layers(
    model: PreTrainedModel, layer: int | None = None, chosen: FactLayers | None = None
) -> FactLayers:
    """Those `chosen`, as far as they have a bank, or by depth; `layer` for the answers, if it is given."""
    there = sorted(banks(model))
    if chosen is not None and not {chosen.subject, chosen.fact} <= set(there):
        chosen = None
    if layer is None and chosen is not None:
        return chosen
    low, middle = by_depth(model)
    if layer is None:
        layer = nearest(there[1:], middle, there[0])
    if layer not in there:
        raise UsageError(f"layer {layer} has no memory; those that have: {', '.join(map(str, there))}")
    below = [one for one in there if one < layer]
    if not below:
        raise UsageError(
            f"facts need a memory in two layers, one below layer {layer} to recognise subjects in; "
            f"those that have one: {', '.join(map(str, there))}"
        )
    if chosen is not None and chosen.subject in below:
        return FactLayers(chosen.subject, layer)
    return FactLayers(nearest(below, low, below[0]), layer)


def by_depth(model: PreTrainedModel) -> tuple[float, float]:
    """The measured depths in layers of this model."""
    count = int(model.config.get_text_config().num_hidden_layers)
    return DEPTHS[0] * count, DEPTHS[1] * count


def nearest(layers: list[int], wanted: float, otherwise: int) -> int:
    """The layer nearest to a depth, the lower one of two."""
    return min(layers, key=lambda one: (abs(one - wanted), one), default=otherwise)


def read_sweep(memory: Path, generation: int) -> Sweep | None:
    """What was chosen for the model of a `memory/` folder; None where nothing was, or the note cannot be read."""
    try:
        told = json.loads(_file(memory, generation).read_bytes())
        subjects = tuple(SubjectScore(**one) for one in told["subjects"])
        facts = tuple(TriedLayer(**one) for one in told["facts"])
        return Sweep(FactLayers(**told["layers"]), subjects, facts)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def save_sweep(sweep: Sweep, memory: Path, generation: int) -> None:
    """Keep it beside the memory."""
    path = _file(memory, generation)
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as file:
        file.write(json.dumps(asdict(sweep), indent=1).encode())


def _file(memory: Path, generation: int) -> Path:
    return memory / "cache" / f"facts.g{generation}.json"
