"""A slot's record, and what is given to make or change one, as plain data.

Knows neither SQL nor files. Vectors travel apart from records, as arrays `[n, d]`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64

from mindset.errors import UsageError

__all__ = ["Change", "Citation", "Ids", "NewSlot", "SlotRecord"]

Ids = Sequence[int] | Int64[np.ndarray, " n"]
"""Slots by their names."""

_TAG = re.compile(r"[^\s,]{1,64}")


@dataclass(frozen=True)
class Citation:
    """Where a slot was learned: a range of a source's text."""

    source: int
    """Id of the source."""
    start: int | None = None
    """First character; None: the whole source."""
    stop: int | None = None
    """Character after the last."""

    def __post_init__(self) -> None:
        if (self.start is None) != (self.stop is None):
            raise UsageError("a citation has both a start and a stop, or neither")
        if self.start is not None and self.stop is not None and not 0 <= self.start <= self.stop:
            raise UsageError(f"a citation from {self.start} to {self.stop}; give 0 <= start <= stop")


@dataclass(frozen=True)
class NewSlot:
    """What a slot that is inserted is, besides its vectors."""

    head: int = 0
    """Head of its bank, from 0."""
    cites: Citation | None = None
    """Where it was learned."""
    label: str = ""
    """What people call it."""
    tags: tuple[str, ...] = ()
    """Words to find it by: no spaces, no commas."""
    pinned: bool = False
    """Whether it is never evicted."""
    weight: float = 1.0
    """Multiplies what it adds; 1 for a slot as it was learned, 0 for a suppressed one."""
    created: str | None = None
    """ISO 8601, UTC; None: now."""

    def __post_init__(self) -> None:
        check_tags(self.tags)


@dataclass(frozen=True)
class SlotRecord:
    """All that is known of a slot."""

    id: int
    """Its name, never used again."""
    layer: int
    shard: str
    """`base`, `new` or the overlay's name."""
    head: int
    row: int
    """Where its vectors lie in its shard."""
    created: str
    """ISO 8601, UTC; of the slot, not of its last change."""
    cites: Citation | None
    label: str
    tags: tuple[str, ...]
    pinned: bool
    weight: float


@dataclass(frozen=True)
class Change:
    """New values for some attributes of a slot; None leaves one as it is."""

    label: str | None = None
    tags: tuple[str, ...] | None = None
    pinned: bool | None = None
    weight: float | None = None
    cites: Citation | None = field(default=None)

    def __post_init__(self) -> None:
        check_tags(self.tags or ())

    def given(self) -> dict[str, object]:
        """The attributes that are given."""
        return {name: value for name, value in vars(self).items() if value is not None}


def check_tags(tags: tuple[str, ...]) -> None:
    """Refuse what could not be told apart in a list."""
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise UsageError(f"tag {tag!r}: 1 to 64 characters without spaces and commas are allowed")
