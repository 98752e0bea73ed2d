"""Which call a tool runs for, so that the calls it makes itself are known as that call's children."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["children_of", "current_parent"]

_parent: ContextVar[int | None] = ContextVar("mindset_parent_call", default=None)


@contextmanager
def children_of(call: int | None) -> Iterator[None]:
    """Calls made inside the block, in tasks and threads begun in it too, have this one as their parent."""
    token = _parent.set(call)
    try:
        yield
    finally:
        _parent.reset(token)


def current_parent() -> int | None:
    """The call that calls made now are children of."""
    return _parent.get()
