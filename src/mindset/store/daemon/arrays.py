"""Arrays on the wire: raw little-endian rows with dtype and shape, cut so that a message stays small.

What comes in is checked before it is believed: a length that does not fit its shape is an error of whoever sent it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Shaped

from mindset.errors import UsageError
from mindset.store.daemon.memory_pb2 import Array

__all__ = ["join", "pack", "row_bytes", "unpack"]

_DTYPE = re.compile(r"<[fiu][248]|\|[iu]1")


def pack(arrays: Mapping[str, Shaped[np.ndarray, "n d"]], some: slice = slice(None)) -> list[Array]:
    """Some rows of each field."""
    return [_packed(field, array[some]) for field, array in arrays.items()]


def row_bytes(arrays: Mapping[str, Shaped[np.ndarray, "n d"]]) -> int:
    """Bytes of one slot's rows."""
    return sum(array.itemsize * array.shape[1] for array in arrays.values())


def join(messages: Iterable[Array]) -> dict[str, Shaped[np.ndarray, "n d"]]:
    """The arrays whose parts came, in the order in which they came."""
    parts: dict[str, list[np.ndarray]] = {}
    for message in messages:
        parts.setdefault(message.field, []).append(unpack(message))
    return {field: _joined(field, some) for field, some in parts.items()}


def unpack(message: Array) -> Shaped[np.ndarray, "n d"]:
    """One part."""
    if not _DTYPE.fullmatch(message.dtype):
        raise UsageError(f"{message.field}: dtype {message.dtype!r}; rows are <f4, <f2, <u2 and the like")
    dtype = np.dtype(message.dtype)
    rows, d = int(message.rows), int(message.d)
    if rows < 0 or d < 1 or rows * d * dtype.itemsize != len(message.data):
        raise UsageError(f"{message.field}: {len(message.data)} bytes for shape [{rows}, {d}] of {dtype.str}")
    array = np.frombuffer(message.data, dtype).reshape(rows, d)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _packed(field: str, array: Shaped[np.ndarray, "n d"]) -> Array:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return Array(
        field=field, dtype=little.dtype.str, rows=len(little), d=little.shape[1], data=little.tobytes()
    )


def _joined(field: str, parts: list[np.ndarray]) -> Shaped[np.ndarray, "n d"]:
    if len({(part.dtype, part.shape[1]) for part in parts}) > 1:
        raise UsageError(f"{field}: its parts have several dtypes or lengths of row")
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
