"""What both sides of `memory.proto` agree on: its version, how large a message may be, and how things are cut to fit.

Knows no message by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol, TypeVar, runtime_checkable

__all__ = ["CHUNK_BYTES", "MESSAGE_BYTES", "PROTOCOL", "Sized", "cut", "pages", "release"]

PROTOCOL = 1
"""Version of `memory.proto`; another one where a client of before would misunderstand."""
MESSAGE_BYTES = 64 << 20
"""The largest message that either side takes."""
CHUNK_BYTES = 1 << 20
"""What a part of a stream is cut to."""


@runtime_checkable
class Sized(Protocol):
    """A message, as far as this file is concerned."""

    def ByteSize(self) -> int:  # noqa: N802  protobuf's name
        """Bytes on the wire."""


M = TypeVar("M", bound=Sized)


def release() -> str:
    """The version of mindset that runs here."""
    try:
        return version("mindset-lm")
    except PackageNotFoundError:
        return "not installed"


def cut(count: int, bytes_each: int) -> Iterator[slice]:
    """The parts of `count` things, at least one part."""
    step = max(1, CHUNK_BYTES // max(1, bytes_each))
    for start in range(0, max(1, count), step):
        yield slice(start, start + step)


def pages(things: Iterable[M]) -> Iterator[list[M]]:
    """Messages in parts that are small enough to send; one that is larger goes alone."""
    some: list[M] = []
    size = 0
    for thing in things:
        bytes_of = thing.ByteSize()
        if some and size + bytes_of > CHUNK_BYTES:
            yield some
            some, size = [], 0
        some.append(thing)
        size += bytes_of
    if some:
        yield some
