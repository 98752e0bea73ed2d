"""`python -m benchmarks.eviction`: bits per byte against memory size, on text that drifts.

tinystories-656k, both feed-forward blocks as mirror banks of 384 slots, k = 32, untrained, so that nothing but what is
evicted differs. Reads are counted on a stream that drifts: stories, then Shakespeare, then WikiText. Then each policy
keeps 75, 50 or 25 % of the slots of each layer, and the model is scored on what comes next, other WikiText (the figure)
and, where the stream came from, other stories (beside it). `random` is the control; a row's baseline is the same model
with all of its slots. Counted and scored text are disjoint. Each eviction is undone before the next.

A last part is what merging costs, measured beside its own estimate.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.rows import Bench, Measured, open_bench, shared_data
from mindset.graft import folder
from mindset.graft.convert import build_student
from mindset.graft.counting import counting
from mindset.graft.plan import ConversionPlan
from mindset.graft.sources import Loaded, load_teacher
from mindset.probe.bits import Scores, score
from mindset.probe.bootstrap import gap_interval
from mindset.probe.windows import Windows
from mindset.store.eviction_plan import EvictionSettings, plan_eviction
from mindset.store.memory import Memory
from mindset.store.merging import MergeSettings, plan_merging

SLOTS, K = 384, 32
SHARES = (75, 50, 25)
CHARACTERS, QUICK = 60_000, 6_000
STREAM = (("tinystories.txt", 60_000), ("shakespeare.txt", 0), ("wikitext2-valid.txt", 100_000))
"""File and first character of each part of what is counted, in the order in which it is read."""
SCORED = {"wikitext2": "wikitext2-valid.txt", "tinystories": "tinystories.txt"}
"""From their beginning; the first one is the row's figure."""
DECAYS = (1e-5, 1e-4, 1e-3)
RANDOM = (0, 1, 2)


class Drift:
    """Models that counted the stream, one for each lambda, and what each has left after an edit."""

    def __init__(self, teacher: Loaded, text: Path, home: Path, characters: int) -> None:
        self.teacher, self.text, self.home, self.characters = teacher, text, home, characters
        self.scored = {name: self._windows(file, 0) for name, file in SCORED.items()}
        self.model = cache(self._model)
        self.whole = cache(self._whole)

    def _windows(self, file: str, start: int) -> Windows:
        text = (self.text / file).read_bytes().decode()[start : start + self.characters]
        return Windows.of(text, self.teacher.tokenizer, 256)

    def _model(self, decay: float) -> Path:
        path = self.home / f"{decay:g}"
        folder.save(build_student(self.teacher.model, ConversionPlan(k=K)), path)
        model = folder.load(path)
        with counting(model, path, decay=decay):
            for file, start in STREAM:
                score(model, self._windows(file, start))
        return path

    def _whole(self) -> dict[str, Scores]:
        model = build_student(self.teacher.model, ConversionPlan(k=K))
        return {name: score(model, windows) for name, windows in self.scored.items()}

    def measured(self, path: Path, edit: Callable[[Memory], dict[str, Any]]) -> Measured:
        """The model scored after an edit, which is then undone."""
        with Memory(path) as memory:
            told = edit(memory)
        try:
            model = folder.load(path)
            found = {name: score(model, windows) for name, windows in self.scored.items()}
        finally:
            with Memory(path) as memory:
                memory.undo()
        main, other = SCORED
        ours, whole = found[main], self.whole()[main]
        gap = gap_interval(ours.nll, whole.nll, ours.n_bytes)
        extra = told | {
            "loss": [round(gap.low, 4), round(gap.high, 4)],
            other: round(found[other].bits_per_byte, 4),
            f"{other}_baseline": round(self.whole()[other].bits_per_byte, 4),
            "tokens": ours.tokens,
        }
        interval = ours.interval()
        return Measured(ours.bits_per_byte, whole.bits_per_byte, (interval.low, interval.high), extra)


def evicted(settings: EvictionSettings) -> Callable[[Memory], dict[str, Any]]:
    """Evict, and say how much of the counted influence went."""

    def edit(memory: Memory) -> dict[str, Any]:
        plan = plan_eviction(memory.store, settings)
        memory.evict(plan)
        return {"influence_gone": [round(head.influence_share or 0.0, 4) for head in plan.heads]}

    return edit


def merged(settings: MergeSettings) -> Callable[[Memory], dict[str, Any]]:
    """Merge, and say what that was estimated to change."""

    def edit(memory: Memory) -> dict[str, Any]:
        plan = plan_merging(memory.store, settings)
        memory.merge(plan)
        slots = sum(len(group.ids) for group in plan.groups)
        estimate = {str(layer): round(change, 4) for layer, change in sorted(plan.change.items())}
        return {"slots": slots, "merged": len(plan.groups), "estimated_change": estimate}

    return edit


@contextmanager
def drifted(bench: Bench, shared: Path) -> Iterator[Drift]:
    """The models of this run, in a folder that is thrown away."""
    home = Path(tempfile.mkdtemp(prefix="mindset-"))
    try:
        teacher = load_teacher(str(shared / "teachers/tinystories-656k"))
        yield Drift(teacher, shared / "text", home, QUICK if bench.quick else CHARACTERS)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def rows(bench: Bench, drift: Drift) -> None:
    """Every policy at every size, then merges."""
    said = {"k": K, "slots": SLOTS, "characters": drift.characters, "stream": [file for file, _ in STREAM]}
    policies = [("lrfu", decay) for decay in DECAYS]
    policies += [(name, DECAYS[1]) for name in ("lru", "lfu", "fifo", "s3fifo", "influence", "random")]

    def row(name: str, path: Callable[[], Path], edit: Any, settings: dict[str, Any], seed: int) -> None:
        bench.row(
            f"eviction: {name}", lambda: drift.measured(path(), edit), unit="bits/byte", settings=said | settings,
            seed=seed,
        )  # fmt: skip

    for share in SHARES[1:2] if bench.quick else SHARES:
        for policy, decay in policies:
            for seed in RANDOM if policy == "random" else RANDOM[:1]:
                settings = EvictionSettings(policy, keep=SLOTS * share // 100, seed=seed)  # type: ignore[arg-type]
                shown = f"lrfu, lambda {decay:g}" if policy == "lrfu" else policy
                row(
                    f"{share} % of the slots by {shown}", lambda decay=decay: drift.model(decay), evicted(settings),
                    {"decay": decay, "policy": policy, "keep": settings.keep}, seed,
                )  # fmt: skip
    for most in (8, 32):
        for co_read in (False, True):
            how = "that keep coming back together" if co_read else "with the nearest keys (cosine from 0.2)"
            given = MergeSettings(within=0.8, co_read=co_read, often=0.05, most=most)
            row(
                f"{most} merges of slots {how}", lambda: drift.model(DECAYS[1]), merged(given),
                {"co_read": co_read, "most": most, "often": given.often}, 0,
            )  # fmt: skip


def main() -> None:
    """Measure every row that is not there yet."""
    bench, shared = open_bench("eviction"), shared_data()
    if shared is None:
        print("skipped: the rows need the shared data folder (MINDSET_SHARED)")
        return
    torch.manual_seed(bench.seed)
    with drifted(bench, shared) as drift:
        rows(bench, drift)


if __name__ == "__main__":
    main()
