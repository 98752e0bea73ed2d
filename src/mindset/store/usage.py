"""What was counted of a whole memory: the counters and pairs of every shard, and the clock that they share.

Files beside the slabs, of their generation; all of it is advice, and a memory that nobody counted has none. Knows no
records: which row is whose is the ledger's to say.
"""

from __future__ import annotations

from pathlib import Path

from mindset.store.counters import Counters
from mindset.store.memory_dir import MemoryDir

__all__ = ["DECAY", "Usage"]

DECAY = 1e-4
"""Lambda, where nothing is said: a read counts half after 10,000 tokens."""


class Usage:
    """The counters of one memory folder."""

    def __init__(self, memory: MemoryDir, *, read_only: bool = False) -> None:
        self.memory, self.read_only = memory, read_only
        self._counters: dict[tuple[int, str], Counters] = {}

    def of(self, layer: int, shard: str) -> Counters:
        """The counters of one shard."""
        key = (layer, shard)
        if key not in self._counters:
            self._counters[key] = Counters(self._file(layer, shard, "counts"), read_only=self.read_only)
        return self._counters[key]

    def pairs_file(self, layer: int, shard: str) -> Path:
        """Where the pairs that come back together are kept (`pairs`)."""
        return self._file(layer, shard, "pairs")

    def queue_file(self, layer: int, head: int) -> Path:
        """Where the main queue of S3-FIFO is kept between two evictions, of one head of a bank."""
        return self._file(layer, f"head-{head}", "queue")

    @property
    def stamp(self) -> tuple[int, float] | None:
        """Tokens counted so far, and lambda; None where nothing was counted yet."""
        files = self.memory.folder.glob(f"layer-*.reads.g{self.memory.generation}.counts")
        stamps = [stamp for file in files if (stamp := Counters(file, read_only=True).stamp) is not None]
        return max(stamps, default=None)

    def _file(self, layer: int, part: str, what: str) -> Path:
        name = f"layer-{layer:02d}.{part}.reads.g{self.memory.generation}.{what}"
        return self.memory.folder / name
