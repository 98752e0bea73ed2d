"""Searching a shard: every way against all products at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store.test_slab_store import arrays, make_memory

from mindset.errors import UsageError
from mindset.store import MemoryDir
from mindset.store.search import Found, ShardSearch, exact, float_rows, propose
from mindset.store.slab_store import SlabStore
from mindset.store.slots import NewSlot
from mindset.store.sql_store import SqlStore
from mindset.store.store import Store


@pytest.fixture(params=["slab", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    folder = make_memory(tmp_path / "memory")
    if request.param == "slab":
        return SlabStore(folder)
    made = SqlStore(f"sqlite:///{tmp_path}/x.sqlite")
    made.copy_from(MemoryDir.open(folder))
    return made


def naive(store: Store, queries: np.ndarray, k: int) -> Found:
    live = store.live(0, "base")
    keys = float_rows(store.fetch(live.ids, ["key"])["key"])
    scores = queries @ keys.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Found(live.ids[order], np.take_along_axis(scores, order, 1))


def test_the_living_are_proposed_best_first(store: Store) -> None:
    queries = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    with store:
        search = ShardSearch(store, 0, "base")
        for change in (
            lambda: None,
            lambda: store.insert(0, "base", [NewSlot()] * 3, arrays(3, 5)),
            lambda: store.delete([2, 4]),
            lambda: store.update([3], {"key": arrays(1, 77)["key"]}),
        ):
            change()
            search.refresh()
            for k in (1, 4, 100):
                found, wanted = search.search(queries, k), naive(store, queries, k)
                np.testing.assert_array_equal(found.ids, wanted.ids)
                np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5)
        assert not search.refresh()
        np.testing.assert_array_equal(propose(store, 0, "base", queries, 2).ids, wanted.ids[:, :2])
        with pytest.raises(UsageError, match="queries of 4"):
            search.search(queries[:, :3], 1)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    keys, queries = (
        rng.standard_normal((500, 8)).astype(np.float16),
        rng.standard_normal((5, 8)).astype(np.float32),
    )
    alive = rng.random(500) < 0.5
    whole = exact(keys, queries, 7, alive)
    monkeypatch.setattr("mindset.store.search._CHUNK_BYTES", 1024)
    parts = exact(keys, queries, 7, alive)
    np.testing.assert_array_equal(whole[0], parts[0])
    assert alive[whole[0]].all()
    np.testing.assert_array_equal(np.sort((queries @ float_rows(keys[alive]).T), 1)[:, ::-1][:, :7], whole[1])


def test_bfloat16_bits_are_read_as_numbers() -> None:
    numbers = np.array([[1.0, -2.5], [0.15625, 3.0]], np.float32)
    bits = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    np.testing.assert_array_equal(float_rows(bits), numbers)
