"""What a compiled product is told: the names of a block's integers."""

from __future__ import annotations

__all__ = ["FIELDS"]

FIELDS = ("threads", "thread_number", "thread_count", "rows", "n", "d", "x", "weight", "out")
