"""Every setting of a distillation, saved beside its results."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from mindset.errors import UsageError
from mindset.graft.plan import ConversionPlan

__all__ = ["DistillSettings", "Fit", "Precision", "Trained", "completed"]

Trained = Literal["memory", "all", "attention"]
Fit = Literal["values", "skip", "none"]
Precision = Literal["32", "bf16-mixed"]


@dataclass(frozen=True)
class DistillSettings:
    """How a student is trained. Steps or minutes: exactly one of the two limits the run."""

    plan: ConversionPlan = field(default_factory=ConversionPlan)
    """What the student's banks are; ignored where the source is a converted folder."""
    data: tuple[str, ...] = ("self",)
    """`self`, `stdlib`, files and folders, each with an optional `=WEIGHT`."""
    steps: int | None = None
    """Steps of all stages together; None: limited by `minutes`."""
    minutes: float | None = None
    """Minutes of training (evaluation is not counted); None: limited by `steps`."""
    sample_temperature: float = 1.0
    """Temperature at which `self` is drawn; above 1 the samples are more varied than the teacher's own text."""
    local_share: float = 0.2
    """Share of the run spent on the local stage; 0 skips it, 1 skips the end-to-end stage."""
    heal_steps: int = 0
    """Steps of next-token healing on the texts after distillation; 0: none."""
    batch: int = 8
    """Sequences a step."""
    seq_len: int = 256
    """Tokens a sequence."""
    lr: float = 1e-3
    """Peak learning rate of keys and modulators in the local stage."""
    lr_end_to_end: float = 5e-4
    """The same in the end-to-end stage."""
    value_lr_factor: float = 1.0
    """Learning rate of values, as a multiple of the keys'."""
    dense_lr_factor: float = 0.1
    """Learning rate of everything dense that is trained (attention, norms), as a multiple of the keys'."""
    trained: Trained = "memory"
    """`memory`: banks and skips; `attention`: with attention and norms; `all`: with the embeddings too."""
    anneal: float = 0.0
    """Share of the local stage over which k falls from all to the target; 0: the target from the start, as fitted."""
    warmup: float = 0.05
    """Share of a stage over which the learning rate rises."""
    fit: Fit = "values"
    """Closed-form start before any gradient: `values` and skip, the `skip` alone, or `none`."""
    fit_tokens: int = 16_384
    """Tokens that the closed form is fitted to."""
    revive_every: int = 0
    """Steps after which slots that no token read are moved to where the error is; 0: never."""
    shuffled_targets: bool = False
    """A control: the local stage sees the right outputs at the wrong tokens, which must not help."""
    clip: float = 1.0
    """Largest norm of a step's gradient; 0: not clipped."""
    precision: Precision = "32"
    """Lightning's name for what is multiplied in what: `bf16-mixed` keeps parameters and losses in float32; on
    processors with bfloat16 products, and on GPUs, a step takes little more than half the time."""
    checkpoint_every: int = 50
    """Steps between checkpoints; 0: none."""
    seed: int = 0
    """Seed of data order, samples and random starts."""

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise UsageError("give either a number of steps or of minutes, and not both")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"steps = {self.steps}; give at least 1")
        if self.minutes is not None and not (self.minutes > 0 and math.isfinite(self.minutes)):
            raise UsageError(f"minutes = {self.minutes}; give more than 0")
        if not 0 <= self.local_share <= 1 or not 0 <= self.anneal <= 1 or not 0 <= self.warmup < 1:
            raise UsageError("local_share and anneal are shares from 0 to 1, warmup one below 1")
        if self.batch < 1 or self.seq_len < 2:
            raise UsageError(f"batch = {self.batch}, seq_len = {self.seq_len}; give at least 1 and 2")
        for name in ("lr", "lr_end_to_end", "sample_temperature"):
            self._check(name, positive=True)
        for name in (
            "value_lr_factor", "dense_lr_factor", "clip", "heal_steps", "revive_every", "checkpoint_every",
        ):  # fmt: skip
            self._check(name)
        if not self.data:
            raise UsageError("there is nothing to train on: give --data self, stdlib, a file or a folder")

        self._check_choices()

    def _check_choices(self) -> None:
        if self.trained not in get_args(Trained):
            raise UsageError(f"'{self.trained}' cannot be trained; allowed: {', '.join(get_args(Trained))}")
        if self.fit not in get_args(Fit):
            raise UsageError(f"'{self.fit}' cannot be fitted; allowed: {', '.join(get_args(Fit))}")
        if self.precision not in get_args(Precision):
            raise UsageError(f"'{self.precision}' is no precision; allowed: {', '.join(get_args(Precision))}")
        if self.fit_tokens < 1:
            raise UsageError(f"fit_tokens = {self.fit_tokens}; give at least 1")

    def _check(self, name: str, *, positive: bool = False) -> None:
        value = getattr(self, name)
        if not math.isfinite(value) or value < 0 or (positive and value == 0):
            raise UsageError(f"{name} = {value}; give a number {'above 0' if positive else 'from 0'}")

    def to_json(self) -> dict[str, Any]:
        """The settings as plain data, the plan included."""
        return asdict(self)


def completed(told: dict[str, Any]) -> dict[str, Any]:
    """Settings as plain data that an older version may have written, with what came since at its default."""
    return DistillSettings(steps=1).to_json() | told
