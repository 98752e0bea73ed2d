"""`python -m benchmarks.store`: what the memory costs as a database; ratios, things measured in turn in one process.

The twelve bars of the store's design and what else its size must not spoil. Rows that need a library which is not there
(faiss, hnswlib, PostgreSQL) or hardware (bfloat16) say so and are left for another machine.
"""

from __future__ import annotations

from benchmarks.rows import open_bench
from benchmarks.store_disk import disk_rows
from benchmarks.store_kill import kill_rows
from benchmarks.store_ram import ram_rows
from benchmarks.store_recall import recall_rows
from benchmarks.store_scale import scale_rows
from benchmarks.store_scale_out import scale_out_rows
from benchmarks.store_search import search_rows


def main() -> None:
    """Measure every row that is not there yet."""
    bench = open_bench("store")
    search_rows(bench)
    disk_rows(bench)
    kill_rows(bench)
    scale_out_rows(bench)
    recall_rows(bench)
    scale_rows(bench)
    ram_rows(bench)


if __name__ == "__main__":
    main()
