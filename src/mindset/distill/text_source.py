"""Where text comes from: a file, a range of one file's characters, a folder, or Python's own documentation.

Reads UTF-8 (`.gz` too) and returns documents; knows nothing of tokens. Newlines are left as they stand, so a
character range names the same text on every machine: that is how held-out ranges stay held out. A file that is
named must be readable; inside a folder a file that is no UTF-8 text is left out and listed.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from mindset.distill.stdlib_text import stdlib_documents
from mindset.errors import DataError, UsageError

__all__ = ["STDLIB", "Documents", "TextSource"]

STDLIB = "stdlib"
_SUFFIXES = frozenset({".txt", ".md", ".rst"})
_RANGE = re.compile(r"(?P<path>.+):(?P<start>\d+)-(?P<end>\d*)")


@dataclass(frozen=True)
class Documents:
    """The text of one source, in a fixed order."""

    texts: tuple[str, ...]
    """The documents; none is empty, no two are the same."""
    skipped: tuple[str, ...] = ()
    """Paths of a folder that were left out because they are no UTF-8 text."""


@dataclass(frozen=True)
class TextSource:
    """One place that text is read from."""

    path: str
    """A file, a folder, or `stdlib` for the documentation inside Python's standard library."""
    start: int = 0
    """First character that is read; only for a file."""
    end: int | None = None
    """The character before which reading ends; None reads to the end of the file."""

    def __post_init__(self) -> None:
        if self.start < 0 or (self.end is not None and self.end <= self.start):
            raise UsageError(f"{self}: an empty range; write FILE:START-END, START < END, or FILE:START-")

    def __str__(self) -> str:
        if self.start == 0 and self.end is None:
            return self.path
        return f"{self.path}:{self.start}-{'' if self.end is None else self.end}"

    @classmethod
    def parse(cls, given: str) -> TextSource:
        """`stdlib`, `FOLDER`, `FILE`, `FILE:60000-` or `FILE:60000-120000` (characters)."""
        if not given:
            raise UsageError("an empty name of a text; give a file, FILE:START-END, a folder, or stdlib")
        ranged = _RANGE.fullmatch(given)
        if ranged is None or Path(given).exists():
            return cls(given)
        return cls(ranged["path"], int(ranged["start"]), int(ranged["end"]) if ranged["end"] else None)

    def documents(self) -> Documents:
        """Read everything; raises DataError where there is nothing to read."""
        if self.path == STDLIB:
            self._refuse_a_range("the standard library")
            return Documents(stdlib_documents())
        path = Path(self.path)
        if path.is_dir():
            self._refuse_a_range("a folder")
            return _read_folder(path)
        text = _read_file(path)
        kept = text[self.start : self.end]
        if not kept.strip():
            raise DataError(f"{self}: no text there; the file holds {len(text):,} characters")
        return Documents((kept,))

    def _refuse_a_range(self, what: str) -> None:
        if self.start or self.end is not None:
            raise UsageError(f"{self}: a range of characters needs a single file, and this is {what}")


def _read_file(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        text = data.decode("utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file or folder; give a text file, a folder or stdlib") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text (byte {error.start:,} cannot be read); convert it first, e.g. with iconv"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if "\0" in text:
        raise DataError(f"{path}: a binary file, it holds zero bytes; give UTF-8 text")
    return text


def _read_folder(folder: Path) -> Documents:
    # A dict keeps the order and drops copies: documentation folders repeat whole files.
    texts: dict[str, None] = {}
    skipped = []
    for path in _text_files(folder):
        try:
            text = _read_file(path)
        except DataError:
            skipped.append(str(path))
            continue
        if text.strip():
            texts[text] = None
    if not texts:
        unreadable = f" ({len(skipped)} unreadable)" if skipped else ""
        raise DataError(f"{folder}: holds no text{unreadable}; looked for *.txt, *.md, *.rst, also with .gz")
    return Documents(tuple(texts), tuple(skipped))


def _text_files(folder: Path) -> list[Path]:
    return sorted(
        Path(where, name)
        for where, _, names in os.walk(folder)
        for name in names
        if Path(name.removesuffix(".gz")).suffix in _SUFFIXES
    )
