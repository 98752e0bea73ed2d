"""Seeds with names: one number from the run's seed and what it is for.

A named seed does not move when another consumer of randomness is added, and it is the same on every machine.
"""

from __future__ import annotations

import hashlib

__all__ = ["named_seed"]


def named_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for what `names` spell, drawn from the run's `seed`."""
    spelled = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(spelled.encode()).digest()[:8], "big") >> 1
