"""A writer killed at any moment leaves the last memory it had published, or a newer whole one."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from store.killed_store import kill_again_and_again
from store.test_slab_store import make_memory

from mindset.errors import MissingError
from mindset.store import MemoryDir

WRITER = """
import sys
from pathlib import Path
import numpy as np
from mindset.store import BankRecord, MemoryDir, Rows, ShardRecord

def bank(layer, stamp):
    rows = Rows(np.full((512, 64), stamp, "<f4"), "float32")
    base = ShardRecord("base", "relu", False, 512, {"key": rows, "value": rows})
    return BankRecord(layer, "mirror", 1, (base,))

stamp = int(sys.argv[2])
print("writing", flush=True)
while True:
    stamp += 1
    MemoryDir.write(Path(sys.argv[1]), (bank(layer, stamp) for layer in range(4)))
    print(stamp, flush=True)
"""


def killed_writer(folder: Path, stamp: int, after_s: float) -> int:
    """Start a writer, kill it, and return the last stamp it acknowledged (or `stamp`, where it began)."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, folder, str(stamp)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    time.sleep(after_s)
    writer.send_signal(signal.SIGKILL)
    lines = [line for line in writer.stdout.read().splitlines() if line]
    writer.stdout.close()
    assert writer.wait() == -signal.SIGKILL
    return int(lines[-1]) if lines else stamp


def stamp_of(memory: MemoryDir) -> int:
    """Check that a memory is whole and all of one writing, and return which."""
    assert memory.verify() == []
    values = {
        float(memory.array(layer, "base", field)[i, j])
        for layer in range(4)
        for field in ("key", "value")
        for i, j in ((0, 0), (511, 63))
    }
    assert len(values) == 1
    return int(values.pop())


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL, which Windows lacks")
@pytest.mark.parametrize("seed", range(2))
def test_kill_in_the_middle_of_writing(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311 - when to kill, not a secret
    folder, acknowledged = tmp_path / "memory", 0
    for _ in range(6):
        acknowledged = killed_writer(folder, acknowledged, draw.uniform(0, 0.08))
        try:
            found = stamp_of(MemoryDir.open(folder))
        except MissingError:
            assert acknowledged == 0
            continue
        assert found in (acknowledged, acknowledged + 1)
        acknowledged = found
    MemoryDir.write(folder, [])
    assert [path.name for path in folder.iterdir()] == ["memory.json"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL, which Windows lacks")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["slab", "sqlite"])
def test_after_a_kill_what_was_acknowledged_is_there_and_nothing_else(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("faiss", reason="needs faiss, the extra `ann`, for what is killed while it indexes")
    tally = kill_again_and_again(kind, make_memory(tmp_path / "memory"), kills=10, seed=0)
    assert (tally.lost, tally.back, tally.mismatches, tally.repairs) == (0, 0, 0, 0)
    assert tally.acknowledged > 10
    assert tally.living
