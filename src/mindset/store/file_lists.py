"""Inverted lists that stay in their file: a search reads the few that it looks at, so an index costs hardly any RAM.

For a memory whose owner allows it only so much of that: lists of keys take as much as the keys themselves. Nothing is
put in or taken out here; an index that has to follow a change is read whole (`ivf`).
"""

from __future__ import annotations

import json
import os
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from mindset.errors import FormatError
from mindset.store.entries import QueryMoments
from mindset.store.ivf import COPIES_SOUGHT, Best, Kind, once
from mindset.store.search import top_columns

__all__ = ["FileLists", "TensorFile"]

_PIECE = 1 << 20


class TensorFile:
    """Where the numbers of a safetensors file lie in it, for reading parts of them; open as long as somebody reads."""

    def __init__(self, path: Path) -> None:
        file = path.open("rb", buffering=0)
        self._close = weakref.finalize(self, file.close)
        self.descriptor = file.fileno()
        length = int.from_bytes(os.pread(self.descriptor, 8, 0), "little")
        header = json.loads(os.pread(self.descriptor, length, 8))
        self.names = sorted(name for name in header if name != "__metadata__")
        self._spans: dict[str, tuple[int, int]] = {}
        for name in self.names:
            first, stop = header[name]["data_offsets"]
            self._spans[name] = 8 + length + first, 8 + length + stop

    def start_of(self, name: str) -> int:
        """The byte of the file at which a tensor begins."""
        return self._spans[name][0]

    def read(self, name: str, first: int, out: np.ndarray) -> None:
        """Fill `out` with what stands in a tensor from byte `first` on."""
        start, stop = self._spans[name]
        wanted = out.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(wanted):
            at = start + first + done
            got = os.preadv(self.descriptor, [wanted[done:]], at) if at < stop else 0
            if not got:
                raise FormatError(f"{name} of an index is cut off: its file became shorter")
            done += got

    def pieces(self, name: str) -> Iterator[bytes]:
        """All of a tensor, bit by bit."""
        start, stop = self._spans[name]
        for at in range(start, stop, _PIECE):
            yield os.pread(self.descriptor, min(_PIECE, stop - at), at)

    def crc(self) -> int:
        """Of all tensors in the order of their names."""
        crc = 0
        for name in self.names:
            for piece in self.pieces(name):
                crc = zlib.crc32(piece, crc)
        return crc


class FileLists:
    """The lists of one index."""

    def __init__(
        self,
        file: TensorFile,
        centroids: Float32[np.ndarray, "lists d1"],
        starts: Int64[np.ndarray, " lists1"],
        moments: QueryMoments,
        kind: Kind,
    ) -> None:
        self.file, self.centroids, self.starts, self.moments, self.kind = (
            file,
            centroids,
            starts,
            moments,
            kind,
        )
        _, self.to_queries = moments.whitening()
        self._entries = np.empty((0, centroids.shape[1]), np.float32)
        self._rows = np.empty(0, np.int64)

    @property
    def lists(self) -> int:
        return len(self.centroids)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def nbytes(self) -> int:
        """Bytes that are always in RAM."""
        return self.centroids.nbytes + self.starts.nbytes

    def most(self, probes: int) -> int:
        """Entries that a search looks at, at most."""
        return int(np.sort(np.diff(self.starts))[-probes:].sum())

    def bytes_of(self, probes: int) -> int:
        """Bytes that a search takes beside, at most."""
        return self.most(probes) * (4 * int(self.centroids.shape[1]) + 8)

    def search(
        self, queries: Float32[np.ndarray, "q d1"], k: int, probes: int
    ) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
        """The best rows of the `probes` most promising lists; -1 where those hold fewer than k."""
        asked = np.ascontiguousarray(queries @ self.to_queries)
        lists, _ = top_columns(asked @ self.centroids.T, min(probes, self.lists))
        rows, scores = np.full((len(asked), k), -1), np.full((len(asked), k), -np.inf, np.float32)
        for i, (query, some) in enumerate(zip(asked, lists, strict=True)):
            named, found = self._best(query, some, k)
            rows[i, : named.shape[1]], scores[i, : named.shape[1]] = named[0], found[0]
        return rows, scores

    def _best(self, query: Float32[np.ndarray, " d1"], lists: Int64[np.ndarray, " probes"], k: int) -> Best:
        count = self._read(np.sort(lists))
        scores = (self._entries[:count] @ query)[None]
        if self.kind == "keys":
            best, found = top_columns(scores, k)
            return self._rows[best], found
        best, found = top_columns(scores, k * min(len(lists), COPIES_SOUGHT))
        return once(self._rows[best], found, k)

    def _read(self, lists: Int64[np.ndarray, " probes"]) -> int:
        """Bring the entries of some lists in, and say how many they are."""
        count, width = int((self.starts[lists + 1] - self.starts[lists]).sum()), self._entries.shape[1]
        if count > len(self._rows):
            self._entries, self._rows = np.empty((count, width), np.float32), np.empty(count, np.int64)
        done = 0
        for first, stop in zip(self.starts[lists].tolist(), self.starts[lists + 1].tolist(), strict=True):
            here = slice(done, done := done + stop - first)
            self.file.read("entries", first * 4 * width, self._entries[here])
            self.file.read("rows", first * 8, self._rows[here])
        return count
