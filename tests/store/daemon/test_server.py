"""The daemon as a process: it starts where it may, stops cleanly, and dies without losing what it acknowledged."""

from __future__ import annotations

import os
import random
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from serving import Daemon
from store.test_slab_store import arrays, make_memory, same

from mindset.errors import BusyError, MissingError, ReadOnlyError, UsageError
from mindset.store.daemon.address import default_socket, socket_address
from mindset.store.memory import Memory
from mindset.store.place import open_memory
from mindset.store.slots import NewSlot

pytest.importorskip("grpc", reason="the extra `serve` (grpcio) is missing")
from mindset.store.daemon import memory_pb2 as pb
from mindset.store.daemon.check import check
from mindset.store.daemon.remote_store import RemoteStore
from mindset.store.daemon.server import serving
from mindset.store.daemon.socket_file import answers

Start = Callable[..., Daemon]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_memory(tmp_path / "memory")
    return tmp_path


def test_it_serves_at_a_socket_of_its_owner_and_takes_it_away(folder: Path, daemon: Start) -> None:
    one = daemon(folder).started()
    path = default_socket(folder)
    assert one.url == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    found = check(one.url)
    assert (found.fits, found.slots, found.folder) == (True, 16, str(folder))
    second = daemon(folder)  # refused while the first goes on
    assert f"is served already, at {one.url}" in second.refused()
    with pytest.raises(BusyError, match="give its URL"):
        open_memory(folder)
    with Memory(folder, read_only=True) as reader, RemoteStore(one.url) as store:
        store.delete([1])
        assert reader.store.count() == 15  # readers need no daemon
    assert one.stop(signal.SIGINT) == 0
    assert one.errors == ""
    assert not path.exists()
    assert not check(one.url).answers
    with Memory(folder) as memory:  # its history is the folder's
        assert [entry.title for entry in memory.history()] == ["1 slot out: 1"]
        memory.undo()
        assert memory.store.count() == 16


def test_what_is_under_way_is_finished_and_the_port_let_go(folder: Path, daemon: Start) -> None:
    one = daemon(folder, "--port", 0).started()
    assert one.url.startswith("grpc://127.0.0.1:")
    port = one.url.rpartition(":")[2]
    (folder / "other").mkdir()
    make_memory(folder / "other" / "memory")
    assert "cannot listen there" in daemon(folder / "other", "--port", port).refused()
    half, told = threading.Event(), threading.Event()

    def parts() -> Iterator[pb.IdsRequest]:
        yield pb.IdsRequest(ids=[1, 2])
        half.set()
        told.wait(20)
        yield pb.IdsRequest(ids=[3])

    with RemoteStore(one.url) as store, ThreadPoolExecutor(1) as pool:
        edited = pool.submit(store.calls.ask, "Delete", parts())
        assert half.wait(20)
        time.sleep(0.2)
        one.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        one.process.send_signal(signal.SIGTERM)  # once more changes nothing
        told.set()
        assert edited.result(20).edit
        assert one.ended() == 0
        with pytest.raises(MissingError, match="no daemon answers there"):
            store.count()
    with Memory(folder, read_only=True) as memory:
        assert memory.store.count() == 13


def write_until_killed(store: RemoteStore, said: list[tuple[int, list[int]]], step: int) -> None:
    """Says what was acknowledged: the step and the ids of its two slots; the second of them is taken out again."""
    with suppress(MissingError):
        while True:
            step += 1
            _, ids = store.insert(0, "base", [NewSlot(label=str(step))] * 2, arrays(2, step))
            said.append((step, ids.tolist()))
            store.delete(ids[1:])
            said.append((step, ids[:1].tolist()))


def kill_and_check(folder: Path, daemon: Start, kills: int) -> int:
    rng, living, steps = random.Random(0), {}, 0  # noqa: S311
    for _ in range(kills):
        one = daemon(folder).started()
        said: list[tuple[int, list[int]]] = []
        with RemoteStore(one.url) as store:
            writer = threading.Thread(target=write_until_killed, args=(store, said, steps))
            writer.start()
            until = time.monotonic() + 30
            while not said and time.monotonic() < until:  # a busy machine takes its time
                time.sleep(0.01)
            time.sleep(rng.random() * 0.4)
            one.kill()
            writer.join(30)
        assert default_socket(folder).is_socket()
        assert not answers(default_socket(folder))
        living |= dict(said)
        check_after_kill(folder, living)
        steps = max(living)
    return steps


def test_after_kills_what_was_acknowledged_is_there_and_the_socket_is_replaced(
    folder: Path, daemon: Start
) -> None:
    assert kill_and_check(folder, daemon, 3) >= 3
    daemon(folder).started().stop()
    with Memory(folder) as memory:
        held = memory.store.count()
        memory.undo(len([entry for entry in memory.history() if entry.state == "done"]))
        assert memory.store.count() == 16 < held


@pytest.mark.slow
def test_after_many_kills(folder: Path, daemon: Start) -> None:
    kill_and_check(folder, daemon, 40)


def check_after_kill(folder: Path, living: dict[int, list[int]]) -> None:
    """Every acknowledged slot is there to the bit; of the last step, what was not acknowledged may be."""
    with Memory(folder) as memory:
        store = memory.store
        assert store.verify() == []
        there = {i for i in store.live(0, "base").ids.tolist() if i > 16}
        last = max(living, default=0)
        for step, ids in living.items():
            if step == last:
                ids = [i for i in ids if i in there]  # noqa: PLW2901  its deletion may be known, or not
                assert ids
                living[step] = ids
            assert same(store, np.array(ids), {k: a[: len(ids)] for k, a in arrays(2, step).items()})
        more = there - {i for ids in living.values() for i in ids}
        for slot in sorted(more):  # put in, never acknowledged
            step = int(store.records([slot])[0].label)
            assert step == last + 1
            living.setdefault(step, []).append(slot)
        assert len(more) in (0, 1, 2)


@pytest.mark.parametrize("kind", ["stale", "alive", "file", "no folder"])
def test_what_lies_at_the_socket(folder: Path, kind: str) -> None:
    path = folder / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        if kind in ("stale", "alive"):
            other.bind(str(path))
        if kind == "alive":
            other.listen(1)
        if kind == "file":
            path.write_text("mine")
        if kind == "no folder":
            path = folder / "none" / "s"
        if kind == "stale":
            with serving(folder, socket_address(path)) as url:
                assert check(url).fits
            assert not path.exists()
            return
        expected = {"alive": BusyError, "file": UsageError, "no folder": MissingError}[kind]
        with pytest.raises(expected, match=str(path.parent)), serving(folder, socket_address(path)):
            pass
        assert path.exists() is (kind != "no folder")
        if kind == "file":
            assert path.read_text() == "mine"


def test_a_folder_whose_path_is_long_or_odd_is_served_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")  # noqa: S108  its own folder for each user
    for name in ("a b%20#é", "x" * 90):
        folder = tmp_path / name
        folder.mkdir()
        make_memory(folder / "memory")
        with serving(folder) as url, RemoteStore(url) as store:
            assert store.count() == 16
    path = default_socket(folder)
    assert path.parent.name == f"mindset-{os.getuid()}"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_prepared_folder_is_refused(folder: Path) -> None:
    prepared = folder / f"mindset-{os.getuid()}"
    prepared.mkdir(mode=0o755)
    with (
        pytest.raises(ReadOnlyError, match="not yours alone"),
        serving(folder, socket_address(prepared / "s")),
    ):
        pass
