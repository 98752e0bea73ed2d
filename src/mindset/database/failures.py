"""What databases say when something is wrong, as errors of ours: one sentence, no password, no statement.

Knows messages and error codes; knows nothing of what is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from mindset.errors import BusyError, DiskFullError, FormatError, MindsetError, MissingError, ReadOnlyError

__all__ = ["naming_failures"]

_SAID: tuple[tuple[tuple[str, ...], type[MindsetError], str], ...] = (
    (("is locked", "is busy"), BusyError, "another process is writing; try again"),
    (("is full",), DiskFullError, "no space left; nothing of this change was kept"),
    (("disk i/o error",), DiskFullError, "the disk takes no more, or fails; nothing of this change was kept"),
    (("readonly", "read-only"), ReadOnlyError, "opened for reading only, or not writable here"),
    (("not a database", "malformed"), FormatError, "damaged, or no database; restore a copy"),
    (("unable to open",), MissingError, "cannot be opened; is there such a file, and may you read it?"),
)
"""What SQLite's messages contain."""

_CODES: dict[str, tuple[type[MindsetError], str]] = {
    "53100": (DiskFullError, "no space left; nothing of this change was kept"),
    "25006": (ReadOnlyError, "opened for reading only"),
    "55P03": (BusyError, "another process is writing; try again"),
    "40001": (BusyError, "another process changed the same; try again"),
    "40P01": (BusyError, "another process changed the same; try again"),
    "3D000": (MissingError, "there is no database of this name"),
}
"""PostgreSQL's codes (its documentation, appendix A)."""


@contextmanager
def naming_failures(url: sa.URL) -> Iterator[None]:
    """Turn a database's errors about place, room and rights into ours; mistakes in a statement stay as they are."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        known = _meaning(error)
        if known is None:
            raise
        kind, sentence = known
        raise kind(f"{_name(url)}: {sentence}") from error


def _meaning(error: sa.exc.DBAPIError) -> tuple[type[MindsetError], str] | None:
    code = getattr(error.orig, "sqlstate", None)
    if code in _CODES:
        return _CODES[code]
    if isinstance(error, sa.exc.OperationalError) and hasattr(error.orig, "sqlstate") and code is None:
        return MissingError, "no server answers there; is it running?"
    said = str(error.orig).lower()
    for parts, kind, sentence in _SAID:
        if isinstance(error, sa.exc.DatabaseError) and any(part in said for part in parts):
            return kind, sentence
    return None


def _name(url: sa.URL) -> str:
    """A file's path, or a URL without its password."""
    return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string()
