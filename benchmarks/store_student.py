"""A model whose banks have a million slots a layer, and an index over them.

Slots are the teacher's, repeated and perturbed by 30 % of their length: this is for timing reads, it trains nothing.
Rows are mapped files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mindset.graft.bank import MirrorBank
from mindset.graft.convert import build_student
from mindset.graft.indexing import activation_in_numpy
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan
from mindset.graft.shard import Shard
from mindset.graft.torch_search import torch_searcher
from mindset.store import BankRecord, MemoryDir, Rows, ShardRecord
from mindset.store.entries import QueryMoments
from mindset.store.index_choice import highest
from mindset.store.search import ShardSearch
from mindset.store.shard_index import ShardIndex
from mindset.store.slab_store import SlabStore

__all__ = ["CANDIDATES", "FEW", "NOISE", "K", "chosen_index", "student"]

K, CANDIDATES, FEW, NOISE = 32, 96, 10_000, 0.3
RECALL, MOST = 0.95, 16


def student(teacher: Any, tokens: torch.Tensor, folder: Path, n: int, seed: int, layers: str = "all") -> Any:
    """A model whose banks map `n` slots each in `folder`."""
    plan = ConversionPlan(k=K, propose="score", candidates=CANDIDATES, layers=layers)
    model = build_student(teacher.model, plan, calibration=tokens)
    found = banks(model)
    MemoryDir.write(folder, (_record(layer, bank, n, seed) for layer, bank in found.items()))
    memory = MemoryDir.open(folder)
    for layer, bank in found.items():
        if not isinstance(bank, MirrorBank):
            raise TypeError("a mirror bank was expected")
        shard = bank.shards["base"]
        for field in ("key", "modulator", "value"):
            setattr(
                shard, field, nn.Parameter(_mapped(memory.rows(layer, "base", field)), requires_grad=False)
            )
        bank.modulator_rms = _repeated(bank.modulator_rms, n)
    return model.eval()


def _mapped(rows: np.ndarray) -> torch.Tensor:
    import warnings

    with warnings.catch_warnings():  # torch warns of read-only maps, which nothing here writes to
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(rows)


def _record(layer: int, bank: Any, n: int, seed: int) -> BankRecord:
    shard: Shard = bank.shards["base"]
    generator = torch.Generator().manual_seed(seed + layer)
    fields = {}
    for field in ("key", "modulator", "value"):
        rows = _repeated(getattr(shard, field).detach(), n)
        if n > FEW or field == "key":
            noise = torch.randn(rows.shape, generator=generator) * (NOISE / rows.shape[1] ** 0.5)
            rows = rows + noise * rows.norm(dim=1, keepdim=True)
        fields[field] = Rows(rows.numpy(), "float32")
    return BankRecord(layer, "mirror", 1, (ShardRecord("base", shard.rule, True, n, fields),))


def _repeated(rows: torch.Tensor, n: int) -> torch.Tensor:
    times = -(-n // len(rows))
    return rows.repeat(times, *([1] * (rows.ndim - 1)))[:n].contiguous()


def chosen_index(
    store: SlabStore, model: Any, queries: np.ndarray, layer: int, told: dict[str, Any]
) -> tuple[ShardIndex, int]:
    """Lists of keys, and how many are looked at: as few as find RECALL of the true ones, if MOST do.

    Of what `mindset memory index` tries these are what finds most of such slots, which are many of a few sorts.
    """
    train, judge = queries[:-128], queries[-128:]
    search = ShardSearch(store, layer, "base", torch_searcher)
    moments = QueryMoments.of(train)
    activation = activation_in_numpy(banks(model)[layer].shards["base"].activation)  # type: ignore[index,union-attr,arg-type]
    index = ShardIndex.of_keys(search, moments)
    truth, probes, recall = highest(search, judge, K, moments, activation), 1, 0.0
    while True:
        named, _ = index.search_rows(judge, CANDIDATES, probes)
        recall = float(np.mean([np.isin(true, some).mean() for true, some in zip(truth, named, strict=True)]))
        if recall >= RECALL or probes >= MOST:
            break
        probes *= 2
    told[f"recall@{K} in layer {layer}"], told[f"lists looked at in layer {layer}"] = recall, probes
    return index, probes
