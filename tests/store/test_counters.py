"""Counters against the plain sums, across processes and growth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindset.errors import ReadOnlyError
from mindset.store.counters import Counters, Reads

READS = st.lists(st.lists(st.integers(0, 40), max_size=6), max_size=6)


@settings(max_examples=40, deadline=None)
@given(steps=READS, decay=st.sampled_from([0.0, 0.1, 1.0]))
def test_what_is_counted_is_what_was_read(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[int]], decay: float
) -> None:
    path = tmp_path_factory.mktemp("counters") / "x"
    counters = Counters(path)
    for step, rows in enumerate(steps, start=1):
        counters.add(Reads.of(np.array(rows, np.int64), np.array(rows, float) / 7, step, decay), step, decay)
    now, found = len(steps), Counters(path, read_only=True).read(50)
    for row in range(50):
        times = [step for step, rows in enumerate(steps, start=1) for one in rows if one == row]
        assert found["hits"][row] == len(times)
        assert found["last"][row] == (times[-1] if times else 0)
        assert found["influence"][row] == pytest.approx(len(times) * row / 7)
        crf = sum(2.0 ** (-decay * (now - t)) for t in times)
        assert 2.0 ** (found["log_crf"][row] - decay * now) == pytest.approx(crf)


def test_a_reader_sees_what_a_writer_counts_and_what_grew(tmp_path: Path) -> None:
    writer, reader = Counters(tmp_path / "x"), Counters(tmp_path / "x", read_only=True)
    assert reader.read(3)["hits"].tolist() == [0, 0, 0]
    for row in (1, 20_000, 100_000):
        writer.add(Reads.of(np.array([row]), np.ones(1), 1, 0.0), 1, 0.0)
        assert reader.read(row + 1)["hits"][row] == 1
    assert reader.read(200_000)["hits"].sum() == 3
    with pytest.raises(ReadOnlyError):
        reader.add(Reads.of(np.array([1]), np.ones(1), 1, 0.0), 1, 0.0)


def test_new_slots_start_anew_and_heirs_do_not(tmp_path: Path) -> None:
    counters = Counters(tmp_path / "x")
    counters.add(Reads.of(np.array([1, 1, 2]), np.ones(3), 5, 0.1), 5, 0.1)
    counters.inherit(np.array([1]), np.array([7]))
    counters.reset(np.array([1]), step=6, decay=0.1)
    found = counters.read(8)
    assert found["hits"].tolist() == [0, 0, 1, 0, 0, 0, 0, 2]
    assert found["log_crf"][1] == pytest.approx(0.6 + 1)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 200])
def test_a_file_that_is_of_no_use_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    counters = Counters(tmp_path / "x")
    assert counters.read(2)["hits"].tolist() == [0, 0]
    counters.add(Reads.of(np.array([1]), np.ones(1), 1, 0.0), 1, 0.0)
    assert counters.read(2)["hits"].tolist() == [0, 1]
