"""Bars 6-9: fetching rows, putting slots in, counting reads, choosing who goes."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.rows import Bench, Measured
from benchmarks.timing import in_turn, one_shard, scratch
from mindset.graft.torch_search import torch_searcher
from mindset.store.counters import Counters, Reads
from mindset.store.eviction import make_policy
from mindset.store.slots import NewSlot

__all__ = ["disk_rows"]

D_KEY, D_VALUE = 64, 576


def disk_rows(bench: Bench) -> None:
    """All of them."""
    _gather(bench)
    _insert(bench)
    _count(bench)
    _victims(bench)


def _blobs(path: Path, values: np.ndarray) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE slots (id INTEGER PRIMARY KEY, value BLOB NOT NULL)")
    database.executemany(
        "INSERT INTO slots VALUES (?, ?)", ((i, row.tobytes()) for i, row in enumerate(values))
    )
    database.commit()
    return database


def _from_blobs(database: sqlite3.Connection, rows: np.ndarray) -> np.ndarray:
    found: dict[int, bytes] = {}
    for start in range(0, len(rows), 500):
        some = rows[start : start + 500].tolist()
        marks = ",".join("?" * len(some))
        found |= dict(database.execute(f"SELECT id, value FROM slots WHERE id IN ({marks})", some))  # noqa: S608
    return np.frombuffer(b"".join(found[i] for i in rows.tolist()), np.float16).reshape(len(rows), -1)


def _gather(bench: Bench) -> None:
    n = 20_000 if bench.quick else 200_000
    ratios: dict[str, float] = {}

    def measured() -> dict[str, float]:
        if ratios:
            return ratios
        rng = np.random.default_rng(bench.seed)
        values = rng.standard_normal((n, D_VALUE), dtype=np.float32).astype(np.float16)
        with scratch() as folder, one_shard(folder / "m", np.zeros((n, 4), np.float32), values) as store:
            info, tensor, database = (
                store.shard(0, "base"),
                torch.from_numpy(values),
                _blobs(folder / "b", values),
            )
            for count in (32, 16_384):
                rows = rng.integers(n, size=count)
                same = torch.from_numpy(rows)
                repeats = 300 if count == 32 else 12
                if not np.array_equal(store.vectors.get(info, "value", rows), _from_blobs(database, rows)):
                    raise RuntimeError("the stores differ")
                ours, ram = in_turn(
                    lambda rows=rows: store.vectors.get(info, "value", rows),  # type: ignore[misc]
                    lambda same=same: tensor.index_select(0, same),  # type: ignore[misc]
                    repeats,
                )
                again, blobs = in_turn(
                    lambda rows=rows: store.vectors.get(info, "value", rows),  # type: ignore[misc]
                    lambda rows=rows: _from_blobs(database, rows),  # type: ignore[misc]
                    max(3, repeats // 4),
                )
                ratios[f"ram_{count}"], ratios[f"blobs_{count}"] = ours / ram, blobs / again
            database.close()
        return ratios

    settings = {"n": n, "d": D_VALUE, "dtype": "float16"}
    rows = (
        ("6: 32 rows, warm", "ram_32", "x index_select in RAM", "<= 2.0"),
        ("6: 32 rows against SQLite BLOBs", "blobs_32", "x as fast", ">= 4.0"),
        ("6: 16,384 rows against SQLite BLOBs", "blobs_16384", "x as fast", ">= 5.0"),
    )
    for name, key, unit, bar in rows:
        bench.row(name, lambda key=key: Measured(measured()[key], 1.0, extra=measured()), unit=unit,  # type: ignore[misc]
                  settings=settings, bar=bar)  # fmt: skip


def _insert(bench: Bench) -> None:
    batches = 3 if bench.quick else 12
    size = 384
    told: dict[str, float] = {}

    def measured() -> dict[str, float]:
        if told:
            return told
        rng = np.random.default_rng(bench.seed)
        new = {
            "key": rng.standard_normal((size, D_KEY)).astype(np.float16),
            "value": rng.standard_normal((size, D_VALUE)).astype(np.float16),
        }
        with scratch() as folder:
            start = {name: np.zeros((8, array.shape[1]), np.float16) for name, array in new.items()}
            store = one_shard(folder / "m", start["key"], start["value"])
            before = _bytes(folder / "m")
            database = sqlite3.connect(folder / "blobs.sqlite")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(
                "CREATE TABLE slots (id INTEGER PRIMARY KEY, key BLOB NOT NULL, value BLOB NOT NULL)"
            )
            ours, plain = in_turn(
                lambda: store.insert(0, "base", [NewSlot()] * size, new),
                lambda: _plain(database, new),
                batches,
            )
            store.close()
            database.close()
            slots = size * (batches + 1)
            payload = 2 * (D_KEY + D_VALUE)
            told["speed"] = plain / ours
            told["bytes"] = (_bytes(folder / "m") - before) / slots / payload
            told["slots_per_second"] = size / ours
        return told

    settings = {"batch": size, "batches": batches, "d_key": D_KEY, "d_value": D_VALUE, "durability": "kill"}
    bench.row("7: inserting 384 slots", lambda: Measured(measured()["speed"], 1.0, extra=measured()),
              unit="x as fast as plain SQLite BLOBs", settings=settings, bar=">= 0.5")  # fmt: skip
    bench.row("7: bytes on disk of a slot", lambda: Measured(measured()["bytes"], 1.0, extra=measured()),
              unit="x its vectors", settings=settings, bar="<= 1.1")  # fmt: skip


def _plain(database: sqlite3.Connection, new: dict[str, np.ndarray]) -> None:
    rows = zip(new["key"], new["value"], strict=True)
    database.executemany(
        "INSERT INTO slots (key, value) VALUES (?, ?)", ((k.tobytes(), v.tobytes()) for k, v in rows)
    )
    database.commit()


def _bytes(folder: Path) -> int:
    """On the disk: files grow in steps, with holes that take nothing."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _count(bench: Bench) -> None:
    n, reads = (100_000 if bench.quick else 1_000_000), 6_144

    def measure() -> Measured:
        rng = np.random.default_rng(bench.seed)
        with scratch() as folder:
            counters = Counters(folder / "counters")
            counters.add(Reads.of(np.arange(n), np.zeros(n), 0, 0.01), 0, 0.01)
            database = sqlite3.connect(folder / "c.sqlite")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE c (id INTEGER PRIMARY KEY, hits INTEGER, last INTEGER, crf REAL)")
            database.executemany("INSERT INTO c VALUES (?, 0, 0, 0.0)", ((i,) for i in range(n)))
            database.commit()
            rows = rng.integers(n, size=reads)

            def in_sql() -> None:
                update = "UPDATE c SET hits = hits + 1, last = ?, crf = 1 + crf * ? WHERE id = ?"
                database.executemany(update, ((1, 0.5, int(row)) for row in rows))
                database.commit()

            mapped, sql = in_turn(
                lambda: counters.add(Reads.of(rows, np.ones(reads), 1, 0.01), 1, 0.01), in_sql, 9
            )
            database.close()
        return Measured(sql / mapped, 1.0, extra={"mapped_ms": mapped * 1e3, "sql_ms": sql * 1e3})

    bench.row(
        "8: counting reads", measure, unit="x as fast as SQL", settings={"n": n, "reads": reads}, bar=">= 50"
    )


def _victims(bench: Bench) -> None:
    n = 100_000 if bench.quick else 1_000_000

    def measure() -> Measured:
        rng = np.random.default_rng(bench.seed)
        policy: Any = make_policy("lrfu", n)
        rows = np.arange(n, dtype=np.int64)
        policy.born(rows, 0)
        policy.read(rows, rng.integers(1, 100, n), np.ones(n), 5)
        alive, keys = np.ones(n, bool), rng.standard_normal((n, D_KEY), dtype=np.float32)
        asked = rng.standard_normal((1, D_KEY), dtype=np.float32)
        chosen, query = in_turn(
            lambda: policy.victims(alive, n // 10, 6), lambda: torch_searcher(keys, asked, 16, None), 9
        )
        return Measured(chosen / query, 1.0, extra={"victims_ms": chosen * 1e3, "query_ms": query * 1e3})

    bench.row("9: choosing 10 % to go, LRFU", measure, unit="exact queries at batch 1", settings={"n": n, "d": D_KEY},
              bar="<= 10")  # fmt: skip
