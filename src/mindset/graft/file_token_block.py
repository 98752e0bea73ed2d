"""What a compiled reading from files is told: the names of a block's integers."""

from __future__ import annotations

__all__ = ["FIELDS", "STEPS"]

STEPS = 3
"""Steps in which a file is read, and after which a failure is looked for."""

FIELDS = (
    "threads", "thread_number", "thread_count", "barrier", "pread", "n_slots", "d_model", "candidates", "k", "rule",
    "key", "key_bias", "modulator", "modulator_bias", "value", "first_byte", "norms", "whiten", "centroids", "starts",
    "lists", "probes", "most", "copies", "index", "entries_at", "rows_at", "hot", "hot_rows", "hot_entries", "every",
    "x", "out", "failed", "asked", "promise", "chosen_lists", "places", "entries", "rows", "scores", "named",
    "fetched", "weights", "dots", "chosen", "parts",
)  # fmt: skip
