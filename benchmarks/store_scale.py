"""What a memory of millions costs: taking it in, opening it, looking through it."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np

from benchmarks.rows import Bench, Measured
from benchmarks.timing import scratch, seconds
from mindset.store import BankRecord, MemoryDir, Rows, ShardRecord
from mindset.store.scan import Where, count, scan
from mindset.store.slab import HEADER_BYTES, SlabHeader
from mindset.store.slab_store import SlabStore
from mindset.store.slots import Change

__all__ = ["scale_rows"]

D = 64
OPEN = (
    "import sys, time; from mindset.store.slab_store import SlabStore; began = time.perf_counter(); "
    "store = SlabStore(sys.argv[1], read_only=sys.argv[2] == 'read'); store.shards(); "
    "print(time.perf_counter() - began)"
)


def scale_rows(bench: Bench) -> None:
    """All of them."""
    _open(bench)
    _pages(bench)


def _open(bench: Bench) -> None:
    n = 200_000 if bench.quick else 10_000_000

    def measure() -> Measured:
        with scratch() as folder:
            _sparse(folder / "m", n)
            first = seconds(lambda: SlabStore(folder / "m").close())
            taken = {how: _opened(folder / "m", how) for how in ("write", "read")}
        return Measured(max(taken.values()), extra=taken | {"first_opening_s": first})

    bench.row(f"opening {n:,} slots", measure, unit="s, in a fresh process", settings={"n": n, "d": D, "sparse": True},
              bar="<= 1.0")  # fmt: skip


def _opened(folder: Path, how: str) -> float:
    command = [sys.executable, "-c", OPEN, str(folder), how]
    return statistics.median(
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(3)
    )


def _sparse(folder: Path, n: int) -> None:
    """A memory of `n` slots of zeros that take no space: an empty one whose slabs are made longer."""
    empty = Rows(np.zeros((0, D), np.float16), "float16")
    shard = ShardRecord("base", "relu", False, 0, {"key": empty, "value": empty})
    MemoryDir.write(folder, [BankRecord(0, "mirror", 1, (shard,))])
    for slab in folder.glob("*.slab"):
        name = slab.name.split(".g")[0]
        header = SlabHeader(name, "float16", D, n, n, ())
        sums = tuple(
            zlib.crc32(bytes((block.stop - block.start) * header.row_bytes)) for block in header.blocks()
        )
        header = SlabHeader(name, "float16", D, n, n, sums)
        with slab.open("r+b") as file:
            file.write(header.pack())
            file.truncate(header.file_bytes)
        if slab.stat().st_size != HEADER_BYTES + n * header.row_bytes:
            raise RuntimeError(f"{slab} has another size than its header says")
    manifest = json.loads((folder / "memory.json").read_text())
    for told in manifest["banks"][0]["shards"]:
        told["n_slots"] = n
        for place in told["slabs"].values():
            place["shape"][0] = n
    (folder / "memory.json").write_text(json.dumps(manifest))


def _pages(bench: Bench) -> None:
    n = 40_000 if bench.quick else 1_000_000
    questions = {
        "all": Where(),
        "rare word": Where(text="rare"),
        "common word": Where(text="common"),
        "common word, first layer": Where(text="common", layer=0),
        "common word, last layer": Where(text="common", layer=3),
        "tag": Where(tag="seen"),
        "pinned": Where(pinned=True),
        "not pinned": Where(pinned=False),
        "suppressed": Where(suppressed=True),
        "last layer": Where(layer=3),
        "last layer, head": Where(layer=3, head=0),
    }

    def measure() -> Measured:
        with scratch() as folder:
            rows = Rows(np.zeros((n // 4, 4), np.float16), "float16")
            shard = ShardRecord("base", "relu", False, n // 4, {"key": rows, "value": rows})
            MemoryDir.write(folder / "m", [BankRecord(layer, "mirror", 1, (shard,)) for layer in range(4)])
            with SlabStore(folder / "m") as store:
                _varied(store, n, bench.seed)
            with SlabStore(folder / "m", read_only=True) as store:
                taken = {name: round(_page_ms(store, where, n), 2) for name, where in questions.items()}
        return Measured(
            max(taken.values()), extra={"ms": taken, "median_ms": statistics.median(taken.values())}
        )

    bench.row(f"a page of {n:,} slots", measure, unit=f"ms, the slowest of {len(questions)} questions",
              settings={"n": n, "page": 20}, bar="<= 100")  # fmt: skip


def _varied(store: SlabStore, n: int, seed: int) -> None:
    """A quarter with a common word, a thousandth each with a rare one, a pin, a weight of zero."""
    some = np.random.default_rng(seed).choice(n, 3 * n // 1000, replace=False) + 1
    for ids, change in zip(
        np.split(some, 3),
        (Change(label="rare thing", tags=("seen",)), Change(pinned=True), Change(weight=0.0)),
        strict=True,
    ):
        store.change(ids, change)
    with store.ledger.editing("label") as edit:
        edit.connection.exec_driver_sql(
            "UPDATE slots SET label = 'common word ' || slot WHERE shard = 1 AND label = ''"
        )


def _page_ms(store: SlabStore, where: Where, n: int) -> float:
    """Of the slowest page, with the count that `mindset memory search` shows beside it."""
    slowest = 0.0
    for newest in (False, True):
        for after in (0, n // 2):

            def page(newest: bool = newest, after: int = after) -> None:
                scan(store.ledger, where, limit=20, after=after, newest=newest)
                count(store.ledger, where, at_most=10_001)

            page()
            slowest = max(slowest, statistics.median(seconds(page) for _ in range(3)))
    return slowest * 1000
