"""The conversations that a log holds, the latest first: what each began with, and how far it went.

Knows the tree and its branches; does not know clients.
"""

from __future__ import annotations

from dataclasses import dataclass

from mindset.calls.log import CallLog
from mindset.calls.threads import Threads
from mindset.llm.exchanges import exchanges

__all__ = ["Remembered", "remembered"]


@dataclass(frozen=True)
class Remembered:
    """A conversation, by the branch on which something was said last."""

    id: int
    """What `--cid` takes."""
    moved: str
    """When something was said last, in UTC."""
    model: str
    """MODEL that it was held with last."""
    branches: int
    exchanges: int
    """On that branch."""
    question: str
    """The first one on it; empty where it was deleted."""


def remembered(log: CallLog, limit: int = 20) -> list[Remembered]:
    """The latest conversations in which something was said."""
    threads = Threads(log.engine)
    found: list[Remembered] = []
    for branch in threads.recent(limit):
        said = [e for e in exchanges(log.tree.path(branch.tip) if branch.tip else []) if e.asks]
        if said:
            count = len(threads.branches(branch.conversation))
            first = said[0].question
            found.append(Remembered(branch.conversation, branch.moved, branch.model, count, len(said), first))
    return found
