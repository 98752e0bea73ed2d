"""kill -9 while slots are counted, evicted, merged and brought back: nothing is half done, and all can be undone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from store.used_memory import make_model

from mindset.store.memory import Memory

WRITER = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[2])
from store.used_memory import read
from mindset.store.eviction_plan import EvictionSettings, plan_eviction
from mindset.store.memory import Memory
from mindset.store.merging import MergeSettings, plan_merging
print("open", flush=True)
with Memory(sys.argv[1]) as memory:
    for step in range(1, 10_000):
        read(memory, memory.store.live(0, "base").ids[:3].tolist(), step)
        memory.evict(plan_eviction(memory.store, EvictionSettings("s3fifo", remove=1, layer=0)))
        memory.merge(plan_merging(memory.store, MergeSettings(within=1.0, most=1, layer=0)))
        print(step, flush=True)
        memory.undo(2 if step % 3 else 1)
        if step % 3 == 0:
            memory.undo(len(memory.journal.done))
"""


def state(memory: Memory) -> list[tuple[int, bytes]]:
    """Every living slot and its bytes."""
    found = []
    for info in memory.store.shards():
        live = memory.store.ledger.live(info.id)
        arrays = [memory.store.vectors.get(info, field, live.rows) for field in sorted(info.fields)]
        found += [(int(slot), b"".join(a[i].tobytes() for a in arrays)) for i, slot in enumerate(live.ids)]
    return found


def kill_and_check(model: Path, kills: int, seed: int) -> None:
    tests, rng = Path(__file__).resolve().parent.parent, random.Random(seed)  # noqa: S311
    with Memory(model) as memory:
        before = state(memory)
    for _ in range(kills):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(model), str(tests)], stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(tests.parent / "src")},
        )  # fmt: skip
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        time.sleep(rng.random() * 0.5)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        with Memory(model) as memory:
            assert memory.store.verify() == []
            if memory.journal.done:
                memory.undo(len(memory.journal.done))
            assert state(memory) == before


def test_after_a_kill_all_can_be_undone(tmp_path: Path) -> None:
    kill_and_check(make_model(tmp_path / "m"), kills=3, seed=0)


@pytest.mark.slow
def test_after_many_kills_all_can_be_undone(tmp_path: Path) -> None:
    kill_and_check(make_model(tmp_path / "m"), kills=40, seed=1)
