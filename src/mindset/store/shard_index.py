"""The index of one shard, kept in step with the ledger, and its file: a cache that may be deleted at any time.

Beside the lists stand the *hot* rows: those that recorded queries found best. They are looked at for every query, as a
few hundred of a feed-forward block's slots hold most of the highest influences, and lists find those badly.

`cache/layer-03.base.g1.0000000042.ivf` belongs to generation 1 of `memory.json` and is as of generation 42 of the
ledger. It is safetensors: the lists, the moments of the recorded queries, and for every row whose slot it listed
and that slot's checksum; so an index of another time, or of another memory, shows by comparing. What differs is taken
off and put on; a file that is torn or differs by too much is not used, and a new one is built.

It is written beside its place, forced to the disk and renamed. Invariant: a search gives living slots only.
"""

from __future__ import annotations

import json
import math
import re
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int64
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mindset.atomic_file import replacing
from mindset.errors import FormatError, UsageError
from mindset.store.entries import QueryMoments, entries, extended
from mindset.store.file_lists import FileLists, TensorFile
from mindset.store.ivf import Ivf, Lists
from mindset.store.search import Found, ShardSearch, top_columns

__all__ = ["IndexPlace", "ShardIndex", "lists_for"]

FORMAT, VERSION = "mindset ivf", 2
QUERIES_A_LIST = 32
"""Recorded queries that share a list of `queries`."""
REBUILD_SHARE = 0.3
"""Share of rows that may have changed since the centroids were trained."""


def lists_for(slots: int) -> int:
    """How many lists a shard of that size gets."""
    return max(1, round(4 * math.sqrt(slots)))


@dataclass(frozen=True)
class IndexPlace:
    """Where a shard's index and what was found out about it are kept."""

    folder: Path
    """`cache` in the memory's folder."""
    layer: int
    shard: str
    memory_generation: int
    """Of `memory.json`."""

    @classmethod
    def of(cls, memory: Path, layer: int, shard: str, generation: int) -> IndexPlace:
        """In the `memory/` folder of a model."""
        return cls(memory / "cache", layer, shard, generation)

    @property
    def stem(self) -> str:
        return f"layer-{self.layer:02d}.{self.shard}.g{self.memory_generation}"

    def files(self) -> list[Path]:
        """Indexes of this shard, newest first."""
        wanted = re.compile(re.escape(self.stem) + r"\.\d{10}\.ivf")
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted((path for path in found if wanted.fullmatch(path.name)), reverse=True)

    def file(self, generation: int) -> Path:
        """The file as of a generation of the ledger."""
        return self.folder / f"{self.stem}.{generation:010d}.ivf"


