"""One suite for every store: slabs, SQLite, PostgreSQL, and a daemon's client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from store.test_slab_store import arrays, make_memory, same

from mindset.errors import MissingError, ReadOnlyError, UsageError
from mindset.store import MemoryDir
from mindset.store.edit import NewShard
from mindset.store.interface import SlotStore
from mindset.store.slab_store import SlabStore
from mindset.store.slots import Change, NewSlot
from mindset.store.sql_store import SqlStore

Opener = Callable[..., SlotStore]


@pytest.fixture(params=["slab", "sqlite", "postgresql", "daemon"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same memory again and again."""
    folder = make_memory(tmp_path / "memory")
    opened: list[SlotStore] = []

    def keep(store: SlotStore) -> SlotStore:
        opened.append(store)
        return store

    if request.param == "slab":
        yield lambda **options: keep(SlabStore(folder, **options))
    elif request.param == "daemon":
        pytest.importorskip("grpc", reason="no daemon: the extra `serve` (grpcio) is missing")
        from mindset.store.daemon.remote_store import RemoteStore
        from mindset.store.daemon.server import serving

        with serving(tmp_path) as url:
            yield lambda **options: keep(RemoteStore(url, **options))
    else:
        database: sa.URL = (
            sa.make_url(f"sqlite:///{tmp_path}/x.sqlite")
            if request.param == "sqlite"
            else request.getfixturevalue("postgresql_database")
        )
        with SqlStore(database) as store:
            store.copy_from(MemoryDir.open(folder))
        yield lambda **options: keep(SqlStore(database, **options))
    for store in opened:
        store.close()


def test_what_came_with_the_model_is_there(opener: Opener) -> None:
    store = opener()
    assert store.count() == 6 + 10
    assert store.live(1, "base").heads.tolist() == [0] * 5 + [1] * 5
    assert same(store, store.live(0, "base").ids, arrays(6, seed=9))
    assert store.verify() == []


def test_slots_are_put_in_changed_and_taken_out_and_back(opener: Opener) -> None:
    store = opener()
    first, ids = store.insert(0, "base", [NewSlot(label="a"), NewSlot(label="b")], arrays(2, 1))
    assert same(store, ids, arrays(2, 1))
    moved = store.update(ids[:1], {"value": np.full((1, 3), 7, np.float32)})
    assert same(store, ids[:1], {"value": np.full((1, 3), 7, np.float32), "key": arrays(2, 1)["key"][:1]})
    store.change(ids[:1], Change(pinned=True))
    assert store.records(ids[:1])[0].pinned
    gone = store.delete(ids[1:])
    with pytest.raises(MissingError):
        store.fetch(ids[1:], ["key"])
    store.turn(gone, False)
    assert same(store, ids[1:], {"key": arrays(2, 1)["key"][1:]})
    store.turn(moved + 1, False)
    store.turn(moved, False)
    assert same(store, ids, arrays(2, 1))
    store.turn(first, False)
    assert store.count() == 16
    assert store.verify() == []
    assert opener(read_only=True).count() == 16


def test_rows_are_used_again_and_hold_what_was_written_last(opener: Opener) -> None:
    store = opener()
    _, ids = store.insert(0, "base", [NewSlot()] * 4, arrays(4, 1))
    old = {record.row for record in store.records(ids)}
    store.forget(store.delete(ids))
    _, ids = store.insert(0, "base", [NewSlot()] * 4, arrays(4, 2))
    assert {record.row for record in store.records(ids)} == old
    assert same(store, ids, arrays(4, 2))
    assert store.verify() == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_dtype_comes_back_to_the_bit(opener: Opener, dtype: str) -> None:
    fields = {"key": {"dtype": dtype, "d": 5}, "value": {"dtype": "float32", "d": 1}}
    store = opener()
    store.add_shard(NewShard(0, "facts", "mirror", 1, "radius", False, fields))
    storage = {"float16": np.float16, "bfloat16": np.uint16, "float64": np.float64}[dtype]
    raw = np.random.default_rng(0).bytes(3 * 5 * np.dtype(storage).itemsize)
    given = {"key": np.frombuffer(raw, storage).reshape(3, 5), "value": np.ones((3, 1), np.float32)}
    _, ids = store.insert(0, "facts", [NewSlot()] * 3, given)
    assert store.records(ids)[1].shard == "facts"
    found = opener(read_only=True).fetch(ids[::-1], ["key"])["key"]
    assert found.tobytes() == given["key"][::-1].tobytes()
    assert store.verify() == []


def test_a_reader_sees_every_commit_and_writes_nothing(opener: Opener) -> None:
    store, reader = opener(), opener(read_only=True)
    _, ids = store.insert(0, "base", [NewSlot()], arrays(1))
    assert same(reader, ids, arrays(1))
    for forbidden in (
        lambda: reader.delete([1]),
        lambda: reader.change([1], Change(label="x")),
        lambda: reader.insert(0, "base", [NewSlot()], arrays(1)),
        lambda: reader.update([1], {"value": np.ones((1, 3), np.float32)}),
        lambda: reader.add_shard(replace(NEW, name="other")),
    ):
        with pytest.raises(ReadOnlyError):
            forbidden()
    assert reader.count() == store.count() == 17


NEW = NewShard(0, "facts", "mirror", 1, "relu", False, {"key": {"dtype": "float32", "d": 4}})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: {"key": arrays(1)["key"]}, "missing or too many"),
        (lambda: arrays(1) | {"more": np.ones((1, 3), np.float32)}, "missing or too many"),
        (lambda: arrays(2), "2 rows for 1 slots"),
        (lambda: arrays(1) | {"value": np.ones((1, 9), np.float32)}, "shape"),
        (lambda: arrays(1) | {"value": np.ones((1, 3), np.float64)}, "float64"),
    ],
)
def test_what_does_not_fit_leaves_nothing(
    opener: Opener, given: Callable[[], dict[str, np.ndarray]], message: str
) -> None:
    store = opener()
    top = store.shard(0, "base").top
    with pytest.raises(UsageError, match=message):
        store.insert(0, "base", [NewSlot()], given())
    assert store.count() == 16
    assert store.shard(0, "base").top == top


def test_what_is_not_there_is_named(opener: Opener) -> None:
    store = opener()
    with pytest.raises(MissingError, match="layer 9 has no shard 'base'"):
        store.insert(9, "base", [NewSlot()], arrays(1))
    with pytest.raises(UsageError, match="one shard at a time"):
        store.fetch([1, 12], ["key"])
    with pytest.raises(UsageError, match="have no colour"):
        store.update([1], {"colour": np.ones((1, 3), np.float32)})
    with pytest.raises(UsageError, match="at least one"):
        store.fetch([], ["key"])


def test_a_database_takes_one_memory(tmp_path: Path) -> None:
    memory = MemoryDir.open(make_memory(tmp_path / "memory"))
    with SqlStore(f"sqlite:///{tmp_path}/x.sqlite") as store:
        store.copy_from(memory)
        with pytest.raises(UsageError, match="holds a memory already"):
            store.copy_from(memory)
