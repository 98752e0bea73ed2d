"""Rows on facts that are held at once: ours with its bars, and the others beside it, scored by the same code."""

from __future__ import annotations

import functools
import importlib.util
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.facts_methods import (
    Held,
    exactly_as_before,
    fine_tuned,
    grace,
    in_prompt,
    ours,
    scratch_model,
)
from benchmarks.facts_peers import lora, memit, rome
from benchmarks.facts_reach import REACH, reach
from benchmarks.facts_scoring import NAMED, Before, Record, likelihoods, read_records, score, state_before
from benchmarks.rows import Bench, Measured, settings_of
from mindset.facts.write_values import WriteSettings
from mindset.graft.model import banks
from mindset.graft.sources import load_teacher

__all__ = ["FIRST_SCORED", "held_rows", "many_rows"]

FIRST_SCORED = 500
BARS = {
    "efficacy": ">= 0.95", "efficacy by probability": ">= 0.99", "paraphrase": ">= 0.60",
    "paraphrase by probability": ">= 0.95", "locality: neighbours": ">= 0.98", "locality: same subject": ">= 0.90",
    "locality: relations": ">= 0.99",
}  # fmt: skip
"""At 100 facts held."""
LEFT_OUT = {"relations on held subjects": "left out", "unrelated text": "windows that name no held subject"}
MANY_BARS = {"efficacy": ">= 0.90", "efficacy by probability": ">= 0.97"}
"""At 1,000; there the KL has a bar too."""
UNITS = {"kl a token": "nats", NAMED: "nats", "seconds a fact": "s"}
"""Of those figures that are no shares."""


def held_rows(bench: Bench, shared: Path) -> None:
    """Ours at 100 facts, one of them alone, and the others at 100."""
    count = 6 if bench.quick else 100
    settings = _write_settings(bench)
    records = read_records(shared, FIRST_SCORED, count)
    shown = {"facts": count, "first": FIRST_SCORED, "threads": torch.get_num_threads()}
    sizes = {"others": 2 if bench.quick else 20, "relations": 20 if bench.quick else 500,
             "windows": 2 if bench.quick else 40}  # fmt: skip
    shown |= LEFT_OUT | bench.where
    with scratch_model(bench.device) as (loaded, folder):
        kept: dict[str, Any] = {}

        def before() -> Before:
            if "before" not in kept:
                kept["before"] = state_before(
                    loaded.model, loaded.tokenizer, records, shared, **sizes, seed=bench.seed
                )
            return kept["before"]  # type: ignore[no-any-return]

        mine = shown | {"write": settings_of(settings), **sizes}
        _ours(bench, (loaded, folder), records, settings, before, mine, shared)
        methods: dict[str, Callable[[], AbstractContextManager[Held]]] = {
            "fine-tuning one layer": lambda: fine_tuned(loaded, records, settings),
            "GRACE-style codebook": lambda: grace(loaded, records),
            "facts in the prompt": lambda: in_prompt(loaded, records),
        }
        for name, method in methods.items():
            _peer(bench, loaded, records, name, method, before, shown | sizes)
    _changed_weights(bench, shared, records, shown | sizes, sizes)


