"""A file that appears under its name complete, or not at all.

It is written beside its place under a temporary name, forced to the disk and renamed. A kill in the middle
leaves at most a hidden `.NAME.XXXX.tmp`, which nothing ever opens. Knows nothing of what is in the file.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mindset.errors import DiskFullError

__all__ = ["TEMPORARY_SUFFIX", "naming_a_full_disk", "replacing"]

TEMPORARY_SUFFIX = ".tmp"

# No space, no quota left, and a file larger than the process or the file system allows.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new binary file that takes the name `path` when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    with naming_a_full_disk(path):
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)


@contextmanager
def naming_a_full_disk(path: Path) -> Iterator[None]:
    """Turn the system's ways of saying "no room" into one DiskFullError about `path`."""
    try:
        yield
    except DiskFullError:
        raise
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        full = DiskFullError(
            f"{path}: cannot be written, {os.strerror(error.errno).lower()}; "
            "nothing of it is left; free some space or choose another place"
        )
        full.errno = error.errno
        raise full from error


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut; Windows has no handle on folders and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
