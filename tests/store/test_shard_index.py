"""The index of a shard against looking at every slot, after every kind of change, and its files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mindset.errors import FormatError, MissingError, UsageError
from mindset.store import BankRecord, MemoryDir, Rows, ShardRecord
from mindset.store.entries import QueryMoments, entries, extended
from mindset.store.file_lists import FileLists
from mindset.store.index_choice import Wanted, choose, highest, read_choice
from mindset.store.ivf import Ivf
from mindset.store.search import ShardSearch
from mindset.store.shard_index import IndexPlace, ShardIndex
from mindset.store.slab_store import SlabStore
from mindset.store.slots import NewSlot

pytest.importorskip("faiss", reason="needs faiss, the extra `ann`")

N, D = 3000, 8


def silu(z: np.ndarray) -> np.ndarray:
    return (z / (1 + np.exp(-z))).astype(np.float32)


def rows(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fields = {
        name: Rows(rows(N, D, seed), "float32") for seed, name in enumerate(("key", "modulator", "value"))
    }
    base = ShardRecord("base", "silu", True, N, fields)
    MemoryDir.write(tmp_path / "memory", [BankRecord(0, "mirror", 1, (base,))])
    return tmp_path / "memory"


def place_of(folder: Path) -> IndexPlace:
    return IndexPlace(folder / "cache", 0, "base", 1)


def best_rows(search: ShardSearch, index: ShardIndex, queries: np.ndarray, k: int) -> np.ndarray:
    living = np.flatnonzero(search.slot_of_row)
    scores = extended(queries) @ entries(search.store, search.info, living, index.ivf.moments).T
    return living[np.argsort(-scores, axis=1)[:, :k]]


def test_all_lists_probed_is_exact_whatever_is_changed(folder: Path) -> None:
    queries = rows(9, D, 9)
    with SlabStore(folder) as store:
        search = ShardSearch(store, 0, "base")
        index = ShardIndex.of_keys(search, QueryMoments.of(rows(500, D, 5)), lists=20)
        _, ids = store.insert(
            0,
            "base",
            [NewSlot()] * 40,
            {name: rows(40, D, 50 + i) for i, name in enumerate(search.info.fields)},
        )
        changes = [
            lambda: index.heat(np.arange(100, 200)),
            lambda: store.delete([150, 7, int(ids[0])]),
            lambda: store.update([151], {"key": rows(1, D, 77) * 9}),
            lambda: index.heat(np.arange(300, 310)),
        ]
        for change in changes:
            change()
            search.refresh()
            index.follow()
            assert index.follow() == 0
            found, _ = index.search_rows(queries, 12, index.ivf.lists)
            np.testing.assert_array_equal(found, best_rows(search, index, queries, 12))
            assert set(index.search(queries, 12, 99).ids.reshape(-1).tolist()) <= set(
                store.live(0, "base").ids.tolist()
            )


def test_lists_of_queries_name_what_those_queries_found(folder: Path) -> None:
    queries = rows(200, D, 21)
    with SlabStore(folder) as store:
        search, moments = ShardSearch(store, 0, "base"), QueryMoments.of(queries)
        living = np.flatnonzero(search.slot_of_row)
        scores = extended(queries) @ entries(store, search.info, living, moments).T
        found = living[np.argsort(-scores, axis=1)[:, :12]]
        index = ShardIndex.of_queries(search, moments, queries, found)
        named, _ = index.search_rows(queries, 12, index.ivf.lists)
        np.testing.assert_array_equal(named, found)
        few, _ = index.search_rows(queries, 12, 1)
        assert all(len(set(row)) == 12 for row in few.tolist())
        assert np.mean([np.isin(row, some).mean() for row, some in zip(found, few, strict=True)]) > 0.9
        _, ids = store.insert(
            0, "base", [NewSlot()], {name: 9 * rows(1, D, 70) for name in search.info.fields}
        )
        store.delete([int(search.slot_of_row[found[0, 0]])])
        search.refresh()
        assert index.follow() == 2
        index.save(place_of(folder))
        again = ShardIndex.opened(search, place_of(folder))
        assert again is not None
        named = again.search(queries, 12, again.ivf.lists).ids
        assert int(ids[0]) in named
        assert search.store.live(0, "base").ids.tolist().count(int(ids[0])) == 1
        assert found[0, 0] not in again.search_rows(queries, 12, again.ivf.lists)[0]


def test_an_index_is_kept_followed_and_built_anew(folder: Path) -> None:
    place, queries = place_of(folder), rows(4, D, 3)
    with SlabStore(folder) as store:
        search = ShardSearch(store, 0, "base")
        assert ShardIndex.opened(search, place) is None
        index = ShardIndex.of_keys(search, QueryMoments.of(rows(500, D, 5)))
        index.heat(np.arange(10))
        first = index.save(place)
        store.delete([5, 2000])
        search.refresh()
        again = ShardIndex.opened(search, place)
        assert again is not None
        assert again.changed == 2
        assert 4 not in again.hot
        found, _ = again.search_rows(queries, 12, again.ivf.lists)
        np.testing.assert_array_equal(found, best_rows(search, again, queries, 12))
        assert again.save(place) != first
        assert len(place.files()) == 1
        store.delete(list(range(10, 1500)))
        search.refresh()
        assert ShardIndex.opened(search, place) is None, "so much has changed that centroids are stale"


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("damage", ["truncated", "foreign", "flipped", "version"])
def test_a_file_that_is_no_index_is_one_warning(folder: Path, damage: str, in_file: bool) -> None:
    place = place_of(folder)
    with SlabStore(folder) as store:
        search = ShardSearch(store, 0, "base")
        path = ShardIndex.of_keys(search, QueryMoments.of(rows(500, D, 5)), lists=5).save(place)
        content = bytearray(path.read_bytes())
        if damage == "truncated":
            del content[len(content) // 2 :]
        elif damage == "foreign":
            content[:] = b"something else altogether"
        elif damage == "flipped":
            content[-100] ^= 1
        else:
            content = content.replace(b'version\\": 2', b'version\\": 9')
        path.write_bytes(content)
        with pytest.warns(UserWarning, match="builds another") as caught:
            assert ShardIndex.opened(search, place, in_file=in_file) is None
        assert len(caught) == 1
        ShardIndex.of_keys(search, QueryMoments.of(rows(500, D, 5)), lists=5).save(place)
        assert ShardIndex.opened(search, place) is not None


@pytest.mark.parametrize("kind", ["keys", "queries"])
def test_lists_in_their_file_say_what_those_in_ram_say(folder: Path, kind: str) -> None:
    place, queries = place_of(folder), rows(300, D, 23)
    with SlabStore(folder) as store:
        search, moments = ShardSearch(store, 0, "base"), QueryMoments.of(queries)
        if kind == "keys":
            index = ShardIndex.of_keys(search, moments, lists=40)
        else:
            found = highest(search, queries, 12, moments, silu)
            index = ShardIndex.of_queries(search, moments, queries, found)
        index.heat(np.arange(5, 25))
        index.save(place)
        ram, file = ShardIndex.opened(search, place), ShardIndex.opened(search, place, in_file=True)
        assert ram is not None
        assert file is not None
        assert isinstance(file.ivf, FileLists)
        assert (len(file.ivf), file.ivf.lists) == (len(ram.ivf), ram.ivf.lists)
        assert file.nbytes < ram.nbytes
        for probes in (1, 3, ram.ivf.lists, 99):
            for k in (1, 12, N):
                one, other = (it.search(queries[:20], k, probes) for it in (ram, file))
                np.testing.assert_array_equal(one.ids, other.ids)
                there = one.ids > 0
                np.testing.assert_allclose(one.scores[there], other.scores[there], rtol=1e-4, atol=1e-5)
        with pytest.raises(UsageError, match="cannot follow"):
            file.heat(np.arange(3))


def test_lists_in_a_file_are_read_whole_where_something_changed(folder: Path) -> None:
    place = place_of(folder)
    with SlabStore(folder) as store:
        search = ShardSearch(store, 0, "base")
        ShardIndex.of_keys(search, QueryMoments.of(rows(500, D, 5)), lists=20).save(place)
        store.delete([5])
        search.refresh()
        index = ShardIndex.opened(search, place, in_file=True)
        assert index is not None
        assert isinstance(index.ivf, Ivf)
        assert 5 not in index.search(rows(9, D, 9), N, 20).ids


def test_a_file_of_lists_that_becomes_shorter_is_one_error(folder: Path) -> None:
    place = place_of(folder)
    with SlabStore(folder) as store:
        search = ShardSearch(store, 0, "base")
        path = ShardIndex.of_keys(search, QueryMoments.of(rows(500, D, 5)), lists=5).save(place)
        index = ShardIndex.opened(search, place, in_file=True)
        assert index is not None
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(FormatError, match="cut off"):
            index.search(rows(4, D, 9), 12, 5)


def test_an_index_of_another_memory_is_not_used(folder: Path, tmp_path: Path) -> None:
    with SlabStore(folder) as store:
        search = ShardSearch(store, 0, "base")
        path = ShardIndex.of_keys(search, QueryMoments.of(rows(500, D, 5)), lists=5).save(place_of(folder))
    fields = {
        name: Rows(rows(N, D, seed + 100), "float32")
        for seed, name in enumerate(("key", "modulator", "value"))
    }
    other = tmp_path / "other"
    MemoryDir.write(other, [BankRecord(0, "mirror", 1, (ShardRecord("base", "silu", True, N, fields),))])
    place = place_of(other)
    place.folder.mkdir()
    (place.folder / path.name).write_bytes(path.read_bytes())
    with SlabStore(other) as store:
        assert ShardIndex.opened(ShardSearch(store, 0, "base"), place) is None


def test_what_is_chosen_is_measured_and_told(folder: Path) -> None:
    queries = rows(600, D, 11)
    with SlabStore(folder) as store:
        search = ShardSearch(store, 0, "base")
        choice, index = choose(search, queries, silu)
        assert (choice.engine, index, choice.queries) == ("exact", None, 0)
        assert "under 10,000" in choice.why
        choice, _ = choose(search, queries[:100], silu, Wanted(smallest=1))
        assert "512 are needed" in choice.why
        choice, index = choose(search, queries, silu, Wanted(smallest=1, candidates=3000), lists=8)
        assert choice.curve[0].probes == 1
        assert all(0 < point.recall <= 1 for point in choice.curve)
        assert (choice.engine == "ivf") == (index is not None)
        choice.save(place_of(folder))
        assert read_choice(place_of(folder)) == choice
        truth = highest(search, queries[:5], 3, QueryMoments.of(queries), silu)
        fields = store.fetch(store.live(0, "base").ids, ["key", "modulator", "value"])
        square = ((fields["modulator"] @ queries.T) ** 2).mean(1)
        naive = (
            np.abs(silu(queries[:5] @ fields["key"].T))
            * np.sqrt(square)
            * np.linalg.norm(fields["value"], axis=1)
        )
        np.testing.assert_array_equal(truth, np.argsort(-naive, axis=1)[:, :3])


def test_without_faiss_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from mindset.store.ivf import import_faiss

    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingError, match=r"mindset-lm\[ann\]"):
        import_faiss()
