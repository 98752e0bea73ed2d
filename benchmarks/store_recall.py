"""What an index finds on SmolLM2's own hidden states: real feed-forward rows as keys, real inputs as queries.

Three sets of keys: the 1,536 of one layer; the 46,080 of all layers, read by one layer's inputs, since there is no
trained memory of that size; and 16,384 recorded inputs of the layer, which is how learned facts are keyed. Queries are
recorded on WikiText: those that train from 100,000, those that judge from 0. Truth is the influence that the `score`
proposer ranks by, `abs(act(key . x)) * rms(modulator . x) * norm(value)`, over every slot.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.rows import Bench, Measured, shared_data
from benchmarks.timing import missing, scratch
from mindset.graft.families import family_of, layers_of
from mindset.graft.indexing import activation_in_numpy, recorded_queries
from mindset.graft.sources import load_teacher
from mindset.graft.torch_search import torch_searcher
from mindset.store import BankRecord, MemoryDir, Rows, ShardRecord
from mindset.store.index_choice import Wanted, tried
from mindset.store.search import ShardSearch
from mindset.store.slab_store import SlabStore

__all__ = ["recall_rows"]

LAYERS = (4, 15, 27)
TARGET = 0.95


def recall_rows(bench: Bench) -> None:
    """One row for each layer and set of keys: the best that finds 95 % of the highest 16 with 64 candidates."""
    shared = shared_data()
    if missing("faiss") or shared is None:
        print(
            "skipped: recall on hidden states needs faiss and the shared data folder (MINDSET_SHARED)",
            flush=True,
        )
        return
    text = (shared / "text/wikitext2-valid.txt").read_text(encoding="utf-8")
    held: dict[str, Any] = {}

    def recorded() -> dict[str, Any]:
        if not held:
            teacher = load_teacher("smollm2")
            train, judge, keyed = (512, 512, 512) if bench.quick else (6144, 1024, 16_384)
            for name, start, count in (
                ("judge", 0, judge),
                ("train", 100_000, train),
                ("keyed", 200_000, keyed),
            ):
                layers = [15] if name == "keyed" else list(LAYERS)
                ids = teacher.tokenizer(text[start : start + 12 * count])["input_ids"][:count]
                held[name] = recorded_queries(
                    teacher.model, torch.tensor(ids[: len(ids) // 256 * 256]).view(-1, 256), layers
                )
            held["rows"] = _rows_of(teacher.model)
        return held

    for layer in LAYERS:
        for keys in ("one layer's", "all layers'", "recorded inputs"):
            if keys == "recorded inputs" and layer != 15:
                continue

            def measure(layer: int = layer, keys: str = keys) -> Measured:
                with scratch() as folder:
                    return _judged(folder, recorded(), layer, keys)

            settings = {"layer": layer, "keys": keys, "k": 16, "candidates": 64, "recall": TARGET}
            bench.row(f"hidden states: layer {layer}, {keys} rows", measure, unit="x as fast as exact, at recall .95",
                      settings=settings | {"threads": torch.get_num_threads()})  # fmt: skip


def _rows_of(model: Any) -> list[dict[str, np.ndarray]]:
    """By layer: keys, modulators and values."""
    found = []
    for layer in layers_of(model, family_of(model.config)):
        ff = layer.mlp
        named = {"key": ff.gate_proj.weight, "modulator": ff.up_proj.weight, "value": ff.down_proj.weight.T}
        found.append({name: tensor.detach().float().contiguous().numpy() for name, tensor in named.items()})
    return found


def _judged(folder: Path, recorded: dict[str, Any], layer: int, keys: str) -> Measured:
    if keys == "recorded inputs":
        inputs = recorded["keyed"][layer]
        inputs = inputs - inputs.mean(0)
        arrays = {
            "key": inputs / np.linalg.norm(inputs, axis=1, keepdims=True),
            "value": np.ones((len(inputs), 1), np.float32),
        }
        rule, activation = "radius", torch.nn.Identity()
    else:
        chosen = recorded["rows"] if keys == "all layers'" else [recorded["rows"][layer]]
        arrays = {name: np.concatenate([rows[name] for rows in chosen]) for name in chosen[0]}
        rule, activation = "silu", torch.nn.SiLU()
    count = len(arrays["key"])
    fields = {name: Rows(np.ascontiguousarray(array), "float32") for name, array in arrays.items()}
    shard = ShardRecord("base", rule, "modulator" in fields, count, fields)
    MemoryDir.write(folder / "m", [BankRecord(layer, "mirror", 1, (shard,))])
    with SlabStore(folder / "m") as store:
        search = ShardSearch(store, layer, "base", torch_searcher)
        choice, _ = tried(
            search, recorded["train"][layer], recorded["judge"][layer], activation_in_numpy(activation),
            Wanted(recall=TARGET, smallest=1),
        )  # fmt: skip
    enough = [point for point in choice.curve if point.recall >= TARGET]
    best = max(enough, key=lambda point: point.speedup, default=None)
    extra = {"slots": count, "engine": choice.engine, "why": choice.why, "exact_ms": choice.exact_ms}
    extra["curve"] = [[p.kind, p.hot, p.probes, p.recall, p.speedup] for p in choice.curve]
    extra["best"] = None if best is None else asdict(best)
    return Measured(0.0 if best is None else best.speedup, 1.0, extra=extra)
