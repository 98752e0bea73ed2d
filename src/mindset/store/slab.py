"""A slab: one file of fixed-size rows behind a header page that says what they are.

    bytes 0-4095   header: magic, version, dtype, row length, rows, capacity, name, checksums, own checksum
    bytes 4096-    `capacity` rows, little-endian, row-major; those past `n_rows` are free and hold zeros

The rows lie in one run at a page boundary, so a map of the file is the array: nothing is parsed or copied.
Rows are checksummed in at most 512 blocks; the sums fit the header page, so filling free rows rewrites that
page and moves nothing. The dtype is a name: numpy has no bfloat16, whose rows are kept and handed out as
uint16 bits.

Does not know what a row means. Invariant: a file under a slab's name was written completely (see
atomic_file), and `open` refuses every header or length that does not add up; rows are checked by `damage` and
`load`.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from mindset.atomic_file import replacing
from mindset.errors import FormatError, MissingError, UsageError

__all__ = ["HEADER_BYTES", "STORAGE", "Slab", "SlabHeader"]

STORAGE: dict[str, np.dtype] = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "uint32": np.dtype("<u4"),
    "uint8": np.dtype("u1"),
    "int8": np.dtype("i1"),
}
"""What each dtype's rows look like to numpy."""

HEADER_BYTES = 4096
_MAGIC = b"MINDSLAB"
_VERSION = 1
_MAX_BLOCKS = 512
# magic, version, dtype, row length, rows, capacity, checksum blocks, name
_FIELDS = struct.Struct("<8sI16sQQQI256s")
_CHECKSUMS_AT = 512
_OWN_CHECKSUM = struct.Struct("<I")
_OWN_CHECKSUM_AT = HEADER_BYTES - _OWN_CHECKSUM.size

_REMEDY = "copy the file again from where it came from, or make it anew"


@dataclass(frozen=True)
class SlabHeader:
    """What the header page says; page and fields turn into each other without loss."""

    name: str
    """What the rows are, for people and for a check against a mix-up of files: at most 256 bytes of UTF-8."""
    dtype: str
    """A key of STORAGE."""
    row_length: int
    """Numbers in a row, at least 1."""
    n_rows: int
    """Rows in use, the first ones."""
    capacity: int
    """Rows the file has room for, at least n_rows."""
    checksums: tuple[int, ...]
    """crc32 of each block of rows in use."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.row_length * STORAGE[self.dtype].itemsize

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole file, free rows included."""
        return HEADER_BYTES + self.capacity * self.row_bytes

    def blocks(self) -> Iterator[slice]:
        """List the runs of rows that share a checksum."""
        return _blocks(self.n_rows, self.capacity)

    def pack(self) -> bytes:
        """Make the header page."""
        page = bytearray(HEADER_BYTES)
        _FIELDS.pack_into(
            page,
            0,
            _MAGIC,
            _VERSION,
            self.dtype.encode(),
            self.row_length,
            self.n_rows,
            self.capacity,
            len(self.checksums),
            self.name.encode(),
        )
        struct.pack_into(f"<{len(self.checksums)}I", page, _CHECKSUMS_AT, *self.checksums)
        _OWN_CHECKSUM.pack_into(page, _OWN_CHECKSUM_AT, zlib.crc32(page[:_OWN_CHECKSUM_AT]))
        return bytes(page)

    @classmethod
    def unpack(cls, page: bytes, path: Path) -> SlabHeader:
        """Read a header page; `path` is for the messages of FormatError."""
        _check_page(page, path)
        _, _, dtype, row_length, n_rows, capacity, n_blocks, name = _FIELDS.unpack_from(page)
        dtype_name = dtype.rstrip(b"\0").decode("ascii", "replace")
        if dtype_name not in STORAGE:
            raise FormatError(
                f"{path}: its rows are of dtype {dtype_name!r}, this release reads "
                f"{', '.join(STORAGE)}; install the mindset that wrote it"
            )
        if row_length < 1 or capacity < n_rows or n_blocks != len(list(_blocks(n_rows, capacity))):
            raise FormatError(f"{path}: its header contradicts itself; {_REMEDY}")
        checksums = struct.unpack_from(f"<{n_blocks}I", page, _CHECKSUMS_AT)
        name_text = name.rstrip(b"\0").decode("utf-8", "replace")
        return cls(name_text, dtype_name, row_length, n_rows, capacity, checksums)


