"""One distillation as a benchmark row: a student is built, changed as a control asks, trained and scored."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.rows import ROOT, Measured
from mindset.distill.settings import DistillSettings
from mindset.distill.training import Run, train
from mindset.graft.convert import build_student
from mindset.graft.sources import Loaded
from mindset.probe.agreement import compare
from mindset.probe.windows import Windows

__all__ = ["gap_row", "score_student", "trained_student"]


def trained_student(
    teacher: Loaded, settings: DistillSettings, change: Callable[[Any], None] | None = None
) -> tuple[Any, dict[str, Any]]:
    """A student trained as `settings` say, and what the training was; `change` is applied before it."""
    student = build_student(teacher.model, settings.plan)
    if change is not None:
        change(student)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(
            teacher.model, student, teacher.tokenizer, settings, Path(folder), False, lambda *_, **__: None,
            cache=ROOT / "runs" / "cache",
        )  # fmt: skip
        uses = train(run)
    told = {
        "steps": run.steps,
        "seconds": {name: round(value) for name, value in run.seconds.items()},
        "cpu_seconds": round(time.process_time() - began),
        "passes": {use.name.rsplit("/", 1)[-1]: round(use.passes, 2) for use in uses},
    }
    return student.eval(), told


def score_student(student: Any, teacher: Any, texts: Mapping[str, Windows], main: str) -> Measured:
    """Gap in bits per byte on every text; the row's figure is that on `main`."""
    results = {name: compare(student, teacher, windows) for name, windows in texts.items()}
    interval = results[main].gap_interval()
    extra = {
        name: {
            "gap": round(r.gap, 5),
            "bits_per_byte": round(r.student.bits_per_byte, 5),
            "teacher": round(r.teacher.bits_per_byte, 5),
            "kl": round(r.kl, 5),
            "top1": round(r.top1_agreement, 4),
            "tokens": r.student.tokens,
        }
        for name, r in results.items()
    }
    base = results[main].teacher.bits_per_byte
    return Measured(results[main].gap, base, (interval.low, interval.high), {"texts": extra})


def gap_row(
    teacher: Loaded,
    settings: DistillSettings,
    texts: Mapping[str, Windows],
    main: str,
    change: Callable[[Any], None] | None = None,
) -> Callable[[], Measured]:
    """A row's function: train, then score."""

    def measure() -> Measured:
        student, told = trained_student(teacher, settings, change)
        scored = score_student(student, teacher.model, texts, main)
        return Measured(scored.figure, scored.baseline, scored.interval, scored.extra | told)

    return measure
