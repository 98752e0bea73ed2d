"""A memory with its history."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from store.test_slab_store import arrays, make_memory

from mindset.errors import BusyError, MissingError, ReadOnlyError
from mindset.store.memory import Memory
from mindset.store.slots import Change, NewSlot


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_memory(tmp_path / "memory")
    return tmp_path


def live(memory: Memory) -> list[int]:
    return memory.store.live(0, "base").ids.tolist()


def test_every_change_is_one_entry_that_goes_back_and_forth(folder: Path) -> None:
    with Memory(folder) as memory:
        before = live(memory)
        ids = memory.insert(0, "base", [NewSlot()] * 7, arrays(7))
        memory.update(ids[:1], {"value": np.zeros((1, 3), np.float32)}, who="someone")
        memory.change(ids[:2], Change(label="x", pinned=True))
        memory.delete(ids)
        assert [entry.title for entry in memory.journal.done] == [
            "7 slots in, layer 0, base", "1 slot edited: 17", "label, pinned of 17, 18",
            "7 slots out: 17, 18, 19, 20, 21 and 2 more",
        ]  # fmt: skip
        assert memory.journal.done[1].who == "someone"
        assert live(memory) == before
        memory.undo(2)
        assert live(memory) == [*before[:6], *ids.tolist()[1:], 17]  # in the order of their rows
        assert not memory.store.records([17])[0].pinned
        memory.undo(2)
        assert live(memory) == before
    with Memory(folder) as memory:
        memory.redo(3)
        assert memory.store.records([17])[0].pinned
        assert memory.store.verify() == []


def test_a_change_that_fails_is_not_in_the_history(folder: Path) -> None:
    with Memory(folder) as memory:
        with pytest.raises(MissingError):
            memory.delete([999])
        assert memory.journal.entries == []
        memory.delete([1])
        assert len(memory.journal.done) == 1


def test_letting_go_of_the_history_frees_rows(folder: Path) -> None:
    with Memory(folder) as memory:
        ids = memory.insert(0, "base", [NewSlot()] * 3, arrays(3))
        memory.delete(ids)
        memory.journal.forget(0)
        memory.insert(0, "base", [NewSlot()] * 3, arrays(3))
        assert memory.store.shard(0, "base").top == 6 + 3


def test_what_was_done_before_the_model_was_saved_anew_is_not_undone_in_the_new_one(folder: Path) -> None:
    with Memory(folder) as memory:
        memory.delete([1])
    make_memory(folder / "memory")
    with Memory(folder) as memory:
        memory.delete([2])  # the same number of edit
        memory.undo()
        with pytest.raises(MissingError, match="was saved anew"):
            memory.undo()
        assert live(memory) == [1, 2, 3, 4, 5, 6]
        assert len(memory.journal.done) == 1


def test_readers_change_nothing_and_writers_wait(folder: Path) -> None:
    with Memory(folder) as memory, Memory(folder, read_only=True) as reader:
        memory.delete([1])
        assert 1 not in live(reader)
        with pytest.raises(ReadOnlyError):
            reader.delete([2])
        script = (
            "import sys; from pathlib import Path; from mindset.journal import folder_lock as f; "
            "import mindset.store.memory as m; from mindset.errors import BusyError\n"
            "m.writing_in = lambda p, _: f.writing_in(p, 0.1)\n"
            "try: m.Memory(Path(sys.argv[1]))\n"
            "except BusyError as e: print(e)"
        )
        done = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True)
        assert "another process is writing" in done.stdout, done.stderr
    assert BusyError


KILLED = """
import os, signal, sys
from pathlib import Path
from mindset.store import memory as m
from mindset.store.ledger import Ledger
when, folder = sys.argv[1], Path(sys.argv[2])
memory = m.Memory(folder)
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if when == "before":
    m.SlabStore.delete = kill
else:
    memory.journal._drop_overtaken = kill  # never reached: killed at the line that says done
    write = memory.journal._write
    memory.journal._write = lambda line: kill() if line["op"] == "done" else write(line)
memory.delete([2, 3])
"""


@pytest.mark.parametrize(("when", "there"), [("before", True), ("after", False)])
def test_after_a_kill_the_history_is_what_the_memory_holds(folder: Path, when: str, there: bool) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, when, folder], env=os.environ, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with Memory(folder) as memory:
        assert (2 in live(memory)) is there
        assert len(memory.journal.done) == (0 if there else 1)
        if not there:
            memory.undo()
            assert 2 in live(memory)