def many_rows(bench: Bench, shared: Path) -> None:
    """Ours and MEMIT at 1,000 facts; about two hours."""
    count = 8 if bench.quick else 1000
    settings = _write_settings(bench)
    records = read_records(shared, FIRST_SCORED, count)
    sizes = {"others": 2, "relations": 20 if bench.quick else 500, "windows": 2 if bench.quick else 40}
    shown = {"facts": count, "first": FIRST_SCORED, "threads": torch.get_num_threads(), **sizes}
    shown |= LEFT_OUT | bench.where
    kept: dict[str, Any] = {}

    def mine() -> dict[str, float]:
        if not kept:
            with scratch_model(bench.device) as (loaded, folder):
                asked = state_before(
                    loaded.model, loaded.tokenizer, records, shared, **sizes, seed=bench.seed
                )
                with ours(loaded, folder, records, settings) as held:
                    kept.update(score(held.model, loaded.tokenizer, records, asked))
                    kept["seconds a fact"] = held.seconds / count
        return kept

    bars = {**dict.fromkeys(BARS), **MANY_BARS, "kl a token": "<= 0.001", NAMED: None, "seconds a fact": None}
    for name, bar in bars.items():
        bench.row(
            f"ours, {count} held: {name}", lambda name=name: Measured(mine()[name], extra=mine()),  # type: ignore[misc]
            unit=UNITS.get(name, "of facts or prompts"), settings=shown | {"write": settings_of(settings)}, bar=bar,
        )  # fmt: skip
    if bench.only in f"MEMIT, {count} held: paraphrase":
        loaded = load_teacher("smollm2", device=bench.device)
        asked = functools.partial(
            state_before, loaded.model, loaded.tokenizer, records, shared, **sizes, seed=bench.seed
        )
        make = functools.partial(memit, loaded, records, weight_of_moment=1500.0)
        _peer(bench, loaded, records, "MEMIT", make, asked, shown)


def _write_settings(bench: Bench) -> WriteSettings:
    """The defaults; on a GPU more facts are written at once, which changes what is drawn for them and no more."""
    settings = WriteSettings(steps=5) if bench.quick else WriteSettings()
    return settings if bench.device == "cpu" else replace(settings, together=128)


def _changed_weights(
    bench: Bench, shared: Path, records: list[Record], shown: Any, sizes: dict[str, int]
) -> None:
    """Peers that change the weights of the plain model; their settings were chosen on 100 records from 0 on."""
    loaded = load_teacher("smollm2", device=bench.device)
    kept: list[Before] = []

    def before() -> Before:
        if not kept:
            kept.append(
                state_before(loaded.model, loaded.tokenizer, records, shared, **sizes, seed=bench.seed)
            )
        return kept[0]

    chosen: dict[str, tuple[Any, dict[str, float]]] = {
        "ROME": (rome, {}),
        "MEMIT": (memit, {"weight_of_moment": 1500.0}),
    }
    if importlib.util.find_spec("peft"):
        chosen["LoRA"] = (lora, {"rate": 3e-4})
    else:
        print("skipped: LoRA needs peft")
    for name, (method, given) in chosen.items():
        make = functools.partial(method, loaded, records, **given)
        _peer(bench, loaded, records, name, make, before, shown | given)


