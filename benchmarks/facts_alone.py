"""Rows on one fact held at a time, every method beside ours: what a single edit is worth, and what it breaks.

Each of the records is put in alone, scored by the same code as a hundred are, and taken out before the next one.
"""

from __future__ import annotations

import functools
import importlib.util
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.facts_methods import Held, fine_tuned, grace, in_prompt, ours, scratch_model
from benchmarks.facts_peers import lora, memit, rome
from benchmarks.facts_scoring import Record, read_records, score, state_before
from benchmarks.rows import Bench, Measured
from mindset.facts.write_values import WriteSettings
from mindset.graft.sources import load_teacher

__all__ = ["alone_rows"]

Method = Callable[[Sequence[Record]], AbstractContextManager[Held]]
SIZES = {"others": 20, "relations": 20, "windows": 2}


def alone_rows(bench: Bench, shared: Path, first: int) -> None:
    """One row a method: the paraphrase, all other figures beside it."""
    count = 2 if bench.quick else 12
    records = read_records(shared, first, count)
    settings = WriteSettings(steps=5) if bench.quick else WriteSettings()
    with scratch_model(bench.device) as (loaded, folder):
        with_memory: dict[str, Method] = {
            "ours": lambda some: ours(loaded, folder, some, settings),
            "fine-tuning one layer": lambda some: fine_tuned(loaded, some, settings),
            "GRACE-style codebook": lambda some: grace(loaded, some),
            "facts in the prompt": lambda some: in_prompt(loaded, some),
        }
        _rows(bench, shared, loaded, records, with_memory, first)
    plain = load_teacher("smollm2", device=bench.device)
    changed: dict[str, Method] = {
        "ROME": functools.partial(rome, plain),
        "MEMIT": functools.partial(memit, plain, weight_of_moment=1500.0),
    }
    if importlib.util.find_spec("peft"):
        changed["LoRA"] = functools.partial(lora, plain, rate=3e-4)
    else:
        print("skipped: LoRA needs peft")
    _rows(bench, shared, plain, records, changed, first)


def _rows(
    bench: Bench, shared: Path, loaded: Any, records: list[Record], methods: dict[str, Method], first: int
) -> None:
    shown = {"facts": 1, "records": len(records), "first": first, "threads": torch.get_num_threads(), **SIZES}
    for name, method in methods.items():

        def measure(method: Method = method) -> Measured:
            told = [_figures(loaded, shared, method, record, bench.seed) for record in records]
            figures = {name: float(np.mean([one[name] for one in told])) for name in told[0]}
            return Measured(figures["paraphrase"], extra=figures)

        bench.row(
            f"{name}, 1 held: paraphrase", measure, unit="of facts", settings=shown | bench.where, bar=None
        )


def _figures(loaded: Any, shared: Path, method: Method, record: Record, seed: int) -> dict[str, float]:
    before = state_before(loaded.model, loaded.tokenizer, [record], shared, **SIZES, seed=seed)
    began = time.perf_counter()
    with method([record]) as held:
        taken = held.seconds or time.perf_counter() - began
        return score(held.model, loaded.tokenizer, [record], before) | {"seconds": taken}