@dataclass(frozen=True, eq=False)
class Slab:
    """An open slab. It keeps its map, and so its rows, even if the file is replaced or deleted meanwhile."""

    path: Path
    """Where it was opened."""
    header: SlabHeader
    """What it holds."""
    rows: Shaped[np.ndarray, "n_rows row_length"]
    """The rows in use: a read-only map of the file, no copy."""

    @classmethod
    def write(
        cls,
        path: Path,
        rows: Shaped[np.ndarray, "n_rows row_length"],
        *,
        dtype: str,
        name: str,
        capacity: int | None = None,
    ) -> Slab:
        """Write `rows` to a file that replaces `path` once complete; capacity None leaves no free rows."""
        storage = storage_of(rows, dtype)
        n_rows, row_length = rows.shape
        capacity = n_rows if capacity is None else capacity
        _check_arguments(n_rows, row_length, capacity, name)
        with replacing(path) as file:
            file.write(bytes(HEADER_BYTES))
            checksums = []
            for block in _blocks(n_rows, capacity):
                raw = np.ascontiguousarray(rows[block], dtype=storage).data
                checksums.append(zlib.crc32(raw))
                file.write(raw)
            header = SlabHeader(name, dtype, row_length, n_rows, capacity, tuple(checksums))
            file.truncate(header.file_bytes)
            file.seek(0)
            file.write(header.pack())
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Slab:
        """Map a slab for reading; reads its header only and writes nothing."""
        try:
            with path.open("rb") as file:
                header = SlabHeader.unpack(file.read(HEADER_BYTES), path)
                _check_length(os.fstat(file.fileno()).st_size, header, path)
                shape = (header.n_rows, header.row_length)
                storage = STORAGE[header.dtype]
                if header.n_rows == 0:  # an empty map is refused by the system
                    empty = np.empty(shape, storage)
                    empty.flags.writeable = False
                    return cls(path, header, empty)
                rows = np.memmap(file, storage, "r", HEADER_BYTES, shape)
                return cls(path, header, np.asarray(rows))  # each index into a memmap would make another
        except FileNotFoundError as error:
            raise MissingError(f"{path}: there is no such slab file; {_REMEDY}") from error

    @property
    def nbytes(self) -> int:
        """Bytes of the rows in use."""
        return self.rows.nbytes

    def load(self) -> Shaped[np.ndarray, "n_rows row_length"]:
        """Copy the rows to RAM, writable, checked against the checksums on the way."""
        rows = np.array(self.rows, subok=False)
        for block, checksum in zip(self.header.blocks(), self.header.checksums, strict=True):
            if zlib.crc32(rows[block].data) != checksum:
                raise FormatError(
                    f"{self.path}: rows {block.start}-{block.stop - 1} are damaged "
                    f"(their checksum differs); {_REMEDY}"
                )
        return rows

    def damage(self) -> list[range]:
        """List the runs of rows whose bytes in the file are no longer those written.

        Reads the file afresh, not through the map: a file cut short under a map kills the process that looks.
        """
        damaged = []
        with self.path.open("rb") as file:
            header = SlabHeader.unpack(file.read(HEADER_BYTES), self.path)
            _check_length(os.fstat(file.fileno()).st_size, header, self.path)
            for block, checksum in zip(header.blocks(), header.checksums, strict=True):
                rows = range(block.start, block.stop)
                if zlib.crc32(file.read(len(rows) * header.row_bytes)) != checksum:
                    damaged.append(rows)
        return damaged


def storage_of(rows: np.ndarray, dtype: str) -> np.dtype:
    """Look up how numpy stores `dtype`, refusing an array that is not of it: nothing is converted."""
    if dtype not in STORAGE:
        raise UsageError(f"dtype {dtype!r} cannot be stored; use one of {', '.join(STORAGE)}")
    storage = STORAGE[dtype]
    if rows.dtype.newbyteorder("<") != storage:
        raise UsageError(
            f"an array of {rows.dtype.name} cannot be stored as {dtype}; "
            f"give it as {storage.name}{' bits' if dtype == 'bfloat16' else ''}, or name its own dtype"
        )
    return storage


def _blocks(n_rows: int, capacity: int) -> Iterator[slice]:
    """Blocks depend on the capacity, not on the rows in use, so that an append changes the last ones only."""
    size = max(1, math.ceil(capacity / _MAX_BLOCKS))
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


def _check_arguments(n_rows: int, row_length: int, capacity: int, name: str) -> None:
    if row_length < 1:
        raise UsageError(f"slab {name!r}: rows of length {row_length}; a row holds at least one number")
    if capacity < n_rows:
        raise UsageError(
            f"slab {name!r}: capacity {capacity} for {n_rows} rows; it is to be at least as large"
        )
    if len(name.encode()) > 256 or "\0" in name:
        raise UsageError(
            f"slab name {name!r}: at most 256 bytes of UTF-8 without NUL are allowed; shorten it"
        )


def _check_page(page: bytes, path: Path) -> None:
    """Refuse what is no whole header page of this version."""
    if page[: len(_MAGIC)] != _MAGIC[: len(page)]:
        raise FormatError(f"{path}: is not a slab file (it starts with {page[:8]!r}); {_REMEDY}")
    if len(page) < HEADER_BYTES:
        raise FormatError(f"{path}: is cut off after {len(page)} bytes, within its header; {_REMEDY}")
    version = _FIELDS.unpack_from(page)[1]
    if version != _VERSION:
        raise FormatError(
            f"{path}: is a slab of version {version}, this release reads version {_VERSION}; "
            "install the mindset that wrote it"
        )
    if zlib.crc32(page[:_OWN_CHECKSUM_AT]) != _OWN_CHECKSUM.unpack_from(page, _OWN_CHECKSUM_AT)[0]:
        raise FormatError(f"{path}: its header is damaged (the checksum differs); {_REMEDY}")


def _check_length(n_bytes: int, header: SlabHeader, path: Path) -> None:
    if n_bytes != header.file_bytes:
        state = "cut off" if n_bytes < header.file_bytes else "too long"
        raise FormatError(
            f"{path}: is {state}, {n_bytes} bytes where its header says {header.file_bytes}; {_REMEDY}"
        )
