from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store.mapped import is_mapped

from mindset.errors import DiskFullError, FormatError, MissingError, UsageError
from mindset.store.slab import HEADER_BYTES, STORAGE, Slab

# The folder of a test is shared by its examples: each writes the whole file anew.
examples = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def random_rows(dtype: str, n_rows: int, row_length: int, seed: int = 0) -> np.ndarray:
    """Any bits, so NaNs with payloads, infinities and subnormal numbers among them."""
    storage = STORAGE[dtype]
    raw = np.random.default_rng(seed).bytes(n_rows * row_length * storage.itemsize)
    return np.frombuffer(raw, storage).reshape(n_rows, row_length)


def small_slab(folder: Path, **options: int) -> Slab:
    return Slab.write(folder / "a.slab", random_rows("float32", 7, 5), dtype="float32", name="a", **options)


def forge(path: Path, offset: int, raw: bytes) -> None:
    """Change the header and make its checksum right again."""
    page = bytearray(path.read_bytes())
    page[offset : offset + len(raw)] = raw
    page[HEADER_BYTES - 4 : HEADER_BYTES] = struct.pack("<I", zlib.crc32(page[: HEADER_BYTES - 4]))
    path.write_bytes(page)


@examples
@given(
    dtype=st.sampled_from(sorted(STORAGE)),
    shape=st.tuples(st.integers(0, 40) | st.sampled_from([511, 512, 513, 1300]), st.integers(1, 9)),
    free=st.integers(0, 600),
    name=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
    seed=st.integers(0, 2**32),
)
def test_what_is_read_is_what_was_written(
    tmp_path: Path, *, dtype: str, shape: tuple[int, int], free: int, name: str, seed: int
) -> None:
    rows, n_rows = random_rows(dtype, *shape, seed), shape[0]
    Slab.write(tmp_path / "a.slab", rows, dtype=dtype, name=name, capacity=n_rows + free)
    slab = Slab.open(tmp_path / "a.slab")
    assert slab.rows.tobytes() == rows.tobytes() == slab.load().tobytes()
    assert slab.rows.shape == rows.shape == slab.load().shape
    assert slab.rows.dtype == rows.dtype
    header = slab.header
    assert (header.name, header.dtype, header.capacity) == (name, dtype, n_rows + free)
    assert slab.path.stat().st_size == header.file_bytes
    assert slab.nbytes == rows.nbytes
    assert slab.damage() == []


@pytest.mark.parametrize(
    "rows",
    [
        random_rows("float32", 9, 6)[::-2, 1::2],
        np.asfortranarray(random_rows("float32", 9, 6)),
        random_rows("float32", 9, 6).astype(">f4"),
    ],
    ids=["strided", "column-major", "big-endian"],
)
def test_any_layout_in_memory_gives_the_same_values(tmp_path: Path, rows: np.ndarray) -> None:
    slab = Slab.write(tmp_path / "a.slab", rows, dtype="float32", name="a")
    np.testing.assert_array_equal(slab.rows, rows)


def test_a_slab_can_be_rewritten_from_its_own_map(tmp_path: Path) -> None:
    slab = small_slab(tmp_path)
    again = Slab.write(slab.path, slab.rows[::-1], dtype="float32", name="a")
    np.testing.assert_array_equal(again.rows, slab.rows[::-1])


def test_the_rows_are_a_read_only_map_and_load_is_a_copy(tmp_path: Path) -> None:
    slab = small_slab(tmp_path)
    assert is_mapped(slab.rows)
    with pytest.raises(ValueError, match="read-only"):
        slab.rows[0] = 1
    copy = slab.load()
    copy[0] = 1
    assert type(copy) is np.ndarray
    assert slab.damage() == []


@examples
@given(data=st.data())
def test_a_flipped_byte_in_the_rows_is_found_and_placed(tmp_path: Path, data: st.DataObject) -> None:
    slab = small_slab(tmp_path, capacity=9)
    at = data.draw(st.integers(HEADER_BYTES, HEADER_BYTES + slab.nbytes - 1))
    flip(slab.path, at, data.draw(st.integers(1, 255)))
    row = (at - HEADER_BYTES) // slab.header.row_bytes
    assert slab.damage() == [range(row, row + 1)]
    with pytest.raises(FormatError, match=rf"a\.slab: rows {row}-{row} are damaged"):
        Slab.open(slab.path).load()


