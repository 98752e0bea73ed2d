"""What a deleted node leaves in calls: words in the search, pieces of an answer, results; and how they go too."""

from __future__ import annotations

import json

import sqlalchemy as sa

from mindset.calls.call import NewNode
from mindset.calls.schema import CALLS, NODES, PIECES, TEXTS
from mindset.calls.words import SEARCHED, new_words, words_of

__all__ = ["below", "searched", "wipe"]


def below(node: str) -> sa.CTE:
    """A node and all that hangs below it, as a table with `hash`."""
    found = sa.select(NODES.c.hash).where(NODES.c.hash == node).cte("below", recursive=True)
    return found.union_all(sa.select(NODES.c.hash).where(NODES.c.parent == found.c.hash))


def searched(text: str) -> str:
    """As much of a text as the search takes; PostgreSQL has no letter 0."""
    return text[:SEARCHED].replace("\x00", " ")


def wipe(connection: sa.Connection, node: str) -> None:
    """Bring the words of calls up to what the nodes still hold, after `node` was deleted."""
    branch = sa.select(below(node).c.hash)
    touched = sa.select(CALLS.c.id, CALLS.c.asked, CALLS.c.answered).where(
        sa.or_(CALLS.c.asked.in_(branch), CALLS.c.answered.in_(branch))
    )
    for call, asked, answered in connection.execute(touched).all():
        question = _kept(connection, asked, None)
        answer = [] if answered is None else _kept(connection, answered, asked)
        row = {"prompt": searched(new_words(_whole(question))), "answer": searched(words_of(_whole(answer)))}
        connection.execute(sa.update(TEXTS).where(TEXTS.c.id == call).values(row))
        if any(kept is None for kept in answer):
            connection.execute(sa.delete(PIECES).where(PIECES.c.call == call))
            connection.execute(sa.update(CALLS).where(CALLS.c.id == call).values(result="null"))


def _kept(connection: sa.Connection, tip: str | None, above: str | None) -> list[NewNode | None]:
    """The nodes of a path from its upper end; None in the place of one that was deleted."""
    kept: list[NewNode | None] = []
    while tip is not None and tip != above:
        row = connection.execute(sa.select(NODES).where(NODES.c.hash == tip)).one()
        kept.append(None if row.content is None else NewNode(row.kind, json.loads(row.content)))
        tip = row.parent
    return kept[::-1]


def _whole(nodes: list[NewNode | None]) -> list[NewNode]:
    return [node for node in nodes if node is not None]
