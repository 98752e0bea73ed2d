"""Rows on decoding: batch 1, a prompt of 64 tokens, 128 new ones, student and teacher in turn in one process."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.rows import Bench, Measured, settings_of, shared_data
from mindset.graft.calibration import own_samples
from mindset.graft.convert import build_student
from mindset.graft.one_token import has_kernels
from mindset.graft.plan import ConversionPlan
from mindset.graft.sources import load_teacher
from mindset.probe.agreement import compare
from mindset.probe.speed import decode_ratio
from mindset.probe.texts import pydoc_topics
from mindset.probe.windows import Windows

__all__ = ["decoding_rows"]

TEXT = 10_000
"""Characters of the pydoc topics that show what a proposer costs, next to `by influence`."""
PROMPT, NEW, PAIRS = 64, 128, 20
THREADS = (1, 2)
"""Of torch, for both models."""


def decoding_rows(bench: Bench) -> None:
    """SmolLM2 by influence and proposed, tinystories shown without a bar; on one thread and on two."""
    smollm2, shared = load_teacher("smollm2"), shared_data()
    before = torch.get_num_threads()
    for threads in THREADS:
        _row(bench, smollm2, "SmolLM2, k = 192 by influence", ConversionPlan(k=192), ">= 1.0", threads)
        for kind in ("score", "proxy:32"):
            plan = ConversionPlan(k=192, propose=kind, candidates=768)
            _row(bench, smollm2, f"SmolLM2, k = 192 of 768 proposed by {kind}", plan, ">= 1.2", threads)
        if shared is not None:
            stories = load_teacher(str(shared / "teachers/tinystories-656k"))
            _row(bench, stories, "tinystories, k = 32 by influence", ConversionPlan(k=32), None, threads)
    torch.set_num_threads(before)


def _row(bench: Bench, teacher: Any, name: str, plan: ConversionPlan, bar: str | None, threads: int) -> None:
    pairs, new = (2, 16) if bench.quick else (PAIRS, NEW)

    def measure() -> Measured:
        torch.set_num_threads(threads)
        tokens = own_samples(teacher.model, rows=4, length=PROMPT, seed=bench.seed)
        student = build_student(teacher.model, plan, calibration=tokens)
        r = decode_ratio(student, teacher.model, tokens[0], new, pairs=pairs)
        text = Windows.of(pydoc_topics()[:TEXT], teacher.tokenizer, 512)
        compared = compare(student, teacher.model, text)
        extra = {
            "untrained_gap": round(compared.gap, 4),
            "untrained_top1_agreement": round(compared.top1_agreement, 4),
            "student_tokens_per_second": round(r.a_tokens_per_second, 2),
            "teacher_tokens_per_second": round(r.b_tokens_per_second, 2),
            "with_prompt": round(r.ratio_with_prompt, 4),
        }
        return Measured(r.ratio, 1.0, (r.ratio_min, r.ratio_max), extra)

    settings = settings_of(plan) | {
        "pairs": pairs,
        "prompt": PROMPT,
        "new": new,
        "threads": threads,
        "compiled": has_kernels(),
    }
    name = f"decoding: {name}, {threads} thread{'s' * (threads > 1)}"
    bench.row(name, measure, unit="student / teacher", settings=settings, bar=bar)
