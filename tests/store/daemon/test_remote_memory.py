"""A memory through its daemon: its history, its limits, many callers, and callers who mean no good."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from store.test_slab_store import arrays, make_memory, same

from mindset.errors import BusyError, FormatError, MindsetError, MissingError, ReadOnlyError, UsageError
from mindset.store.edit import NewShard
from mindset.store.interface import SlotMemory, SlotStore
from mindset.store.memory import Memory
from mindset.store.portable import export_slots
from mindset.store.scan import Where
from mindset.store.slots import Change, Citation, NewSlot

pytest.importorskip("grpc", reason="the extra `serve` (grpcio) is missing")
import grpc

from mindset.store.daemon import memory_pb2 as pb
from mindset.store.daemon.address import parse, port_address
from mindset.store.daemon.answering import Limits
from mindset.store.daemon.check import check
from mindset.store.daemon.failures import _of_grpc
from mindset.store.daemon.remote_memory import RemoteMemory
from mindset.store.daemon.remote_store import RemoteStore
from mindset.store.daemon.server import serving

LIMITS = Limits(request_bytes=4 << 20, part_seconds=30.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_memory(tmp_path / "memory")
    return tmp_path


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with serving(folder, port_address(0), limits=LIMITS) as url:
        yield url


@pytest.fixture
def memory(url: str) -> Iterator[RemoteMemory]:
    with RemoteMemory(url) as memory:
        yield memory


def test_it_is_what_a_folder_is(memory: RemoteMemory, folder: Path) -> None:
    assert isinstance(memory, SlotMemory)
    assert isinstance(memory.store, SlotStore)
    with Memory(folder, read_only=True) as beside:
        assert isinstance(beside, SlotMemory)
        assert isinstance(beside.store, SlotStore)
        assert memory.store.counts() == beside.store.counts()
        assert memory.store.scan(Where(layer=1), limit=3, after=8) == beside.store.scan(
            Where(layer=1), limit=3, after=8
        )


def test_every_change_is_an_entry_that_goes_back_and_forth(memory: RemoteMemory, folder: Path) -> None:
    ids = memory.insert(0, "base", [NewSlot(label="a")] * 2, arrays(2), who="ann")
    memory.snapshot("two")
    memory.change(ids, Change(tags=("x",), weight=0.5))
    assert memory.last_change().title == "tags, weight of 17, 18"
    memory.update(ids[:1], {"value": np.zeros((1, 3), np.float32)})
    memory.delete(ids[1:], who="bob")
    assert [(entry.who, entry.state) for entry in memory.history()][::3] == [("ann", "done"), ("bob", "done")]
    found = memory.diff("two")
    assert [one.id for one in found.taken_out] == [18]
    assert found.changed[0].what == ("tags", "weight", "vectors")
    assert [entry.state for entry in memory.undo(2)] == ["undone"] * 2
    assert memory.store.count(Where(tag="x")) == 2
    assert [entry.state for entry in memory.restore("two")] == ["undone"]
    assert [entry.title for entry in memory.redo(3)][-1] == "1 slot out: 18"
    assert memory.snapshots() == {"two": 1}
    memory.unsnapshot("two")
    with Memory(folder, read_only=True) as beside:
        assert beside.history() == memory.history()
        assert beside.diff() == memory.diff()
    memory.undo(4)
    assert memory.store.count() == 16
    with pytest.raises(MissingError, match="nothing to undo"):
        memory.undo()


def test_edits_are_turned_in_their_order(memory: RemoteMemory) -> None:
    store = memory.store
    first, second = store.delete([1]), store.delete([2])
    with pytest.raises(UsageError, match=f"edit {first} was not made last"):
        store.turn(first, False)
    store.turn(second, False)
    with pytest.raises(UsageError, match="is undone"):
        store.forget(second)
    store.turn(second, True)
    for edit in (0, -1, 99):
        with pytest.raises(MissingError, match=f"there is no edit {edit}"):
            store.turn(edit, False)
    store.forget(99)
    store.forget(first)
    assert len(memory.history()) == 1


def test_slots_go_out_and_in_with_their_texts(memory: RemoteMemory, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    make_memory(other / "memory")
    with Memory(other) as beside:
        with beside.store.ledger.editing("source") as edit:
            number = edit.add_source("a book", "Ahab \u2028 was\nhere.")
        beside.insert(0, "base", [NewSlot(label="w", cites=Citation(number, 0, 4))] * 3, arrays(3, 5))
        export_slots(beside.store, Where(text="ahab"), tmp_path / "out")
    ids = memory.take_in(tmp_path / "out")
    assert memory.last_change().title == "3 slots in, from out"
    (record, *_) = memory.store.records(ids)
    assert record.cites is not None
    assert memory.store.source(record.cites.source).text == "Ahab \u2028 was\nhere."
    assert same(memory.store, ids, arrays(3, 5))
    export_slots(memory.store, Where(text="ahab"), tmp_path / "again")
    for file in ("slots.jsonl", "sources.jsonl", "vectors-000.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "out" / file).read_bytes()


def test_what_is_larger_than_a_message_comes_through(memory: RemoteMemory) -> None:
    memory.add_shard(NewShard(0, "wide", "mirror", 1, "relu", False, {"key": {"dtype": "float32", "d": 700}}))
    given = np.random.default_rng(0).normal(size=(1000, 700)).astype(np.float32)  # 2.8 MB in parts of 1
    ids = memory.insert(0, "wide", [NewSlot(label="x" * 500)] * 1000, {"key": given})
    assert np.array_equal(memory.store.fetch(ids[::-1], ["key"])["key"], given[::-1])
    assert len(memory.store.records(ids)) == len(memory.store.live(0, "wide").ids) == 1000
    memory.update(ids, {"key": -given})
    assert np.array_equal(memory.store.fetch(ids[5:7], ["key"])["key"], -given[5:7])
    with pytest.raises(UsageError, match="more than 4 MiB; make it in several"):
        memory.insert(0, "wide", [NewSlot()] * 2000, {"key": np.concatenate([given, given])})
    assert memory.store.verify() == []
    assert memory.store.damage() == []
    assert len(memory.history()) == 3


def test_many_read_while_one_writes(url: str, memory: RemoteMemory) -> None:
    stop, wrong, reads = threading.Event(), [], [0] * 3

    def read(which: int) -> None:
        with RemoteStore(url, read_only=True) as store:
            while not stop.is_set():
                page = store.scan(Where(layer=0), limit=3, newest=True)
                try:
                    got = store.fetch([one.id for one in page], ["key", "value"])
                except MissingError:  # taken out meanwhile
                    continue
                for one, key in zip(page, got["key"], strict=True):
                    if one.label and not np.array_equal(key, arrays(1, int(one.label))["key"][0]):
                        wrong.append(one)
                reads[which] += 1

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read, which) for which in range(3)]
        for step in range(1, 16):
            ids = memory.insert(0, "base", [NewSlot(label=str(step))], arrays(1, step))
            if step % 3 == 0:
                memory.delete(ids)
        stop.set()
        for reader in readers:
            reader.result(30)
    assert wrong == []
    assert min(reads) > 0
    assert memory.store.count() == 16 + 10


def test_callers_who_write_at_once_wait_for_each_other(url: str) -> None:
    def write(who: str) -> list[int]:
        with RemoteMemory(url) as memory:
            return [int(memory.insert(0, "base", [NewSlot()], arrays(1), who=who)[0]) for _ in range(5)]

    with ThreadPoolExecutor(3) as pool:
        ids = [one for some in pool.map(write, "abc") for one in some]
    assert sorted(ids) == list(range(17, 32))
    with RemoteMemory(url, read_only=True) as memory:
        assert sorted(entry.who for entry in memory.history()) == sorted("aaaaabbbbbccccc")


# ---- what goes wrong ---------------------------------------------------------------------------------------------


def test_errors_are_those_of_a_folder(memory: RemoteMemory, folder: Path, tmp_path: Path) -> None:
    attempts = (
        lambda one: one.delete([1, 999, 1000]),
        lambda one: one.delete([1, 1]),
        lambda one: one.fetch([1], ["colour"]),
        lambda one: one.fetch([1, 12], ["key"]),
        lambda one: one.source(5),
        lambda one: one.scan(Where(), limit=0),
        lambda one: one.count(Where(text="-")),
        lambda one: one.add_shard(NewShard(0, "base", "mirror", 1, "relu", False, {})),
        lambda one: one.update([1], {"value": np.ones((1, 9), np.float32)}),
        lambda one: one.update([1], {"value": np.ones((2, 3), np.float32)}),
    )
    copy = tmp_path / "copy"
    copy.mkdir()
    make_memory(copy / "memory")
    with Memory(copy) as beside:
        for attempt in attempts:
            with pytest.raises(MindsetError) as here:
                attempt(beside.store)
            with pytest.raises(MindsetError) as there:
                attempt(memory.store)
            assert (type(there.value), str(there.value)) == (type(here.value), str(here.value))
    assert memory.history() == []


def test_a_reader_is_refused_before_anything_is_sent(url: str) -> None:
    with RemoteMemory(url, read_only=True) as memory:
        for forbidden in (memory.undo, lambda: memory.snapshot("x"), lambda: memory.delete([1])):
            with pytest.raises(ReadOnlyError, match="opened for reading"):
                forbidden()


RAW = "/mindset.memory.v1.Memory/"


SENSELESS = (
    ("Count", b"\xff\xff\xff"),
    ("Count", pb.Where(text="x").SerializeToString().replace(b"x", b"\xff")),  # no UTF-8
    ("Records", b"garbage"),
    ("Insert", b""),
    ("Insert", pb.InsertRequest(shard=pb.ShardName(layer=-1, name="base")).SerializeToString()),
    ("Insert", pb.InsertRequest(shard=pb.ShardName(name="base"), slots=[pb.Slot()]).SerializeToString()),
    (
        "Insert",
        pb.InsertRequest(
            shard=pb.ShardName(name="base"), slots=[pb.Slot(cites=pb.Citation(source=7))]
        ).SerializeToString(),
    ),
    ("TakeIn", pb.TakeInRequest(parts=[pb.Taken()]).SerializeToString()),
    (
        "TakeIn",
        pb.TakeInRequest(
            parts=[
                pb.Taken(
                    shard=pb.ShardName(name="base"),
                    slots=[pb.Slot(weight=1, cites=pb.Citation(source=3))],
                )
            ]
        ).SerializeToString(),
    ),
    ("Update", pb.UpdateRequest(ids=[1], arrays=[pb.Array(field="key", dtype="O")]).SerializeToString()),
    ("Change", pb.ChangeRequest(ids=[1]).SerializeToString()),
    ("Change", pb.ChangeRequest(ids=[1], cites=pb.Citation(source=9)).SerializeToString()),
    ("Delete", pb.IdsRequest(ids=[-(2**63), 2**63 - 1]).SerializeToString()),
    ("AddShard", pb.AddShardRequest(shard=pb.Shard(name="../../x", heads=1)).SerializeToString()),
    ("Scan", pb.ScanRequest(limit=-5).SerializeToString()),
    ("Undo", pb.TurnsRequest(count=-1).SerializeToString()),
    ("Snapshot", pb.SnapshotRequest(name="no good name").SerializeToString()),
    ("Nonsense", b""),
)
"""Calls and the bytes of their one part."""


def test_what_cannot_be_meant_is_one_error(url: str, memory: RemoteMemory) -> None:
    with grpc.insecure_channel(parse(url).target) as channel:
        for name, sent in SENSELESS:
            call = channel.stream_stream(RAW + name)  # on the wire every call is one
            with pytest.raises(grpc.RpcError) as told:
                list(call(iter([sent]), timeout=10))
            assert told.value.details(), (name, sent)
            assert "Traceback" not in told.value.details(), (name, sent)
            assert told.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED, (name, sent)
            assert memory.history() == [], (name, sent)
    assert memory.store.count() == 16
    memory.delete([1])


def test_who_stalls_holds_up_nobody(folder: Path) -> None:
    limits = Limits(part_seconds=0.5, threads=2)

    def stall() -> Iterator[pb.IdsRequest]:
        yield pb.IdsRequest(ids=[1])
        time.sleep(1.5)

    with serving(folder, limits=limits) as url, RemoteStore(url) as store, ThreadPoolExecutor(12) as pool:
        stalled = [pool.submit(store.calls.ask, "Delete", stall()) for _ in range(12)]
        assert store.count() == 16
        assert not any(one.done() and one.exception() is None for one in stalled)
        for one in stalled:
            with pytest.raises(BusyError, match=r"did not come within 0.5 s"):
                one.result(30)
        assert store.count() == 16


def test_who_floods_is_told_so(url: str, memory: RemoteMemory) -> None:
    with grpc.insecure_channel(parse(url).target, [("grpc.max_send_message_length", -1)]) as channel:
        with pytest.raises(grpc.RpcError) as told:
            channel.unary_unary(RAW + "Count")(b"x" * (65 << 20), timeout=20)
        assert told.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with socket.create_connection(("127.0.0.1", parse(url).port)) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(1000))
    assert memory.history() == []
    assert memory.store.count() == 16


def test_a_call_that_takes_too_long_is_given_up(url: str) -> None:
    with RemoteStore(url) as store:
        store.calls.timeout_seconds = 1e-4
        with pytest.raises(BusyError, match=r"no answer in time$"):
            store.count()
        with pytest.raises(BusyError, match="says whether the change was made"):
            store.delete([1])


def test_who_is_no_daemon_of_this_release_is_told_apart(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        found = check(f"grpc://127.0.0.1:{other.getsockname()[1]}", timeout_seconds=0.5)
        assert not found.answers
        assert len(found.problems) == 1
    monkeypatch.setattr("mindset.store.daemon.check.PROTOCOL", 2)
    found = check(url)
    assert (found.answers, found.fits) == (True, False)
    assert "it has protocol 1" in found.problems[0]
    with pytest.raises(FormatError, match="use one release"):
        RemoteStore(url)


def test_what_grpc_says_becomes_a_sentence() -> None:
    code = grpc.StatusCode
    for status, details, kind, said in (
        (code.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!", BusyError, "too many calls"),
        (code.RESOURCE_EXHAUSTED, "message larger than max", UsageError, "too large"),
        (code.UNAVAILABLE, "x", MissingError, "no daemon answers"),
        (code.CANCELLED, "x", BusyError, "broken off"),
        (code.UNIMPLEMENTED, "x", FormatError, "no memory's daemon"),
        (code.UNKNOWN, "odd", FormatError, "UNKNOWN: odd"),
    ):
        found, sentence = _of_grpc(status, details)
        assert found is kind
        assert said in sentence


def test_a_failure_that_nobody_foresaw_is_one_error_and_is_logged(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> int:
        raise KeyError("oh")

    with RemoteStore(url) as store:
        with monkeypatch.context() as patch:
            patch.setattr("mindset.store.ledger.Ledger.count", broken)
            with pytest.raises(MindsetError, match=r"the daemon failed \(KeyError\('oh'\)\)"):
                store.count(None)
        assert store.count() == 16
    assert "Count failed" in caplog.text