class ShardIndex:
    """An index over the slots of one shard."""

    def __init__(
        self,
        search: ShardSearch,
        ivf: Ivf | FileLists,
        slots: Int64[np.ndarray, " top"],
        crcs: Int64[np.ndarray, " top"],
        changed: int = 0,
    ) -> None:
        """`slots` and `crcs` say for each row what is listed; 0: nothing."""
        self.search_exactly, self.ivf = search, ivf
        self.slots, self.crcs, self.changed = slots, crcs, changed
        self.hot: Int64[np.ndarray, " hot"] = np.zeros(0, np.int64)
        self.hot_entries: Float32[np.ndarray, "hot d1"] | None = None
        self.generation = -1
        """Of the ledger, when it was brought into step last."""

    @classmethod
    def of_keys(
        cls, search: ShardSearch, moments: QueryMoments, *, lists: int | None = None, seed: int = 0
    ) -> ShardIndex:
        """Train on a sample of the living slots and list them all."""
        rows = np.flatnonzero(search.slot_of_row)
        count = lists_for(len(rows)) if lists is None else lists
        sample = np.sort(np.random.default_rng(seed).permutation(rows)[: 64 * count])
        ivf = Ivf.of_keys(entries(search.store, search.info, sample, moments), moments, count, seed)
        made = cls(search, ivf, np.zeros(0, np.int64), np.zeros(0, np.int64))
        made.follow()
        made.changed = 0
        return made

    @classmethod
    def of_queries(
        cls,
        search: ShardSearch,
        moments: QueryMoments,
        queries: Float[np.ndarray, "n d"],
        found: Int64[np.ndarray, "n k"],
        *,
        seed: int = 0,
    ) -> ShardIndex:
        """List the slots that recorded queries found highest, by what those queries are near to."""
        count = max(1, len(queries) // QUERIES_A_LIST)
        ivf, lists = Ivf.of_queries(extended(queries), moments, count, seed)
        named = np.repeat(lists, found.shape[1]) * np.int64(search.info.top) + found.reshape(-1)
        lists, rows = np.divmod(np.unique(named), np.int64(search.info.top))
        made = cls(search, ivf, search.slot_of_row.copy(), search.crc_of_row.copy())
        for start in range(0, len(rows), 1 << 16):
            some = slice(start, start + (1 << 16))
            ivf.place(rows[some], made._entries(rows[some]), lists[some])
        made.generation = search.generation
        return made

    @property
    def worn(self) -> bool:
        """Whether so much has changed that centroids should be trained anew."""
        return self.changed > REBUILD_SHARE * max(1, self.search_exactly.count)

    @property
    def behind(self) -> bool:
        """Whether something was changed that `follow` has not seen."""
        search = self.search_exactly
        same = len(self.slots) == search.info.top and np.array_equal(self.slots, search.slot_of_row)
        return not (same and np.array_equal(self.crcs, search.crc_of_row))

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in RAM: what is listed, and who every row was."""
        hot = 0 if self.hot_entries is None else self.hot_entries.nbytes
        search = self.search_exactly
        known = sum(one.nbytes for one in (self.slots, self.crcs, search.slot_of_row, search.crc_of_row))
        return self.ivf.nbytes + hot + known

    def heat(self, rows: Int64[np.ndarray, " hot"]) -> None:
        """Look at these living rows for every query from now on, and at those that were hot before as at the others."""
        self._list(np.setdiff1d(self.hot, rows))
        self._changeable().remove(np.setdiff1d(rows, self.hot))
        self.hot = np.sort(rows)
        self.hot_entries = self._entries(self.hot)

    def follow(self) -> int:
        """Bring it into step with what `search` last saw of the ledger; returns how many rows changed."""
        search, top = self.search_exactly, self.search_exactly.info.top
        size = max(top, len(self.slots))
        slots, crcs = _padded(search.slot_of_row, size), _padded(search.crc_of_row, size)
        old_slots, old_crcs = _padded(self.slots, size), _padded(self.crcs, size)
        differ = (slots != old_slots) | (crcs != old_crcs)
        if differ.any():
            self._changeable().remove(np.flatnonzero(differ & (old_slots > 0)))
        self.hot = self.hot[~differ[self.hot]]
        self._list(np.flatnonzero(differ & (slots > 0)))
        self.hot_entries = self._entries(self.hot)
        self.slots, self.crcs, self.generation = slots, crcs, search.generation
        self.changed += int(differ.sum())
        return int(differ.sum())

    def search(self, queries: np.ndarray, k: int, probes: int) -> Found:
        """The best slots by entry among the lists probed; 0 where there were fewer."""
        rows, scores = self.search_rows(queries, k, probes)
        ids = np.where(rows < 0, 0, self.slots[rows])
        return Found(ids, scores)

    def search_rows(
        self, queries: np.ndarray, k: int, probes: int
    ) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
        """The same by row; -1 where there were fewer."""
        asked = extended(queries)
        rows, scores = self.ivf.search(asked, k, probes)
        if self.hot_entries is None or not len(self.hot):
            return rows, scores
        hot = np.broadcast_to(self.hot, (len(asked), len(self.hot)))
        rows = np.concatenate([rows, hot], axis=1)
        scores = np.concatenate([scores, asked @ self.hot_entries.T], axis=1)
        best, found = top_columns(scores, k)
        return np.take_along_axis(rows, best, 1), found

    def _list(self, rows: Int64[np.ndarray, " n"]) -> None:
        for start in range(0, len(rows), 1 << 16):
            some = rows[start : start + (1 << 16)]
            self._changeable().add(some, self._entries(some))

    def _changeable(self) -> Ivf:
        if not isinstance(self.ivf, Ivf):
            raise UsageError(
                "lists that stay in their file cannot follow a change; open the index without `in_file`"
            )
        return self.ivf

    def _entries(self, rows: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n d1"]:
        search = self.search_exactly
        return entries(search.store, search.info, rows, self.ivf.moments)

    # ---- files --------------------------------------------------------------------------------------------------

    def save(self, place: IndexPlace) -> Path:
        """Write it under its generation; older ones of the shard go."""
        place.folder.mkdir(exist_ok=True)
        lists = self._changeable().as_lists()
        tensors = {
            "centroids": lists.centroids, "starts": lists.starts, "rows": lists.rows, "entries": lists.entries,
            "square": self.ivf.moments.square, "slots": self.slots, "crcs": self.crcs, "hot": self.hot,
        }  # fmt: skip
        about = {
            "format": FORMAT,
            "version": VERSION,
            "changed": self.changed,
            "kind": self.ivf.kind,
            "crc": _crc(tensors),
        }
        path = place.file(self.generation)
        with replacing(path) as file:
            file.write(save(tensors, {"about": json.dumps(about)}))
        for other in place.files():
            if other != path:
                other.unlink(missing_ok=True)
        return path

    @classmethod
    def opened(cls, search: ShardSearch, place: IndexPlace, *, in_file: bool = False) -> ShardIndex | None:
        """The newest that can be used, in step with the ledger; None: there is none, it has to be built.

        With `in_file` its lists stay there, unless something was changed since.
        """
        for path in place.files():
            try:
                found = cls._read(search, path, in_file=in_file)
                if in_file and found.behind:
                    found = cls._read(search, path, in_file=False)
            except (FormatError, OSError) as error:
                warnings.warn(f"{error}; it is not used, `mindset memory index` builds another", stacklevel=2)
                return None
            found.follow()
            return None if found.worn else found
        return None

    @classmethod
    def _read(cls, search: ShardSearch, path: Path, *, in_file: bool) -> ShardIndex:
        large = ("entries", "rows")
        try:
            with safe_open(path, "numpy") as file:
                about = json.loads((file.metadata() or {})["about"])
                known = (about.get("format"), about.get("version")) == (FORMAT, VERSION)
                names = [*file.keys()] if known else []
                tensors = {name: file.get_tensor(name) for name in names if not (in_file and name in large)}
                lists = TensorFile(path) if in_file else None
                crc = _crc(tensors) if lists is None else lists.crc()
        except (SafetensorError, KeyError, ValueError) as error:
            raise FormatError(f"{path} is no whole index ({error})") from error
        if not known:
            raise FormatError(f"{path} is {about.get('format')} of version {about.get('version')}")
        if about.get("crc") != crc:
            raise FormatError(f"{path} is damaged (its checksum differs)")
        moments = QueryMoments(tensors["square"])
        if len(moments.square) != search.info.fields["key"]["d"] + 1:
            raise FormatError(f"{path} is of another memory")
        ivf: Ivf | FileLists
        if lists is not None:
            ivf = FileLists(lists, tensors["centroids"], tensors["starts"], moments, about["kind"])
        else:
            arrays = Lists(*(tensors[name] for name in ("centroids", "starts", "rows", "entries")))
            ivf = Ivf.of_lists(arrays, moments, about["kind"])
        made = cls(search, ivf, tensors["slots"], tensors["crcs"], int(about["changed"]))
        made.hot = tensors["hot"]
        return made


def _crc(tensors: dict[str, np.ndarray]) -> int:
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(np.ascontiguousarray(tensors[name]).data.cast("B"), crc)
    return crc


def _padded(array: Int64[np.ndarray, " n"], size: int) -> Int64[np.ndarray, " size"]:
    out = np.zeros(size, np.int64)
    out[: len(array)] = array
    return out
