"""From reads to counters: who may write, whose reads they are, and what an edit meanwhile makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from store.used_memory import make_model

from mindset.errors import FormatError, ReadOnlyError, UsageError
from mindset.journal.folder_lock import writing_in
from mindset.store.memory import Memory
from mindset.store.tally import BankTally, ReadCount


def tallied(count: ReadCount, places: list[int]) -> BankTally:
    tally = BankTally(12, count.decay)
    tally.tokens = 1
    read = np.array(places, np.int64)
    tally.add(np.ones_like(read), np.zeros_like(read), read, np.ones(len(read)))
    return tally


def write(count: ReadCount, places: list[int]) -> None:
    count.write({0: tallied(count, places)}, {0: [("base", np.arange(12)[None])]}, wait_seconds=0.1)


def hits(model: Path) -> list[int]:
    with Memory(model, read_only=True) as memory:
        return np.flatnonzero(memory.store.usage.of(0, "base").read(20)["hits"]).tolist()


def test_a_memory_without_records_gets_none_by_being_counted(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m")
    write(ReadCount(model), [3, 5])
    assert sorted(
        path.suffix for path in (model / "memory").iterdir() if path.suffix not in (".slab", ".json")
    ) == [".counts"]
    assert hits(model) == [3, 5]
    again = ReadCount(model)
    assert (again.start, again.decay) == (1, 1e-4)
    with pytest.raises(UsageError, match="counts with lambda"):
        write(ReadCount(model, decay=0.5), [3])


def test_a_slot_that_died_meanwhile_is_left_out(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m")
    count = ReadCount(model)
    with Memory(model) as memory:
        memory.delete([4])
    write(count, [3, 5])
    assert hits(model) == [5]


def test_who_cannot_write_says_so(tmp_path: Path, small_disk: tuple[Path, Callable[[str], None]]) -> None:
    folder, remount = small_disk
    model = make_model(folder / "m")
    count = ReadCount(model)
    with writing_in(model):
        write(count, [1])  # the same process may
    remount("ro")
    with pytest.raises(ReadOnlyError, match="cannot be written to"):
        ReadCount(model)
    remount("rw")


def test_another_model_in_the_folder_is_not_counted(tmp_path: Path) -> None:
    count = ReadCount(make_model(tmp_path / "m"))
    make_model(tmp_path / "m")
    with pytest.raises(FormatError, match="saved anew"):
        write(count, [1])
