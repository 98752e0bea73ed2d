"""One writer in a folder: whoever edits a model folder holds its lock; readers need none.

The lock is the operating system's and ends with its process, however that ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mindset.errors import BusyError

__all__ = ["writing_in"]

NAME = ".lock"


@contextmanager
def writing_in(folder: Path, wait_seconds: float = 10.0) -> Iterator[None]:
    """Be the only writer in `folder`; the same process may enter again inside."""
    lock = FileLock(Path(folder) / NAME, is_singleton=True)
    try:
        lock.acquire(timeout=wait_seconds)
    except Timeout as error:
        raise BusyError(f"{folder}: another process is writing there; try again when it is done") from error
    try:
        yield
    finally:
        lock.release()
