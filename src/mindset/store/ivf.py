"""Inverted lists over the slots of one shard: an index that looks at a part of them.

Two ways to fill the lists, both in coordinates in which recorded queries are equally long in every direction
(`entries.QueryMoments`):

* `keys`: k-means over the slots; each lies in the list of its nearest centroid. Good where queries are like keys: facts
  learned from hidden states.
* `queries`: k-means over recorded queries; a list holds the slots that its queries found highest, so a slot lies in
  several lists or in none. Good for a feed-forward block's own rows, where k-means over keys has to scan nearly all.

Needs faiss, an extra. Rows, not slots, are listed: whose they are is the ledger's to say. Knows no files. A cache of
what the store says, never the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int64

from mindset.errors import MissingError
from mindset.store.entries import QueryMoments
from mindset.store.search import top_columns

__all__ = ["COPIES_SOUGHT", "NEW_COPIES", "Best", "Ivf", "Kind", "Lists", "import_faiss", "once"]

Kind = Literal["keys", "queries"]
Best = tuple[Int64[np.ndarray, "q _"], Float32[np.ndarray, "q _"]]

NEW_COPIES = 4
"""Lists of `queries` that a slot of which no query knows is put in."""

COPIES_SOUGHT = 16
"""Copies of one row that may stand before the next one, when lists of `queries` are searched."""
_SAMPLE = 64
"""Entries a centroid is trained on."""
_CHUNK = 1 << 16


def import_faiss() -> Any:
    """The module, or one sentence about the extra."""
    try:
        import faiss
    except ImportError as error:
        raise MissingError(
            "an index needs the extra `ann` (faiss): pip install 'mindset-lm[ann]'; without it search is exact"
        ) from error
    return faiss


@dataclass(frozen=True, eq=False)
class Lists:
    """Inverted lists as arrays: list i is what lies between `starts[i]` and `starts[i + 1]`."""

    centroids: Float32[np.ndarray, "lists d1"]
    starts: Int64[np.ndarray, " lists1"]
    rows: Int64[np.ndarray, " n"]
    entries: Float32[np.ndarray, "n d1"]
    """Whitened."""


class Ivf:
    """An index in memory."""

    def __init__(self, index: Any, moments: QueryMoments, kind: Kind) -> None:
        """`index` is faiss's own, over whitened entries."""
        self.faiss, self.index, self.moments, self.kind = import_faiss(), index, moments, kind
        self.to_keys, self.to_queries = moments.whitening()
        self._parameters = self.faiss.SearchParametersIVF()

    @classmethod
    def of_keys(
        cls, sample: Float32[np.ndarray, "n d1"], moments: QueryMoments, lists: int, seed: int = 0
    ) -> Ivf:
        """An empty one with `lists` lists, centroids from a sample of entries."""
        return cls(_empty(_centroids(sample @ moments.whitening()[0], lists, seed)), moments, "keys")

    @classmethod
    def of_queries(
        cls,
        queries: Float32[np.ndarray, "n d1"],
        moments: QueryMoments,
        lists: int,
        seed: int = 0,
    ) -> tuple[Ivf, Int64[np.ndarray, " n"]]:
        """An empty one, and which list each query is in."""
        white = _unit(queries @ moments.whitening()[1])
        made = cls(_empty(_unit(_centroids(white, lists, seed))), moments, "queries")
        return made, made.index.quantizer.search(white, 1)[1].reshape(-1)

    @classmethod
    def of_lists(cls, lists: Lists, moments: QueryMoments, kind: Kind) -> Ivf:
        """What `as_lists` gave."""
        made = cls(_empty(lists.centroids), moments, kind)
        pointer, inverted = made.faiss.swig_ptr, made.index.invlists
        for i, (start, stop) in enumerate(zip(lists.starts[:-1], lists.starts[1:], strict=True)):
            if stop > start:
                rows = np.ascontiguousarray(lists.rows[start:stop])
                codes = np.ascontiguousarray(lists.entries[start:stop]).view(np.uint8)
                inverted.add_entries(i, len(rows), pointer(rows), pointer(codes))
        made.index.ntotal = len(lists.rows)
        return made

    def as_lists(self) -> Lists:
        """All of it as arrays."""
        inverted, d = self.index.invlists, self.index.d
        sizes = [inverted.list_size(i) for i in range(self.lists)]
        rows, entries = [np.empty(0, np.int64)], [np.empty((0, d), np.float32)]
        for i, size in enumerate(sizes):
            if size:
                codes = self.faiss.rev_swig_ptr(inverted.get_codes(i), size * 4 * d)
                entries.append(codes.view(np.float32).reshape(size, d))
                rows.append(self.faiss.rev_swig_ptr(inverted.get_ids(i), size))
        centroids = self.index.quantizer.reconstruct_n(0, self.lists)
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return Lists(centroids, starts, np.concatenate(rows), np.concatenate(entries))

    @property
    def lists(self) -> int:
        return int(self.index.nlist)

    def __len__(self) -> int:
        return int(self.index.ntotal)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return len(self) * (4 * len(self.moments.square) + 8)

    def add(self, rows: Int64[np.ndarray, " n"], entries: Float32[np.ndarray, "n d1"]) -> None:
        """List rows where they belong: by the nearest centroid, or the queries that they answer best."""
        centroids = self.index.quantizer.reconstruct_n(0, self.lists)
        nearest = (self.faiss.IndexFlatL2 if self.kind == "keys" else self.faiss.IndexFlatIP)(self.index.d)
        nearest.add(centroids)
        copies = 1 if self.kind == "keys" else min(NEW_COPIES, self.lists)
        for start in range(0, len(rows), _CHUNK):
            some = np.ascontiguousarray(entries[start : start + _CHUNK] @ self.to_keys)
            lists = nearest.search(some, copies)[1]
            self._put(
                np.repeat(rows[start : start + _CHUNK], copies), np.repeat(some, copies, 0), lists.reshape(-1)
            )

    def place(
        self,
        rows: Int64[np.ndarray, " n"],
        entries: Float32[np.ndarray, "n d1"],
        lists: Int64[np.ndarray, " n"],
    ) -> None:
        """List rows in lists that are named; a row may come several times."""
        for start in range(0, len(rows), _CHUNK):
            some = slice(start, start + _CHUNK)
            self._put(rows[some], entries[some] @ self.to_keys, lists[some])

    def _put(self, rows: np.ndarray, white: np.ndarray, lists: np.ndarray) -> None:
        white, ids, named = map(np.ascontiguousarray, (white, rows, lists))
        pointer = self.faiss.swig_ptr
        self.index.add_core(len(white), pointer(white), pointer(ids), pointer(named))

    def remove(self, rows: Int64[np.ndarray, " n"]) -> None:
        """Take rows off their lists."""
        if len(rows):
            self.index.remove_ids(np.ascontiguousarray(rows))

    def search(
        self, queries: Float32[np.ndarray, "q d1"], k: int, probes: int
    ) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
        """The best rows of the `probes` most promising lists; -1 where those hold fewer than k."""
        self._parameters.nprobe = min(probes, self.lists)
        asked = np.ascontiguousarray(queries @ self.to_queries)
        if self.kind == "keys":
            scores, rows = self.index.search(asked, k, params=self._parameters)
            return rows, scores
        scores, rows = self.index.search(asked, k * min(probes, COPIES_SOUGHT), params=self._parameters)
        return once(rows, scores, k)


