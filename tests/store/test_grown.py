"""A growing file of rows against a dictionary of rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindset.errors import DiskFullError, FormatError, ReadOnlyError, UsageError
from mindset.store.grown import GrownRows
from mindset.store.slab import STORAGE


def opened(path: Path, dtype: str = "float32", d: int = 3, *, read_only: bool = False) -> GrownRows:
    return GrownRows(path, name="layer-03.new.key", dtype=dtype, row_length=d, read_only=read_only)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(["float16", "float32", "float64", "bfloat16"]),
    batches=st.lists(st.lists(st.integers(0, 3000), max_size=6, unique=True), max_size=5),
    seed=st.integers(0, 99),
)
def test_rows_are_those_written_last(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, batches: list[list[int]], seed: int
) -> None:
    path = tmp_path_factory.mktemp("grown") / "x"
    writer, reader, wanted = opened(path, dtype), None, {}
    rng = np.random.default_rng(seed)
    for batch in batches:
        raw = np.frombuffer(rng.bytes(len(batch) * 3 * STORAGE[dtype].itemsize), STORAGE[dtype]).reshape(
            -1, 3
        )
        writer.write(np.array(batch, np.int64), raw)
        wanted |= dict(zip(batch, raw, strict=True))
        reader = reader or (opened(path, dtype, read_only=True) if path.exists() else None)
        if wanted and reader is not None:  # a reader that was there before sees it too
            rows = np.array(sorted(wanted), np.int64)
            assert reader.read(rows).tobytes() == np.stack([wanted[int(row)] for row in rows]).tobytes()
    if wanted:
        again = opened(path, dtype, read_only=True)
        assert len(again.mapped(max(wanted) + 1)) == max(wanted) + 1


def test_nothing_is_written_before_there_is_something(tmp_path: Path) -> None:
    rows = opened(tmp_path / "x")
    rows.write(np.array([], np.int64), np.empty((0, 3), np.float32))
    assert len(rows.mapped(0)) == 0
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    rows = opened(tmp_path / "x")
    with pytest.raises(UsageError, match="shape"):
        rows.write(np.array([1]), np.empty((1, 4), np.float32))
    with pytest.raises(UsageError, match="float64"):
        rows.write(np.array([1]), np.empty((1, 3), np.float64))
    with pytest.raises(ReadOnlyError):
        opened(tmp_path / "x", read_only=True).write(np.array([1]), np.empty((1, 3), np.float32))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda b: b"x" + b[1:], "no file of rows"),
        (lambda b: b[:100], "header is damaged"),
        (lambda b: b[:60] + b"zz" + b[62:], "header is damaged"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, harm: Callable[[bytes], bytes], message: str) -> None:
    opened(tmp_path / "x").write(np.array([0]), np.zeros((1, 3), np.float32))
    (tmp_path / "x").write_bytes(harm((tmp_path / "x").read_bytes()))
    with pytest.raises(FormatError, match=message):
        opened(tmp_path / "x")


def test_another_files_rows_and_a_file_cut_short_are_refused(tmp_path: Path) -> None:
    opened(tmp_path / "x").write(np.array([9]), np.zeros((1, 3), np.float32))
    with pytest.raises(FormatError, match="in place of"):
        opened(tmp_path / "x", d=4)
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:4110])
    with pytest.raises(FormatError, match="has 1 rows, records name 10"):
        opened(tmp_path / "x").mapped(10)


def test_a_full_disk_is_an_error_and_old_rows_stay(small_disk: tuple[Path, Callable[[str], None]]) -> None:
    path = small_disk[0] / "x"
    rows = opened(path, d=1024)
    rows.write(np.array([0]), np.ones((1, 1024), np.float32))
    with pytest.raises(DiskFullError):
        rows.write(np.arange(1, 200), np.ones((199, 1024), np.float32))
    assert (opened(path, d=1024).read(np.array([0])) == 1).all()
