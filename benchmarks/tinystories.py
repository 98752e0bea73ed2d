"""Rows on tinystories-656k: both feed-forward blocks become banks, and the controls.

Recipe and learning rates were chosen on tinystories.txt 160,000 to the end, training on 60,000-160,000 only; scored
here, as `bpb-1` says, on 0-60,000, training on 60,000 to the end. Two early sweep runs (learning rates 1e-3 and 3e-3 of
the local stage) were scored on the scored range by mistake, then repeated and decided on the range named above.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from benchmarks.rows import Bench, Measured, settings_of, shared_data
from benchmarks.training import gap_row, score_student
from mindset.distill.settings import DistillSettings
from mindset.graft.convert import build_student
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan
from mindset.graft.sources import load_teacher
from mindset.probe.windows import Windows

__all__ = ["tinystories_rows"]

STEPS = 900
SEEDS = (0, 1, 2)


def _muted(student: Any) -> None:
    for bank in banks(student).values():
        bank.muted = True


def _fresh(student: Any) -> None:
    """The block's own size from a random start (what a config's `initializer_range` would draw)."""
    generator = torch.Generator().manual_seed(7)
    for bank in banks(student).values():
        for _, rows in bank.slot_parameters():
            rows.data = torch.randn(rows.shape, generator=generator) * 0.02


def tinystories_rows(bench: Bench) -> None:
    """All rows of this teacher: first one seed of every row, then the other seeds of those that the bars name."""
    for seeds in (SEEDS[:1], SEEDS[1:]):
        _rows(bench, seeds)


def _rows(bench: Bench, now: tuple[int, ...]) -> None:
    shared = shared_data()
    if shared is None:
        print("skipped: the tinystories rows need the shared data folder (MINDSET_SHARED)")
        return
    teacher = load_teacher(str(shared / "teachers/tinystories-656k"))
    story = shared / "text/tinystories.txt"
    texts = {"tinystories": Windows.of(story.read_bytes().decode()[:60_000], teacher.tokenizer, 256)}
    both = ("self", f"{story}:60000-")
    steps = 30 if bench.quick else STEPS
    base = DistillSettings(
        steps=steps, data=both, lr=3e-3, lr_end_to_end=3e-3, local_share=0.25, sample_temperature=1.2
    )

    def row(
        name: str, plan: ConversionPlan, bar: str | None = None, seeds: tuple[int, ...] = (0,), change: Any = None,
        **changes: Any,
    ) -> None:  # fmt: skip
        for seed in (0,) if bench.quick else [seed for seed in seeds if seed in now]:
            settings = replace(base, plan=replace(plan, seed=seed), seed=seed, **changes)
            shown = settings_of(settings) | {"data": [item.rsplit("/", 1)[-1] for item in settings.data]}
            measure = gap_row(teacher, settings, texts, "tinystories", change)
            bench.row(f"tinystories: {name}", measure, unit="bits/byte", settings=shown, seed=seed, bar=bar)

    def untrained(name: str, plan: ConversionPlan, bar: str | None = None, change: Any = None) -> None:
        def measure() -> Measured:
            student = build_student(teacher.model, plan)
            if change is not None:
                change(student)
            return score_student(student, teacher.model, texts, "tinystories")

        bench.row(f"tinystories: {name}", measure, unit="bits/byte", settings=settings_of(plan), bar=bar)

    plain, mirror = ConversionPlan(k=32), ConversionPlan(k=32, skip="affine")
    untrained("teacher through the same evaluation", ConversionPlan(), "<= 0.000001")
    untrained("mirror, k = 32 of 384, untrained", plain)
    untrained("mirror, k = 8 of 384, untrained", ConversionPlan(k=8))
    untrained("FF removed", ConversionPlan(), change=_muted)
    row("mirror and affine skip, k = 32 of 384, self + text", mirror, "<= 0.03", SEEDS)
    row("mirror and affine skip, k = 32 of 384, self alone", mirror, "<= 0.035", SEEDS, data=("self",))
    row("mirror and affine skip, k = 8 of 384, self + text", replace(mirror, k=8), "<= 0.08", SEEDS)
    scored = replace(mirror, propose="score", candidates=96)
    row("mirror and affine skip, k = 32, 96 proposed by score", scored, "<= 0.05", SEEDS)
    row("mirror without skip, k = 32 of 384, self + text", plain, "<= 0.03")
    row(
        "mirror and affine skip, k = 32, 96 proposed by proxy:32",
        replace(scored, propose="proxy:32"),
        "<= 0.05",
    )
    fresh_slots = ConversionPlan(bank="featural", slots=4096, k=32, skip="affine", weight="relu")
    row("4,096 new slots from a random start, relu, k = 32", fresh_slots, "<= 0.12", SEEDS, revive_every=25)
    row("control: fresh dense FF of the teacher's size", ConversionPlan(), change=_fresh, fit="none")
    row("control: affine only", ConversionPlan(skip="affine"), change=_muted)
    row(
        "control: shuffled teacher activations, local stage",
        plain,
        local_share=1.0,
        shuffled_targets=True,
        fit="none",
        anneal=0.3,
    )
    row("the same local stage, not shuffled", plain, local_share=1.0, fit="none", anneal=0.3)
    row("mirror, k = 32 and 1,024 new slots beside", replace(mirror, slots=1024), revive_every=25)
    for weight in ("relu", "distance", "softmax"):
        plan = ConversionPlan(bank="featural", slots=1024, heads=4, k=32, weight=weight, skip="affine")
        row(f"featural, 4 heads of 1,024 slots, {weight}", plan, revive_every=25)
    for gradient in ("straight-through", "scores", "frozen"):
        plan = ConversionPlan(bank="associative", slots=1024, heads=4, k=32, skip="affine", gradient=gradient)  # type: ignore[arg-type]
        row(f"associative, 4 heads of 1,024 slots, {gradient}", plan, steps=min(steps, 300))
