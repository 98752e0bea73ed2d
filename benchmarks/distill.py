"""`python -m benchmarks.distill`: what conversion and distillation cost, on two real teachers."""

from __future__ import annotations

from benchmarks.decoding import decoding_rows
from benchmarks.rows import open_bench
from benchmarks.smollm2 import smollm2_rows
from benchmarks.startup import startup_rows
from benchmarks.tinystories import tinystories_rows


def main() -> None:
    """Measure every row that is not there yet."""
    bench = open_bench("distill")
    startup_rows(bench)
    tinystories_rows(bench)
    decoding_rows(bench)
    smollm2_rows(bench)


if __name__ == "__main__":
    main()
