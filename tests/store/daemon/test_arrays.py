from __future__ import annotations

import numpy as np
import pytest

from mindset.errors import UsageError

pytest.importorskip("grpc", reason="the extra `serve` (grpcio) is missing")
from mindset.store.daemon import memory_pb2 as pb
from mindset.store.daemon.arrays import join, pack, row_bytes
from mindset.store.daemon.protocol import CHUNK_BYTES, cut, pages


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", "<u2", "<i8", "u1", ">f4", ">u2"])
def test_rows_come_back_to_the_bit(dtype: str) -> None:
    raw = np.random.default_rng(0).bytes(7 * 5 * np.dtype(dtype).itemsize)
    array = np.frombuffer(raw, dtype).reshape(7, 5)
    parts = [one for some in cut(7, CHUNK_BYTES // 2) for one in pack({"key": array}, some)]
    assert len(parts) == 4
    back = join(pb.Array.FromString(part.SerializeToString()) for part in parts)["key"]
    assert back.dtype == np.dtype(dtype).newbyteorder("=")
    assert back.tobytes() == array.astype(back.dtype).tobytes()


def test_no_rows_have_a_shape_too() -> None:
    assert join(pack({"key": np.empty((0, 3), np.float16)}))["key"].shape == (0, 3)
    assert row_bytes({"key": np.empty((0, 3), np.float16), "value": np.empty((0, 1))}) == 14


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (pb.Array(field="key", dtype="<f4", rows=2, d=2, data=b"x" * 15), "15 bytes for shape"),
        (pb.Array(field="key", dtype="<f4", rows=-1, d=-1, data=b"x" * 4), "4 bytes for shape"),
        (pb.Array(field="key", dtype="<f4", rows=2**62, d=2**62, data=b""), "0 bytes for shape"),
        (pb.Array(field="key", dtype="<f4", rows=0, d=0), "0 bytes for shape"),
        (pb.Array(field="key", dtype="O", rows=1, d=1, data=b"x" * 8), "dtype 'O'"),
        (pb.Array(field="key", dtype="", rows=1, d=1, data=b"x" * 8), "dtype ''"),
    ],
)
def test_what_does_not_fit_its_shape_is_refused(message: pb.Array, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        join([message])


def test_parts_of_one_array_are_alike() -> None:
    with pytest.raises(UsageError, match="several dtypes"):
        join(pack({"key": np.ones((1, 2))}) + pack({"key": np.ones((1, 3))}))


def test_pages_are_small_and_lose_nothing() -> None:
    texts = [pb.Source(text="x" * size) for size in (10, CHUNK_BYTES, 3 * CHUNK_BYTES, 10, 10)]
    assert [len(page) for page in pages(texts)] == [1, 1, 1, 2]
    assert [one for page in pages(texts) for one in page] == texts
    assert list(pages([])) == []
