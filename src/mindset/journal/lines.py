"""A file of lines that only grows: each is JSON with a checksum, and is on the disk before `append` returns.

A kill in the middle of a line leaves a torn one at the end, which is not read and is cut off by the next writer. A
damaged line anywhere else is an error: what followed it cannot be trusted.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from mindset.atomic_file import naming_a_full_disk, replacing
from mindset.errors import FormatError

__all__ = ["append", "read", "rewrite"]


def read(path: Path) -> list[dict[str, Any]]:
    """Every whole line, oldest first; none where there is no file."""
    return [data for data, _ in _whole(path)]


def append(path: Path, data: dict[str, Any]) -> None:
    """Add one line, after the last whole one; where there is no room nothing is added."""
    lines = _whole(path)
    end = lines[-1][1] if lines else 0
    existed = path.exists()
    with naming_a_full_disk(path), path.open("r+b" if existed else "xb") as file:
        file.truncate(end)
        file.seek(end)
        try:
            file.write(_line(data))
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def rewrite(path: Path, every: list[dict[str, Any]]) -> None:
    """Put other lines in place of all, at once."""
    with replacing(path) as file:
        for data in every:
            file.write(_line(data))


def _line(data: dict[str, Any]) -> bytes:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    return f"{zlib.crc32(text):08x} ".encode() + text + b"\n"


def _whole(path: Path) -> list[tuple[dict[str, Any], int]]:
    """Each line's data and the byte after it."""
    if not path.exists():
        return []
    content, start, found = path.read_bytes(), 0, []
    while (end := content.find(b"\n", start)) >= 0:
        data = _parsed(content[start:end])
        if data is None:
            if end + 1 == len(content):  # the last write was torn
                break
            raise FormatError(f"{path} is damaged at byte {start}; restore it from a copy")
        found.append((data, end + 1))
        start = end + 1
    return found


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        if int(line[:8], 16) != zlib.crc32(line[9:]):
            return None
        data = json.loads(line[9:])
    except ValueError:
        return None
    return data if isinstance(data, dict) else None
