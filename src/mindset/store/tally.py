"""Reads on their way to the counters: what was read in each place since the last writing, and the writing.

Numpy only: whoever reads (graft) says which places with what weight. Sums do not depend on how reads were batched,
but for rounding of influence and log CRF; hits are exact. Not safe for several threads at once; the session locks.

A read is a slot that was chosen and whose weight is not 0: a chosen slot of weight 0 added nothing, and which of those
fill up the k is chance.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from mindset.errors import FormatError, ReadOnlyError, UsageError
from mindset.journal.folder_lock import writing_in
from mindset.store.counters import Reads
from mindset.store.memory_dir import MemoryDir
from mindset.store.pairs import ROOM, Pairs
from mindset.store.positions import Positions
from mindset.store.usage import DECAY, Usage

__all__ = ["PAIR_STRIDE", "BankTally", "ReadCount"]

PAIR_STRIDE = 8
"""Of how many tokens one is looked at for pairs."""
PAIR_REACH = 2
"""How many places in the order of influence two slots may be apart to be a pair."""
PAIR_WITHIN = 0.05
"""How much less influence the smaller may have, as a share."""


class BankTally:
    """The reads of one bank, by place: heads and then shards in the bank's order."""

    def __init__(self, places: int, decay: float) -> None:
        self.decay, self.tokens = decay, 0
        """Tokens seen since the session began."""
        self.hits = np.zeros(places, np.int64)
        self.last = np.zeros(places, np.int64)
        self.log_crf = np.full(places, -np.inf)
        self.influence = np.zeros(places)
        self._pairs, self._waiting = Pairs.none(), list[Pairs]()

    @property
    def pairs(self) -> Pairs:
        """Pairs of places that came back together."""
        self._fold()
        return self._pairs

    def _fold(self) -> None:
        if self._waiting:
            keys = np.concatenate([one.pairs for one in self._waiting])
            counts = np.concatenate([one.counts for one in self._waiting])
            self._pairs, self._waiting = self._pairs.plus(Pairs(keys, counts)), []

    def clear(self) -> None:
        """What was counted is written."""
        for array, empty in ((self.hits, 0), (self.last, 0), (self.log_crf, -np.inf), (self.influence, 0.0)):
            array[:] = empty
        self._pairs, self._waiting = Pairs.none(), []

    def add(
        self,
        tokens: Int64[np.ndarray, " reads"],
        groups: Int64[np.ndarray, " reads"],
        places: Int64[np.ndarray, " reads"],
        influence: Float64[np.ndarray, " reads"],
    ) -> None:
        """One entry a read: when (`self.tokens` is before the first), in which head, where and how much."""
        if not len(places):
            return
        count = len(self.hits)
        last = np.zeros(count, np.int64)
        np.maximum.at(last, places, tokens)
        decayed = np.bincount(places, np.exp2(self.decay * (tokens - last[places])), count)
        self._sum(np.bincount(places, minlength=count), np.bincount(places, influence, count), last, decayed)
        self._pair(tokens, groups, places, influence)

    def add_dense(
        self, times: Int64[np.ndarray, " tokens"], influence: Float64[np.ndarray, "tokens places"]
    ) -> None:
        """The influence of every place for every token; 0 is no read. For banks that read all: no pairs."""
        if not len(times):
            return
        was_read = influence != 0
        last = (was_read * times[:, None]).max(0)
        decayed = (np.exp2(self.decay * np.minimum(times[:, None] - last, 0)) * was_read).sum(0)
        self._sum(was_read.sum(0), influence.sum(0), last, decayed)

    def _sum(
        self,
        hits: Int64[np.ndarray, " places"],
        influence: Float64[np.ndarray, " places"],
        last: Int64[np.ndarray, " places"],
        decayed: Float64[np.ndarray, " places"],
    ) -> None:
        """`decayed` is CRF as of each place's own last read, so that it neither vanishes nor overflows."""
        self.hits += hits
        self.influence += influence
        np.maximum(self.last, last, out=self.last)
        with np.errstate(divide="ignore"):
            self.log_crf = np.logaddexp2(self.log_crf, np.log2(decayed) + self.decay * last)

    def _pair(
        self,
        tokens: Int64[np.ndarray, " reads"],
        groups: Int64[np.ndarray, " reads"],
        places: Int64[np.ndarray, " reads"],
        influence: Float64[np.ndarray, " reads"],
    ) -> None:
        """Neighbours in the order of influence, within one token and head."""
        some = tokens % PAIR_STRIDE == 0
        tokens, groups, places, influence = tokens[some], groups[some], places[some], influence[some]
        order = np.lexsort((-influence, groups, tokens))
        tokens, groups, places, influence = tokens[order], groups[order], places[order], influence[order]
        for reach in range(1, PAIR_REACH + 1):
            near = influence[reach:] >= (1 - PAIR_WITHIN) * influence[:-reach]
            near &= (tokens[reach:] == tokens[:-reach]) & (groups[reach:] == groups[:-reach])
            if near.any():
                self._wait(Pairs.of(places[:-reach][near], places[reach:][near]))

    def _wait(self, pairs: Pairs) -> None:
        """Pairs are added to the sketch when there are many."""
        self._waiting.append(pairs)
        if sum(len(one.counts) for one in self._waiting) > ROOM:
            self._fold()


