"""Training without anything around it: the stages of one distillation, from checkpoints where there are any.

A finished stage's student is `checkpoints/NAME.done`; a resumed run loads it instead of training. Does not know where
models come from, nor reports.
"""

from __future__ import annotations

import copy
import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mindset.distill.checkpoint import has_checkpoint, read_checkpoint, write_checkpoint
from mindset.distill.data import open_mixture
from mindset.distill.fit_skip import fit_skips
from mindset.distill.fit_values import fit_values
from mindset.distill.loop import Progress, run_stage
from mindset.distill.mixture import SELF, DataItem, Mixture
from mindset.distill.ranks import ranks, wait
from mindset.distill.schedule import Clock
from mindset.distill.seeds import named_seed
from mindset.distill.self_samples import SampleSettings
from mindset.distill.settings import DistillSettings
from mindset.distill.stages import EndToEndStage, HealStage, LocalStage, Stage
from mindset.errors import UsageError
from mindset.graft.calibration import calibrate, input_moments, needs_calibration
from mindset.graft.convert import build_student
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan

__all__ = ["Run", "heal", "silent", "train"]


def silent(*_: Any, **__: Any) -> None:
    """Progress for callers who want none."""


@dataclass
class Run:
    """What one distillation holds while it goes on."""

    teacher: Any
    student: Any
    tokenizer: Any
    settings: DistillSettings
    folder: Path
    """`out/run`."""
    resume: bool
    progress: Progress
    device: str = "cpu"
    """A torch device; of several processes each takes the one of its number."""
    cache: Path | None = None
    """Where tokens and samples are kept; None: in the run's folder."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of each finished stage."""
    steps: dict[str, int] = field(default_factory=dict)
    """Steps of each finished stage."""
    _in_bfloat16: Any = field(default=None, init=False, repr=False)

    def data(self, stage: str, items: tuple[str, ...] | None = None) -> Mixture:
        """A fresh mixture for a stage; each stage draws its own samples and order."""
        settings, seed = self.settings, named_seed(self.settings.seed, stage)
        samples = SampleSettings(length=settings.seq_len, seed=seed, temperature=settings.sample_temperature)
        drawn, in_a_batch = 0, samples.batch * (samples.length - 1)

        def on_drawn(n: int) -> None:
            nonlocal drawn
            drawn += n
            self.progress(f"{stage}: drawing samples", (drawn - 1) % in_a_batch + 1, in_a_batch)

        named = [DataItem.parse(item) for item in items or settings.data]
        return open_mixture(
            named,
            self.tokenizer,
            batch=settings.batch,
            seq_len=settings.seq_len,
            seed=seed,
            samples=samples,
            cache=self.cache or self.folder / "cache",
            teacher=self._speaker(named),
            on_drawn=on_drawn,
        )

    def _speaker(self, named: list[DataItem]) -> Any:
        """The teacher as it draws samples: where products are in bfloat16, a copy in bfloat16, twice as fast."""
        if self.settings.precision == "32" or all(item.source != SELF for item in named):
            return self.teacher
        if self._in_bfloat16 is None:
            self._in_bfloat16 = copy.deepcopy(self.teacher).bfloat16()
        return self._in_bfloat16


def train(run: Run) -> list[Any]:
    """The local and the end-to-end stage; returns what each source of text gave."""
    settings, shares = run.settings, {}
    shares["local"] = settings.local_share
    shares["end_to_end"] = 1 - settings.local_share
    uses: list[Any] = []
    for name, share in shares.items():
        if share > 0:
            kind = LocalStage if name == "local" else EndToEndStage
            lr = settings.lr if name == "local" else settings.lr_end_to_end
            uses = _run_stage(run, kind, share, lr)
    return uses


def _run_stage(run: Run, kind: type[Stage], share: float, lr: float) -> list[Any]:
    settings, name = run.settings, kind.name
    steps = None if settings.steps is None else max(1, round(settings.steps * share))
    seconds = None if settings.minutes is None else settings.minutes * 60 * share
    clock = Clock(steps, seconds)
    data = run.data(name)
    done = run.folder / "checkpoints" / f"{name}.done"
    stage = kind(run.student, run.teacher, settings=settings, clock=clock, data=data, lr=lr)
    if run.resume and has_checkpoint(done):
        state = read_checkpoint(done)
        stage.load_state_dict(state["state_dict"], strict=False)
        clock.restore(state["clock"])
        data.load_state_dict(state["data"])
    else:
        begun = run.resume and has_checkpoint(run.folder / "checkpoints" / name)
        if not begun and not run.steps:
            _fit(run, data, clock)
        run_stage(stage, run.folder, resume=run.resume, progress=run.progress, device=run.device)
        _calibrate(run, data)
        final = {"state_dict": stage.state_dict(), "clock": clock.state(), "data": data.state_dict()}
        if ranks().first:
            write_checkpoint(final, done)
            shutil.rmtree(run.folder / "checkpoints" / name, ignore_errors=True)
        wait()
    run.seconds[name], run.steps[name] = clock.elapsed, clock.done
    return data.describe()


def _fit(run: Run, data: Mixture, clock: Clock) -> None:
    """Start from the closed form; the time it takes is the first stage's."""
    settings, began = run.settings, time.monotonic()
    if settings.fit == "none":
        return
    run.progress("fitting in closed form", 0, 1)
    batches = [data.next_batch() for _ in range(math.ceil(settings.fit_tokens / (data.batch * data.seq_len)))]
    run.student.eval()
    if settings.fit == "values":
        fit_values(run.student, run.teacher, batches)
    fit_skips(run.student, run.teacher, batches)
    run.progress("fitting in closed form", 1, 1)
    clock.spent += time.monotonic() - began


def _calibrate(run: Run, data: Mixture) -> None:
    """Measure again what proposers go by: training moved the keys."""
    held = banks(run.student)
    if any(needs_calibration(bank) for bank in held.values()):
        tokens = torch.cat([data.next_batch(), data.next_batch()])
        run.student.eval()
        calibrate(run.student, input_moments(run.student, tokens, tuple(held)))


def heal(run: Run) -> Any | None:
    """Train student and teacher alike on the texts; returns the teacher so healed, None without healing."""
    settings = run.settings
    if not settings.heal_steps:
        return None
    texts = tuple(item for item in settings.data if DataItem.parse(item).source != SELF)
    if not texts:
        raise UsageError("healing needs text: add stdlib, a file or a folder to --data")
    layers = ",".join(map(str, banks(run.student)))
    twin = build_student(run.teacher, ConversionPlan(layers=layers))
    _heal(run, run.student, texts, "heal")
    _heal(run, twin, texts, "heal-teacher")
    return twin


def _heal(run: Run, model: Any, texts: tuple[str, ...], name: str) -> None:
    """One model's healing, in a folder of its own; the last checkpoint stays, so that a finished one ends the same."""
    settings, clock = run.settings, Clock(run.settings.heal_steps, None)
    stage = HealStage(
        model, run.teacher, settings=settings, clock=clock, data=run.data("heal", texts),
        lr=settings.lr_end_to_end / 5,
    )  # fmt: skip
    run_stage(stage, run.folder / name, resume=run.resume, progress=run.progress, device=run.device)
    run.seconds[name], run.steps[name] = clock.elapsed, clock.done
