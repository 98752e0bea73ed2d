"""Inverted lists over the slots of one shard: an index that looks at a part of them.

Slots lie in the list of their nearest centroid; a search scans the lists whose centroids promise most. Both are judged
in coordinates in which recorded queries are equally long in every direction (`entries.QueryMoments`): plain k-means
over a feed-forward block's keys has to scan several times as many slots for the same recall.

Needs faiss, an extra. Rows, not slots, are listed: whose they are is the ledger's to say. Knows no files. A cache of
what the store says, never the truth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from mindset.errors import MissingError
from mindset.store.entries import QueryMoments

__all__ = ["Ivf", "import_faiss"]

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


class Ivf:
    """An index in memory."""

    def __init__(self, index: Any, moments: QueryMoments) -> None:
        """`index` is faiss's own, over whitened entries."""
        self.faiss, self.index, self.moments = import_faiss(), index, moments
        self.to_keys, self.to_queries = moments.whitening()
        self._parameters = self.faiss.SearchParametersIVF()

    @classmethod
    def trained(
        cls, sample: Float32[np.ndarray, "n d1"], moments: QueryMoments, lists: int, seed: int = 0
    ) -> Ivf:
        """An empty one with `lists` lists, centroids from a sample of entries."""
        faiss = import_faiss()
        lists = max(1, min(lists, len(sample)))
        kmeans = faiss.Kmeans(
            sample.shape[1],
            lists,
            niter=8,
            seed=seed,
            max_points_per_centroid=_SAMPLE,
            min_points_per_centroid=1,
        )
        kmeans.train(np.ascontiguousarray(sample @ moments.whitening()[0]))
        quantizer = faiss.IndexFlatIP(sample.shape[1])
        quantizer.add(kmeans.centroids)
        index = faiss.IndexIVFFlat(quantizer, sample.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
        index.own_fields, _ = True, quantizer.this.disown()
        index.is_trained = True
        return cls(index, moments)

    @classmethod
    def of_bytes(cls, data: np.ndarray, moments: QueryMoments) -> Ivf:
        """What `bytes` gave."""
        return cls(import_faiss().deserialize_index(data), moments)

    def bytes(self) -> np.ndarray:
        """All of it, as faiss writes it."""
        return np.asarray(self.faiss.serialize_index(self.index))

    @property
    def lists(self) -> int:
        return int(self.index.nlist)

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def add(self, rows: Int64[np.ndarray, " n"], entries: Float32[np.ndarray, "n d1"]) -> None:
        """List rows, each by the centroid that is nearest to its entry."""
        centroids = self.faiss.IndexFlatL2(self.index.d)
        centroids.add(self.index.quantizer.reconstruct_n(0, self.lists))
        pointer = self.faiss.swig_ptr
        for start in range(0, len(rows), _CHUNK):
            some = np.ascontiguousarray(entries[start : start + _CHUNK] @ self.to_keys)
            ids = np.ascontiguousarray(rows[start : start + _CHUNK])
            nearest = np.ascontiguousarray(centroids.search(some, 1)[1].reshape(-1))
            self.index.add_core(len(some), pointer(some), pointer(ids), pointer(nearest))

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
        scores, rows = self.index.search(asked, k, params=self._parameters)
        return rows, scores