def once(rows: Int64[np.ndarray, "q n"], scores: Float32[np.ndarray, "q n"], k: int) -> Best:
    """Each row once: copies have one score, so they stand together up to ties."""
    order = np.argsort(rows, axis=1, kind="stable")
    named, told = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
    again = np.zeros(named.shape, bool)
    again[:, 1:] = named[:, 1:] == named[:, :-1]
    again |= named < 0
    told, named = np.where(again, -np.inf, told), np.where(again, -1, named)
    best, found = top_columns(told.astype(np.float32), k)
    return np.take_along_axis(named, best, 1), found


def _centroids(points: Float32[np.ndarray, "n d1"], lists: int, seed: int) -> Float32[np.ndarray, "lists d1"]:
    kmeans = import_faiss().Kmeans(
        points.shape[1], max(1, min(lists, len(points))), niter=8, seed=seed, max_points_per_centroid=_SAMPLE,
        min_points_per_centroid=1,
    )  # fmt: skip
    kmeans.train(np.ascontiguousarray(points))
    return np.asarray(kmeans.centroids)


def _empty(centroids: Float32[np.ndarray, "lists d1"]) -> Any:
    faiss = import_faiss()
    lists, d = centroids.shape
    quantizer = faiss.IndexFlatIP(d)
    quantizer.add(np.ascontiguousarray(centroids))
    index = faiss.IndexIVFFlat(quantizer, d, lists, faiss.METRIC_INNER_PRODUCT)
    index.own_fields, _ = True, quantizer.this.disown()
    index.is_trained = True
    return index


def _unit(rows: Float32[np.ndarray, "n d1"]) -> Float32[np.ndarray, "n d1"]:
    return np.ascontiguousarray(
        rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32
    )
