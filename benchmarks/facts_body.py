"""A body of facts as something to put on and take off: 300 of the relations data, each with another object.

What the model answers with the overlay on must be the body's objects, with it off what it answered before.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from benchmarks.facts_methods import exactly_as_before, scratch_model
from benchmarks.facts_scoring import likelihoods, next_tokens
from benchmarks.rows import Bench, Measured
from mindset.facts.fact import parse_facts
from mindset.facts.learn import learn_into
from mindset.graft.mounting import mount, unmount
from mindset.store.memory import Memory

__all__ = ["body_rows"]

OVERLAY = "body"


def body_rows(bench: Bench, shared: Path) -> None:
    """Answers with the body on, and with it off."""
    count = 6 if bench.quick else 300
    kept: dict[str, float] = {}

    def figures() -> dict[str, float]:
        if not kept:
            kept.update(_figures(bench, shared, count))
        return kept

    for name, bar in (("objects said while it is on", None), ("answers changed while it is off", "<= 0")):
        bench.row(
            f"body of {count} facts: {name}", lambda name=name: Measured(figures()[name], extra=figures()),  # type: ignore[misc]
            unit="of facts", settings={"facts": count} | bench.where, bar=bar,
        )  # fmt: skip


def _figures(bench: Bench, shared: Path, count: int) -> dict[str, float]:
    told = _body(shared, count, bench.seed)
    prompts, targets = [one["prompt"] for one in told], [one["target"] for one in told]
    with scratch_model(bench.device) as (loaded, folder):
        model, tokenizer = loaded.model, loaded.tokenizer
        before = next_tokens(model, tokenizer, prompts)
        knew = [greedy for _, greedy in likelihoods(model, tokenizer, prompts, targets)]
        began = time.perf_counter()
        with Memory(folder) as memory:
            facts = parse_facts("\n".join(map(json.dumps, told)), "body.jsonl")
            learn_into(memory, model, tokenizer, facts, OVERLAY)
            taken = time.perf_counter() - began
            said = [greedy for _, greedy in likelihoods(model, tokenizer, prompts, targets)]
            unmount(model, OVERLAY)
            after = next_tokens(model, tokenizer, prompts)
            mount(model, memory.store, OVERLAY)
            again = [greedy for _, greedy in likelihoods(model, tokenizer, prompts, targets)]
            unmount(model, OVERLAY)
            memory.unmount(OVERLAY)
        same = exactly_as_before(loaded, folder, prompts[:10])
    return {
        "objects said before": float(np.mean(knew)), "objects said while it is on": float(np.mean(said)),
        "mounted again": float(np.mean(again)), "answers changed while it is off":
        float(np.mean(np.array(before) != np.array(after))), "logits off equal to the bit": float(same),
        "seconds a fact": taken / count,
    }  # fmt: skip


def _body(shared: Path, count: int, seed: int) -> list[dict[str, str]]:
    """Facts over all relations, every object exchanged for another one of its relation; a subject occurs once."""
    rng, found, subjects = np.random.default_rng(seed), [], set()
    for path in sorted((shared / "facts" / "relations").glob("factual/*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        objects = sorted({sample["object"] for sample in told["samples"]})
        for sample in told["samples"]:
            others = [one for one in objects if one != sample["object"]]
            if sample["subject"] in subjects or not others:
                continue
            subjects.add(sample["subject"])
            template = told["prompt_templates"][0]
            found.append({
                "prompt": template.replace("{}", sample["subject"]), "subject": sample["subject"],
                "target": str(rng.choice(others)),
            })  # fmt: skip
    return [found[i] for i in rng.permutation(len(found))[:count]]
