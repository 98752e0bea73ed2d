"""What an evaluation found, as data: figures of each text and of all, what the memory does, speed and sizes.

Does not know how anything was measured or how it is shown. Invariant: `to_json` holds every figure, the pooled ones
at the top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mindset.probe.speed import SpeedComparison

__all__ = ["Evaluation", "TextFigures"]


@dataclass(frozen=True)
class TextFigures:
    """One text, or all of them pooled."""

    name: str
    """Name of the text."""
    window: int
    """Tokens in a window; 0 where texts of several window lengths are pooled."""
    windows: int
    """Windows in the text."""
    tokens: int
    """Scored tokens."""
    bytes: int
    """UTF-8 bytes of the scored tokens."""
    bits_per_byte: float
    """The student's."""
    interval: tuple[float, float]
    """95 % bootstrap interval of `bits_per_byte` over windows."""
    teacher_bits_per_byte: float
    """The teacher's."""
    teacher_interval: tuple[float, float]
    """Its interval."""
    gap: float
    """Student minus teacher, bits per byte."""
    gap_interval: tuple[float, float]
    """95 % bootstrap interval of `gap`, paired over windows."""
    no_memory_bits_per_byte: float | None
    """The student's with banks that return skip and bias only; None where it has no bank."""
    kl: float
    """KL(teacher || student), nats per scored token."""
    top1_agreement: float
    """Share of scored tokens for which both would have said the same."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured."""

    name: str
    """The student, as it was named."""
    teacher: str
    """The teacher, as it was named."""
    pooled: TextFigures
    """All texts together."""
    texts: tuple[TextFigures, ...]
    """Each text by itself."""
    fvu: tuple[float, ...]
    """Fraction of variance unexplained of each bank on the teacher's activations, ascending by layer."""
    slot_use: tuple[float, ...]
    """Share of each bank's slots read at least once, ascending by layer."""
    layers: tuple[int, ...]
    """The layers that `fvu` and `slot_use` speak of."""
    k: tuple[int | None, ...]
    """Slots read for a token and head in each of these layers; None: all."""
    dense_parameters: int
    """Numbers of the student that are not rows of slots."""
    teacher_dense_parameters: int
    """Numbers of the teacher that are not rows of slots."""
    memory_parameters: int
    """Numbers of the student that are."""
    bytes_in_ram: int
    """The student's parameters and buffers, as loaded."""
    teacher_bytes_in_ram: int
    """The teacher's."""
    bytes_on_disk: int | None
    """Weights and slots of the student's folder; None where there is no folder."""
    teacher_bytes_on_disk: int | None
    """Weights of the teacher as published; None where unknown."""
    speed: SpeedComparison | None
    """Both decoding in turn; None where not measured."""
    seed: int
    """Seed of the bootstrap."""
    settings: Mapping[str, Any]
    """What else the figures depend on."""
    notes: tuple[str, ...]
    """Sentences that belong beside every figure of these models."""

    def to_json(self) -> dict[str, Any]:
        """The result as plain data, pooled figures first."""
        pooled = {key: value for key, value in asdict(self.pooled).items() if key not in ("name", "window")}
        speed = self.speed
        return {
            "name": self.name,
            "teacher": self.teacher,
            **pooled,
            "fvu": list(self.fvu),
            "slot_use": list(self.slot_use),
            "layers": list(self.layers),
            "k": list(self.k),
            "dense_parameters": self.dense_parameters,
            "teacher_dense_parameters": self.teacher_dense_parameters,
            "memory_parameters": self.memory_parameters,
            "bytes_in_ram": self.bytes_in_ram,
            "teacher_bytes_in_ram": self.teacher_bytes_in_ram,
            "bytes_on_disk": self.bytes_on_disk,
            "teacher_bytes_on_disk": self.teacher_bytes_on_disk,
            "tokens_per_second": speed and speed.a_tokens_per_second,
            "teacher_tokens_per_second": speed and speed.b_tokens_per_second,
            "speed_ratio": speed and speed.ratio,
            "speed_ratio_range": None if speed is None else [speed.ratio_min, speed.ratio_max],
            "seed": self.seed,
            "texts": [asdict(text) for text in self.texts],
            "settings": dict(self.settings),
            "notes": list(self.notes),
        }
