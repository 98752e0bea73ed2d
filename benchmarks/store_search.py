"""Bars 1-5: exact search, bfloat16, the index, its building, and what changes do to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.rows import Bench, Measured
from benchmarks.timing import clusters, in_turn, missing, one_shard, scratch, seconds
from mindset.graft.torch_search import Bfloat16Searcher, bfloat16_pays, torch_searcher
from mindset.store.entries import QueryMoments, extended
from mindset.store.ivf import Ivf
from mindset.store.search import ShardSearch
from mindset.store.shard_index import ShardIndex, lists_for

__all__ = ["search_rows"]

K, D = 16, 64


def search_rows(bench: Bench) -> None:
    """All of them."""
    _exact(bench)
    _bfloat16(bench)
    if missing("faiss"):
        return
    _index(bench)
    _changes(bench)


def _exact(bench: Bench) -> None:
    n = 4_000 if bench.quick else 36_000

    def measure() -> Measured:
        keys, ratios = clusters(n, D, bench.seed), {}
        with scratch() as folder, one_shard(folder / "m", keys) as store:
            search, same = ShardSearch(store, 0, "base", torch_searcher), torch.from_numpy(keys)
            for batch, repeats in ((1, 400), (64, 60), (4096, 8)):
                asked = clusters(batch, D, bench.seed + 1)
                bare = torch.from_numpy(asked)
                ours, plain = in_turn(
                    lambda asked=asked: search.search(asked, K),
                    lambda bare=bare: (bare @ same.T).topk(K),
                    repeats,
                )  # type: ignore[misc]
                ratios[str(batch)] = round(ours / plain, 3)
        return Measured(max(ratios.values()), 1.0, extra={"by_batch": ratios})

    bench.row(
        "1: exact search through the store", measure, unit="x (Q @ K.T).topk(k), worst of batch 1, 64, 4,096",
        settings={"n": n, "d": D, "k": K, "threads": torch.get_num_threads()}, bar="<= 1.25",
    )  # fmt: skip


def _bfloat16(bench: Bench) -> None:
    if not bfloat16_pays():
        print(
            "skipped: the row on bfloat16, which this processor does not multiply faster than float32",
            flush=True,
        )
        return
    n = 50_000 if bench.quick else 1_000_000

    def measure() -> Measured:
        keys, asked = clusters(n, D, bench.seed), clusters(64, D, bench.seed + 1)
        half = Bfloat16Searcher()
        exact, _ = torch_searcher(keys, asked, K, None)
        found, _ = half(keys, asked, K, None)
        full, fast = in_turn(
            lambda: torch_searcher(keys, asked, K, None),
            lambda: half(keys, asked, K, None),
            3 if bench.quick else 7,
        )
        return Measured(full / fast, 1.0, extra={"recall": _recall(exact, found)})

    bench.row(
        "2: bfloat16 and rescoring, batch 64", measure, unit="x as fast as float32", settings={"n": n, "d": D, "k": K},
        bar=">= 2.0",
    )  # fmt: skip


def _index(bench: Bench) -> None:
    n = 50_000 if bench.quick else 1_000_000
    settings = {"n": n, "d": D, "k": K, "recall": 0.99, "threads": torch.get_num_threads()}
    bars = {1: ">= 50", 64: ">= 15", 4096: ">= 15"}
    built: dict[str, Any] = {}

    def index() -> dict[str, Any]:
        if not built:
            keys, asked = clusters(n, D, bench.seed), clusters(512, D, bench.seed + 1)
            moments = QueryMoments.of(clusters(4096, D, bench.seed + 2))
            built["seconds"] = seconds(lambda: built.update(ivf=_built(keys, moments)))
            truth, _ = torch_searcher(keys, asked, K, None)
            probes, recall = 1, 0.0
            while recall < 0.99 and probes < built["ivf"].lists:
                probes *= 2
                recall = _recall(truth, built["ivf"].search(extended(asked), K, probes)[0])
            built.update(keys=keys, probes=probes, recall=recall)
        return built

    for batch, bar in bars.items():

        def measure(batch: int = batch) -> Measured:
            it, asked = index(), clusters(batch, D, bench.seed + 3)
            repeats = {1: 60, 64: 12, 4096: 1}[batch]
            ivf, keys, probes = it["ivf"], it["keys"], it["probes"]
            exact, fast = in_turn(
                lambda: torch_searcher(keys, asked, K, None),
                lambda: ivf.search(extended(asked), K, probes),
                repeats,
            )
            extra = {
                "probes": probes,
                "recall": it["recall"],
                "exact_ms": exact * 1e3,
                "index_ms": fast * 1e3,
            }
            return Measured(exact / fast, 1.0, extra=extra)

        bench.row(f"3: an index at {n:,} x {D}, batch {batch}", measure, unit="x as fast as exact",
                  settings=settings | {"batch": batch}, bar=bar)  # fmt: skip

    if missing("hnswlib"):
        return

    def building() -> Measured:
        import hnswlib

        graph = hnswlib.Index("ip", D)
        graph.init_index(n, M=16, ef_construction=128, random_seed=bench.seed)
        keys = index()["keys"]
        other = seconds(lambda: graph.add_items(keys, num_threads=torch.get_num_threads()))
        return Measured(
            it_s := built["seconds"] / other, 1.0, extra={"ivf_s": it_s * other, "hnswlib_s": other}
        )

    bench.row("4: building the index", building, unit="x hnswlib's time", settings=settings, bar="<= 0.25")


def _built(keys: np.ndarray, moments: QueryMoments) -> Ivf:
    entries = extended(keys)
    entries[:, -1] = 0
    lists = lists_for(len(keys))
    sample = np.random.default_rng(0).permutation(len(keys))[: 64 * lists]
    ivf = Ivf.of_keys(entries[np.sort(sample)], moments, lists)
    ivf.add(np.arange(len(keys), dtype=np.int64), entries)
    return ivf


def _changes(bench: Bench) -> None:
    n = 10_000 if bench.quick else 100_000
    measured: dict[str, float] = {}

    def changed() -> dict[str, float]:
        if measured:
            return measured
        keys, asked, probes = clusters(n, D, bench.seed), clusters(512, D, bench.seed + 1), 32
        with scratch() as folder, one_shard(folder / "m", keys) as store:
            moments = QueryMoments.of(clusters(4096, D, bench.seed + 2))
            search = ShardSearch(store, 0, "base", torch_searcher)
            index = ShardIndex.of_keys(search, moments)
            gone = np.random.default_rng(3).permutation(n)[: n // 10] + 1
            store.delete(gone)
            _insert(store, clusters(n // 10, D, bench.seed + 4))
            search.refresh()
            measured["follow_s"] = seconds(index.follow)
            measured["rebuild_s"] = seconds(
                lambda: measured.update(recall_rebuilt=0.0) or _fresh(search, moments)
            )
            fresh = _fresh(search, moments)
            exact, _ = search.search_rows(asked, K)
            after = index.search(asked, K, probes).ids
            measured["recall"] = _recall(exact, index.search_rows(asked, K, probes)[0])
            measured["recall_rebuilt"] = _recall(exact, fresh.search_rows(asked, K, probes)[0])
            measured["deleted_named"] = float(np.isin(after, gone).sum())
        return measured

    settings = {"n": n, "d": D, "k": K, "probes": 32, "deleted": n // 10, "inserted": n // 10}

    def cost() -> Measured:
        it = changed()
        return Measured(it["follow_s"] / it["rebuild_s"], 1.0, extra=it)

    bench.row("5: following 10 % out and 10 % in", cost, unit="x a rebuild", settings=settings, bar="<= 0.05")
    bench.row("5: recall lost against a fresh index", lambda: Measured(
        changed()["recall_rebuilt"] - changed()["recall"], changed()["recall_rebuilt"]), unit="recall@16",
        settings=settings, bar="<= 0.01")  # fmt: skip
    bench.row("5: deleted slots named", lambda: Measured(changed()["deleted_named"]), unit="slots",
              settings=settings, bar="<= 0")  # fmt: skip


def _fresh(search: ShardSearch, moments: QueryMoments) -> ShardIndex:
    return ShardIndex.of_keys(search, moments)


def _insert(store: Any, keys: np.ndarray) -> None:
    from mindset.store.slots import NewSlot

    store.insert(
        0, "base", [NewSlot()] * len(keys), {"key": keys, "value": np.ones((len(keys), 1), np.float32)}
    )


def _recall(truth: np.ndarray, rows: np.ndarray) -> float:
    return float(np.mean([np.isin(true, some).mean() for true, some in zip(truth, rows, strict=True)]))
