"""`python -m benchmarks.facts`: what facts in a memory are worth, and the damage that they do.

On SmolLM2-135M-Instruct (4-bit weights, dequantised). CounterFact records 0-499 are for tuning, 500-2,999 are scored;
`rephrase_prompt` and `locality_prompt` serve for scoring only. Every method is scored by the same code on the same
facts: `facts_scoring`. Greedy means that all tokens of the target are the likeliest, one after the other.
"""

from __future__ import annotations

from benchmarks.facts_alone import alone_rows
from benchmarks.facts_body import body_rows
from benchmarks.facts_corpus import corpus_rows
from benchmarks.facts_rows import FIRST_SCORED, held_rows, many_rows
from benchmarks.rows import open_bench, shared_data


def main() -> None:
    """Measure every row that is not there yet."""
    bench = open_bench("facts", devices=True)
    shared = shared_data()
    if shared is None or not (shared / "facts" / "counterfact.json").exists():
        print("skipped: needs facts/counterfact.json in the shared data (MINDSET_SHARED)")
        return
    alone_rows(bench, shared, FIRST_SCORED)
    held_rows(bench, shared)
    corpus_rows(bench, shared)
    body_rows(bench, shared)
    many_rows(bench, shared)


if __name__ == "__main__":
    main()
