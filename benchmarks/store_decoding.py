"""A million slots a layer in both layers of tinystories-656k, decoded through an index, against ten thousand by score.

Slots are the teacher's 384, repeated and perturbed by 30 % of their length: this times reading, it trains nothing. Rows
are mapped files; an index names the candidates, whose rows alone are fetched. What is resident is read from the system
before and after decoding, the maps given back first.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.rows import Bench, Measured, shared_data
from benchmarks.timing import missing, scratch
from mindset.graft.bank import MirrorBank
from mindset.graft.calibration import own_samples
from mindset.graft.convert import build_student
from mindset.graft.indexed import IndexProposer, proposing_by
from mindset.graft.indexing import activation_in_numpy, recorded_queries
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan
from mindset.graft.shard import Shard
from mindset.graft.sources import load_teacher
from mindset.graft.torch_search import torch_searcher
from mindset.probe.speed import decode_ratio
from mindset.store import BankRecord, MemoryDir, Rows, ShardRecord
from mindset.store.entries import QueryMoments
from mindset.store.index_choice import highest
from mindset.store.search import ShardSearch
from mindset.store.shard_index import ShardIndex
from mindset.store.slab_store import SlabStore

__all__ = ["CANDIDATES", "FEW", "NOISE", "K", "chosen_index", "decoding_rows", "student"]

K, CANDIDATES, FEW, NOISE = 32, 96, 10_000, 0.3


def decoding_rows(bench: Bench) -> None:
    """One row on speed; what is resident is beside it."""
    shared = shared_data()
    if shared is None or missing("faiss"):
        print(
            "skipped: decoding a million slots needs faiss and the shared data folder (MINDSET_SHARED)",
            flush=True,
        )
        return
    many = 40_000 if bench.quick else 1_000_000
    teacher = load_teacher(str(shared / "teachers/tinystories-656k"))

    def measure() -> Measured:
        tokens = own_samples(teacher.model, rows=8 if bench.quick else 16, length=160, seed=bench.seed)
        with scratch() as folder:
            few = student(teacher, tokens, folder / "few", FEW, bench.seed)
            large = student(teacher, tokens, folder / "many", many, bench.seed)
            with SlabStore(folder / "many") as store:
                told: dict[str, Any] = {}
                proposers = {
                    layer: IndexProposer(chosen_index(store, large, tokens, layer, told), 1)
                    for layer in banks(large)
                }
                for bank in banks(large).values():
                    bank.shards["base"].value_norm()  # type: ignore[index,union-attr,operator]
                _give_back(store)
                told["resident_before_mb"] = _resident_mb()
                with proposing_by(large, proposers):
                    speed = decode_ratio(large, few, tokens[0][:64], 64, pairs=3 if bench.quick else 10)
                told["resident_after_mb"] = _resident_mb()
                told["rows_mb"] = round(store.memory.nbytes / 1e6)
        told |= {"tokens_per_second": speed.a_tokens_per_second, "of_the_few": speed.b_tokens_per_second}
        return Measured(speed.ratio, 1.0, (speed.ratio_min, speed.ratio_max), told)

    settings = {"slots": many, "few": FEW, "k": K, "candidates": CANDIDATES, "noise": NOISE, "dtype": "float32",
                "threads": torch.get_num_threads(), "slots_are": "replicated and perturbed"}  # fmt: skip
    bench.row(f"decoding {many:,} slots a layer through an index", measure, unit=f"x the speed of {FEW:,} by score",
              settings=settings, bar=">= 0.5")  # fmt: skip


def student(teacher: Any, tokens: torch.Tensor, folder: Path, n: int, seed: int) -> Any:
    """A model whose banks map `n` slots each in `folder`."""
    model = build_student(
        teacher.model, ConversionPlan(k=K, propose="score", candidates=CANDIDATES), calibration=tokens
    )
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
    store: SlabStore, model: Any, tokens: torch.Tensor, layer: int, told: dict[str, Any]
) -> ShardIndex:
    """Lists of recorded queries, and in `told` what the nearest of them finds."""
    queries = recorded_queries(model, tokens, [layer])[layer]
    train, judge = queries[:-128], queries[-128:]
    search = ShardSearch(store, layer, "base", torch_searcher)
    moments = QueryMoments.of(train)
    activation = activation_in_numpy(banks(model)[layer].shards["base"].activation)  # type: ignore[index,union-attr,arg-type]
    index = ShardIndex.of_queries(
        search, moments, train, highest(search, train, 2 * CANDIDATES, moments, activation)
    )
    truth = highest(search, judge, K, moments, activation)
    named, _ = index.search_rows(judge, CANDIDATES, 1)
    told[f"recall@{K} in layer {layer}"] = float(
        np.mean([np.isin(true, some).mean() for true, some in zip(truth, named, strict=True)])
    )
    return index


def _give_back(store: SlabStore) -> None:
    """Let the system drop what is resident of the maps; what is read again comes back."""
    for info in store.shards():
        for field in info.fields:
            held = store.memory.rows(info.layer, info.name, field)
            while held is not None and not isinstance(held, mmap.mmap):
                held = held.base  # type: ignore[assignment]
            if isinstance(held, mmap.mmap):
                held.madvise(mmap.MADV_DONTNEED)


def _resident_mb() -> dict[str, int]:
    text = Path("/proc/self/status").read_text()
    return {name: int(re.search(rf"{name}:\s+(\d+)", text)[1]) // 1000 for name in ("RssAnon", "RssFile")}  # type: ignore[index]
