"""Rows on decoding: batch 1, a prompt of 64 tokens, 128 new ones, student and teacher in turn in one process."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.rows import Bench, Measured, settings_of, shared_data
from mindset.graft.calibration import own_samples
from mindset.graft.convert import build_student
from mindset.graft.plan import ConversionPlan
from mindset.graft.sources import load_teacher
from mindset.probe.speed import decode_ratio

__all__ = ["decoding_rows"]

PROMPT, NEW, PAIRS = 64, 128, 20


def decoding_rows(bench: Bench) -> None:
    """SmolLM2 by influence and proposed; tinystories shown without a bar."""
    smollm2 = load_teacher("smollm2")
    proposed = ConversionPlan(k=192, propose="score", candidates=768)
    _row(bench, smollm2, "SmolLM2, k = 192 by influence", ConversionPlan(k=192), ">= 1.0")
    _row(bench, smollm2, "SmolLM2, k = 192 of 768 proposed by score", proposed, ">= 1.2")
    shared = shared_data()
    if shared is not None:
        stories = load_teacher(str(shared / "teachers/tinystories-656k"))
        _row(bench, stories, "tinystories, k = 32 by influence", ConversionPlan(k=32), None)


def _row(bench: Bench, teacher: Any, name: str, plan: ConversionPlan, bar: str | None) -> None:
    pairs, new = (2, 16) if bench.quick else (PAIRS, NEW)

    def measure() -> Measured:
        tokens = own_samples(teacher.model, rows=4, length=PROMPT, seed=bench.seed)
        student = build_student(teacher.model, plan, calibration=tokens)
        r = decode_ratio(student, teacher.model, tokens[0], new, pairs=pairs)
        extra = {
            "student_tokens_per_second": round(r.a_tokens_per_second, 2),
            "teacher_tokens_per_second": round(r.b_tokens_per_second, 2),
            "with_prompt": round(r.ratio_with_prompt, 4),
        }
        return Measured(r.ratio, 1.0, (r.ratio_min, r.ratio_max), extra)

    settings = settings_of(plan) | {
        "pairs": pairs,
        "prompt": PROMPT,
        "new": new,
        "threads": torch.get_num_threads(),
    }
    bench.row(f"decoding: {name}", measure, unit="student / teacher", settings=settings, bar=bar)
