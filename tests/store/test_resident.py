"""What of a map is in RAM: counted, and given back before a limit is passed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from mindset.errors import UsageError
from mindset.store import resident
from mindset.store.resident import Resident
from mindset.store.slab import Slab

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is resident")

MB = 1 << 20


@pytest.fixture
def rows(tmp_path: Path) -> np.ndarray:
    """64 MB of a slab."""
    made = np.arange(64 * MB // 4, dtype=np.float32).reshape(-1, 256)
    return Slab.write(tmp_path / "a.slab", made, name="a", dtype="float32").rows


def files_in_ram() -> int:
    found = re.search(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def test_reading_all_of_a_map_never_has_more_of_it_in_ram_than_the_limit(rows: np.ndarray) -> None:
    held = Resident(8 * MB)
    assert held.watch(rows)
    held.give_back()
    before, most, total = files_in_ram(), 0, 0.0
    for start in range(0, len(rows), 1024):
        held.make_room(MB)
        total += float(rows[start : start + 1024].sum(dtype=np.float64))
        most = max(most, files_in_ram() - before)
    n = rows.size
    assert total == pytest.approx(n * (n - 1) / 2, rel=1e-6)
    assert most <= 8.5 * MB
    assert held.given_back > 7


def test_what_was_read_is_counted_and_gone_when_it_is_given_back(rows: np.ndarray) -> None:
    held = Resident(1 << 40)
    held.watch(rows)
    held.give_back()
    assert held.nbytes < MB
    rows.sum()
    assert held.nbytes >= 60 * MB
    held.make_room(MB)
    assert held.nbytes >= 60 * MB, "there was room"
    held.give_back()
    assert held.nbytes < MB
    assert float(rows[3, 5]) == 3 * 256 + 5, "what was given back is read again"


def test_what_one_gives_back_is_not_taken_for_the_others(rows: np.ndarray, tmp_path: Path) -> None:
    mine, theirs = Resident(1 << 40), Resident(1 << 40)
    other = Slab.write(tmp_path / "b.slab", rows[: len(rows) // 2].copy(), name="b", dtype="float32").rows
    mine.watch(rows)
    theirs.watch(other)
    mine.give_back()
    theirs.give_back()
    rows.sum()
    other.sum()
    before = mine.nbytes
    theirs.give_back()
    assert abs(mine.nbytes - before) < MB
    assert mine.nbytes >= 60 * MB


def test_rows_in_ram_are_not_watched(rows: np.ndarray) -> None:
    held = Resident(MB)
    assert not held.watch(np.zeros((3, 4)))
    assert held.watch(rows[3:5])
    assert held.watch(rows)
    held.give_back()


def test_elsewhere_than_on_linux_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "_STATUS", Path("/nowhere/statm"))
    with pytest.raises(UsageError, match="only Linux"):
        Resident(MB)