def _ours(
    bench: Bench, opened: Any, records: list[Record], settings: WriteSettings, before: Callable[[], Before], shown: Any,
    shared: Path,
) -> None:  # fmt: skip
    loaded, folder = opened
    kept: dict[str, Any] = {}

    def figures() -> dict[str, float]:
        if not kept:
            asked = before()
            kept["reach before"] = reach(loaded.model, loaded.tokenizer, records, shared)
            with ours(loaded, folder, records, settings) as held:
                kept["figures"] = score(held.model, loaded.tokenizer, records, asked)
                kept["alone"] = _alone(loaded, records)
                kept["reach"] = reach(held.model, loaded.tokenizer, records, shared)
            kept["extra"] = held.extra | {"seconds_a_fact": held.seconds / len(records)}
            kept["same"] = exactly_as_before(loaded, folder, [one.fact.prompt for one in records[:10]])
        return kept["figures"]  # type: ignore[no-any-return]

    def row(
        name: str,
        take: Callable[[], float],
        unit: str,
        bar: str | None,
        was: Callable[[], float] | None = None,
    ) -> None:
        def measure() -> Measured:
            everything = figures()
            return Measured(take(), None if was is None else was(), extra=everything | kept["extra"])

        bench.row(f"ours, {len(records)} held: {name}", measure, unit=unit, settings=shown, bar=bar)

    def cost() -> float:  # asked for alone, nothing is scored
        return (
            float(kept["extra"]["seconds_a_fact"]) if "extra" in kept else _seconds(opened, records, settings)
        )

    for name, bar in BARS.items():
        row(name, lambda name=name: figures()[name], "of facts or prompts", bar)  # type: ignore[misc]
    row("KL on unrelated text", lambda: figures()["kl a token"], "nats a token", None)
    bench.row(
        f"ours, {len(records)} held: seconds a fact",
        lambda: Measured(cost()),
        unit="s",
        settings=shown,
        bar="<= 5",
    )
    row("bytes a fact on disk", lambda: float(kept["extra"]["bytes_a_fact"]), "bytes", "<= 4000")
    row("logits differ after taking off, or slots damaged", lambda: float(not kept["same"]) +
        kept["extra"]["slots_damaged"], "differences", "<= 0")  # fmt: skip
    for name, bar in (("efficacy", ">= 0.97"), ("efficacy by probability", ">= 0.99"), ("paraphrase", None),
                      ("paraphrase by probability", None)):  # fmt: skip
        row(f"one alone, {name}", lambda name=name: kept["alone"][name], "of facts", bar)  # type: ignore[misc]
    for name in REACH:
        now, was = (functools.partial(_kept, kept, when, name) for when in ("reach", "reach before"))
        row(name, now, "see the name", None, was)


def _seconds(opened: Any, records: list[Record], settings: WriteSettings) -> float:
    """Of learning alone, on a memory that holds none."""
    with ours(*opened, records, settings) as held:
        return held.seconds / len(records)


def _kept(kept: dict[str, Any], when: str, name: str) -> float:
    return float(kept[when][name])


def _alone(loaded: Any, records: list[Record]) -> dict[str, float]:
    """Every fact with all others' slots mute: those that answer at a subject are its own, so the nearest of all."""
    shard = banks(loaded.model)[max(banks(loaded.model))].overlays["facts"]
    found: dict[str, list[float]] = {}
    for record in records:
        shard.muted = set()
        own = _own_slots(loaded, record)
        shard.muted = set(range(shard.n_slots)) - own
        for name, prompt in (("efficacy", record.fact.prompt), ("paraphrase", record.rephrased)):
            (new,) = likelihoods(loaded.model, loaded.tokenizer, [prompt], [record.fact.target])
            (old,) = likelihoods(loaded.model, loaded.tokenizer, [prompt], [record.old])
            found.setdefault(name, []).append(new[1])
            found.setdefault(f"{name} by probability", []).append(new[0] > old[0])
    shard.muted = set()
    return {name: float(np.mean(values)) for name, values in found.items()}


@torch.no_grad()
def _own_slots(loaded: Any, record: Record) -> set[int]:
    from mindset.graft.recording import listen

    heard: set[int] = set()

    def hear(answer: Any) -> None:
        if answer.layer == max(banks(loaded.model)):
            heard.update(answer.slots.tolist())

    with listen(loaded.model, hear):
        for prompt in (record.fact.prompt, record.rephrased):
            told = loaded.tokenizer(prompt, add_special_tokens=False)["input_ids"]
            loaded.model(torch.tensor([told], device=loaded.model.device))
    return heard


def _peer(
    bench: Bench, loaded: Any, records: list[Record], name: str, method: Callable[[], AbstractContextManager[Held]],
    before: Callable[[], Before], shown: Any,
) -> None:  # fmt: skip
    def measure() -> Measured:
        asked, began = before(), time.perf_counter()
        with method() as held:
            taken = (held.seconds or time.perf_counter() - began) / len(records)
            figures = score(held.model, loaded.tokenizer, records, asked)
        return Measured(figures["paraphrase"], extra=figures | {"seconds_a_fact": taken})

    bench.row(f"{name}, {len(records)} held: paraphrase", measure, unit="of facts", settings=shown)