class ReadCount:
    """One session of counting: the places of a memory as the model was loaded, and the way to its counters."""

    def __init__(self, folder: Path, decay: float | None = None) -> None:
        """`folder` is a model's; its memory must be one that can be written to."""
        self.folder, self.memory = Path(folder), Path(folder) / "memory"
        self.positions = Positions.of(self.memory)
        if not os.access(self.memory, os.W_OK):
            raise ReadOnlyError(f"{self.memory} cannot be written to: its reads cannot be counted there")
        stamp = Usage(MemoryDir.open(self.memory), read_only=True).stamp
        self.start = 0 if stamp is None else stamp[0]
        self.decay = (DECAY if stamp is None else stamp[1]) if decay is None else decay
        if stamp is not None and self.decay != stamp[1]:
            raise UsageError(
                f"{self.memory} counts with lambda {stamp[1]:g}, not {self.decay:g}; "
                "remove its *.counts files to count anew"
            )

    def write(
        self,
        tallies: dict[int, BankTally],
        shards: dict[int, list[tuple[str, Int64[np.ndarray, "_ _"]]]],
        *,
        wait_seconds: float = 10.0,
    ) -> None:
        """Add what was tallied to the counters, as the folder's only writer; `shards` says each bank's places."""
        with writing_in(self.folder, wait_seconds):
            now = self.positions if self.positions.is_current(self.memory) else Positions.of(self.memory)
            if now.generation != self.positions.generation:
                raise FormatError(
                    f"{self.folder} was saved anew meanwhile; reads of the model that it was are lost"
                )
            usage = Usage(MemoryDir.open(self.memory))
            stamp = usage.stamp
            step = max([self.start, *(self.start + tally.tokens for tally in tallies.values())])
            step = max(step, 0 if stamp is None else stamp[0])
            for layer, tally in tallies.items():
                for name, places in shards[layer]:
                    self._write_shard(usage, now, (layer, name), tally, places, step)
                tally.clear()

    def _write_shard(
        self,
        usage: Usage,
        now: Positions,
        shard: tuple[int, str],
        tally: BankTally,
        places: Int64[np.ndarray, "n_heads capacity"],
        step: int,
    ) -> None:
        rows = self.positions.rows_in(now, *shard).ravel()
        flat = places.ravel()
        read = (rows >= 0) & (tally.hits[flat] > 0)
        flat, rows = flat[read], rows[read]
        late = tally.log_crf[flat] + self.decay * self.start
        reads = Reads(rows, tally.hits[flat], tally.influence[flat], tally.last[flat] + self.start, late)
        usage.of(*shard).add(reads, step, self.decay)
        names = np.zeros(len(tally.hits), np.int64)
        names[places.ravel()] = self.positions.shards[shard].ids.ravel()
        pairs = tally.pairs.renamed(names)
        if len(pairs.counts):
            file = usage.pairs_file(*shard)
            Pairs.load(file).plus(pairs).save(file)