@examples
@given(at=st.integers(0, HEADER_BYTES - 1), bits=st.integers(1, 255))
def test_a_flipped_byte_in_the_header_is_refused(tmp_path: Path, at: int, bits: int) -> None:
    path = small_slab(tmp_path).path
    flip(path, at, bits)
    with pytest.raises(FormatError, match=r"a\.slab"):
        Slab.open(path)


def flip(path: Path, at: int, bits: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= bits
    path.write_bytes(raw)


def test_every_shorter_length_is_refused(tmp_path: Path) -> None:
    path = small_slab(tmp_path).path
    whole = path.read_bytes()
    for length in [*range(0, HEADER_BYTES, 37), *range(HEADER_BYTES, len(whole))]:
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match="cut off"):
            Slab.open(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(FormatError, match="too long"):
        Slab.open(path)


@pytest.mark.parametrize(
    ("offset", "raw", "message"),
    [
        (0, b"GGUF", "not a slab file"),
        (8, struct.pack("<I", 2), "version 2, this release reads version 1; install"),
        (12, b"float8_e4m3fn\0\0\0", "dtype 'float8_e4m3fn', this release reads float64, float32"),
        (28, struct.pack("<Q", 0), "contradicts itself"),
        (36, struct.pack("<Q", 10**15), "contradicts itself"),
        (52, struct.pack("<I", 10**9), "contradicts itself"),
        (28, struct.pack("<Q", 6), "cut off"),
    ],
    ids=["magic", "version", "dtype", "row length", "rows", "blocks", "longer rows"],
)
def test_a_foreign_or_impossible_header_is_refused(
    tmp_path: Path, offset: int, raw: bytes, message: str
) -> None:
    path = small_slab(tmp_path).path
    forge(path, offset, raw)
    with pytest.raises(FormatError, match=message):
        Slab.open(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"b\.slab"):
        Slab.open(tmp_path / "b.slab")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (random_rows("float32", 2, 2), {"dtype": "float16"}, "give it as float16"),
        (random_rows("float32", 2, 2), {"dtype": "bfloat16"}, "give it as uint16 bits"),
        (random_rows("float32", 2, 2), {"dtype": "float8"}, "use one of float64"),
        (random_rows("float32", 2, 2), {"capacity": 1}, "at least as large"),
        (random_rows("float32", 2, 2), {"name": "é" * 200}, "shorten"),
        (np.empty((2, 0), "<f4"), {}, "at least one number"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(
    tmp_path: Path, rows: np.ndarray, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Slab.write(tmp_path / "a.slab", rows, **{"dtype": "float32", "name": "a", **options})
    assert list(tmp_path.iterdir()) == []


def test_an_open_slab_outlives_its_file(tmp_path: Path) -> None:
    slab = small_slab(tmp_path)
    slab.path.unlink()
    np.testing.assert_array_equal(slab.rows, random_rows("float32", 7, 5))


def test_a_full_disk_leaves_the_old_slab(small_disk: tuple[Path, object]) -> None:
    folder, _ = small_disk
    old = small_slab(folder)
    with pytest.raises(DiskFullError, match=r"a\.slab: cannot be written, no space left"):
        Slab.write(old.path, random_rows("float64", 1000, 64), dtype="float64", name="a")
    assert list(folder.iterdir()) == [old.path]
    np.testing.assert_array_equal(Slab.open(old.path).rows, old.rows)


def test_a_limit_on_file_size_counts_as_a_full_disk(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="needs limits on a process, which Windows lacks")
    program = (
        "import pathlib, resource, sys\n"
        "import numpy as np\n"
        "from mindset.errors import DiskFullError\n"
        "from mindset.store import Slab\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: Slab.write(pathlib.Path(sys.argv[1]), np.ones((10000, 8)), dtype='float64', name='a')\n"
        "except DiskFullError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "a.slab"], capture_output=True, text=True, check=True
    )
    assert "a.slab: cannot be written, file too large" in done.stdout
    assert list(tmp_path.iterdir()) == []
