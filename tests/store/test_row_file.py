"""Rows read from a slab's file are those of its map, and stay nowhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindset.errors import FormatError
from mindset.store.row_file import RowFile
from mindset.store.slab import HEADER_BYTES, Slab


def slab(path: Path, n: int = 50, d: int = 3, dtype: str = "float32") -> Slab:
    rows = np.arange(n * d).reshape(n, d).astype(dtype)
    return Slab.write(path, rows, name=path.stem, dtype=dtype)


@pytest.fixture(scope="module")
def made_of(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Slab]:
    folder = tmp_path_factory.mktemp("slabs")
    return {dtype: slab(folder / f"{dtype}.slab", dtype=dtype) for dtype in ("float32", "float16", "uint8")}


@given(st.lists(st.integers(0, 49), max_size=30), st.sampled_from(["float32", "float16", "uint8"]))
def test_rows_are_those_of_the_map(made_of: dict[str, Slab], rows: list[int], dtype: str) -> None:
    made = made_of[dtype]
    out = np.zeros((len(rows), 3), dtype)
    RowFile(made).read(rows, memoryview(out.view(np.uint8).reshape(-1)))
    assert np.array_equal(out, made.rows[rows])


@pytest.mark.parametrize("row", [-1, 50])
def test_a_row_that_is_not_there_is_refused(tmp_path: Path, row: int) -> None:
    with pytest.raises(IndexError):
        RowFile(slab(tmp_path / "a.slab")).read([row], memoryview(bytearray(12)))


def test_a_file_that_was_replaced_or_cut_is_refused(tmp_path: Path) -> None:
    made = slab(tmp_path / "a.slab")
    file = RowFile(made)
    os.truncate(made.path, HEADER_BYTES + 25 * 12 + 4)
    with pytest.raises(FormatError, match="cut off"):
        file.read([25], memoryview(bytearray(12)))
    Slab.write(made.path, np.zeros((50, 4), np.float32), name="a", dtype="float32")
    with pytest.raises(FormatError, match="replaced"):
        RowFile(made)


def open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists open files")
def test_its_file_is_closed_with_it(tmp_path: Path) -> None:
    made = slab(tmp_path / "a.slab")
    before = open_files()
    file = RowFile(made)
    assert open_files() > before
    del file
    assert open_files() == before
