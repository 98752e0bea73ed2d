"""Where the log is kept: `calls.sqlite` in the user's folder, or the database that `MINDSET_CALLS` names by its URL.

What is made here is for its owner only: the folder 0700, the file 0600 (and what SQLite puts beside it).
"""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa

from mindset import places
from mindset.atomic_file import naming_a_full_disk
from mindset.database.engine import sqlite_url
from mindset.errors import ReadOnlyError, UsageError

__all__ = ["VARIABLE", "file_of", "identity", "log_url", "make_place"]

VARIABLE = "MINDSET_CALLS"
"""Environment variable: URL of the log's database."""


def log_url(url: str | None = None) -> sa.URL:
    """The URL that is meant; a file's path in it is absolute."""
    given = url or os.environ.get(VARIABLE)
    if not given:
        return sqlite_url(_default())
    try:
        parsed = sa.make_url(given)
    except sa.exc.ArgumentError as error:
        raise UsageError(
            f"{given!r} is no database URL for the log; write sqlite:///PATH or postgresql://HOST/NAME"
        ) from error
    path = file_of(parsed)
    return parsed if path is None else parsed.set(database=str(path.expanduser().absolute()))


def file_of(url: sa.URL) -> Path | None:
    """The file of an SQLite database; None for other kinds."""
    named = url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:"
    return Path(str(url.database)) if named else None


def identity(url: sa.URL) -> tuple[int, int] | None:
    """Which file it is, so that another one under its name is noticed; None where there is none."""
    path = file_of(url)
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def make_place(url: sa.URL) -> None:
    """Make an SQLite database's file, and in the user's folder the folder too; others are somebody else's to make."""
    path = file_of(url)
    if path is None or path.exists():
        return
    try:
        with naming_a_full_disk(path):
            if path == _default():
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except FileNotFoundError:
        return  # no such folder: whoever opens the database says so
    except OSError as error:
        raise ReadOnlyError(
            f"{path}: the log cannot be made there ({os.strerror(error.errno or 0).lower()}); "
            f"{VARIABLE}=sqlite:///PATH names another place"
        ) from error


def _default() -> Path:
    return places.home() / "calls.sqlite"
