"""The dialog tree: nodes of an open set of kinds, each called by the hash of its kind, its content and its parent.

What was said once is one node, so dialogs that begin alike share their beginnings, and a fork is a second child. A node
never changes. Deleting one takes its content away and leaves its hash, its parent and a seal over both, so that the
hashes of all that hangs below still come out.

Identity: the 40 digits of `canonical.node_hash`; when a node was made is no part of it. Contents are stored in their
one canonical spelling, so a byte that was changed is found. Knows only the tables of the log, in which calls name
nodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mindset.calls import traces
from mindset.calls.call import NewNode
from mindset.calls.canonical import Json, canonical, digest, spelled_node_hash
from mindset.calls.schema import NODES, now
from mindset.database.engine import reading, writing
from mindset.database.spelled import Spelled
from mindset.errors import DataError, MissingError, UsageError

__all__ = ["Node", "Tree", "Verified", "chain", "put"]

SHORTEST = 6
"""Digits of a hash at least, where it is abbreviated."""
BATCH = 500
"""Rows in one question."""
FEW = 4
"""Nodes that are sooner put than looked for."""
NEAR = 2
"""Nodes that a dialog grows by, mostly."""


@dataclass(frozen=True)
class Node:
    """A node as it is found."""

    hash: str
    kind: str
    content: dict[str, Json] | None
    """None: it was deleted."""
    parent: str | None
    """Hash of the one above; None at a root."""
    created: str
    deleted: str | None = None
    """When its content was taken away."""

    @classmethod
    def of(cls, row: Any) -> Node:
        """A row of the table."""
        content = None if row.content is None else json.loads(row.content)
        return cls(row.hash, row.kind, content, row.parent, row.created, row.deleted)


@dataclass(frozen=True)
class Verified:
    """What a look at every node found."""

    nodes: int
    tombstones: tuple[str, ...]
    """Hashes of nodes without content."""
    problems: tuple[str, ...]
    """One sentence for each node that is not what its hash says."""


class Tree:
    """The tree in one database, which the log has made."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    # ---- changing -----------------------------------------------------------------------------------------------

    def add(self, kind: str, content: Mapping[str, Json], parent: str | None = None) -> str:
        """The hash of a node that is there from now on, if it was not yet; one that was deleted is whole again."""
        with writing(self.engine) as connection:
            if parent is not None:
                _get(connection, parent)
            return put(connection, [NewNode(kind, content)], parent) or ""

    def delete(self, node: str) -> Node:
        """Take the content of a node away, and its words out of every call that held them; returns what is left."""
        with writing(self.engine) as connection:
            found = _get(connection, node)
            if found.deleted is None:
                when = now()
                row = {"content": None, "deleted": when, "seal": _seal(node, found.kind, found.parent, when)}
                connection.execute(sa.update(NODES).where(NODES.c.hash == node).values(row))
                traces.wipe(connection, node)
            return _get(connection, node)

    # ---- looking ------------------------------------------------------------------------------------------------

    def get(self, node: str) -> Node:
        """One node."""
        with reading(self.engine) as connection:
            return _get(connection, node)

    def find(self, beginning: str) -> str:
        """The hash that begins so."""
        known = f"{beginning!r} begins no hash in the tree"
        if len(beginning) < SHORTEST or not all(digit in "0123456789abcdef" for digit in beginning):
            raise MissingError(f"{known}; give {SHORTEST} digits or more")
        wanted = sa.select(NODES.c.hash).where(NODES.c.hash >= beginning, NODES.c.hash < beginning + "g")
        with reading(self.engine) as connection:
            found = connection.execute(wanted.limit(2)).scalars().all()
        if len(found) > 1:
            raise UsageError(f"{beginning!r} begins more than one hash; give more digits")
        if not found:
            raise MissingError(known)
        return str(found[0])

    def path(self, node: str) -> list[Node]:
        """From the root to a node."""
        with reading(self.engine) as connection:
            _get(connection, node)
            return chain(connection, node)

    def children(self, node: str | None) -> list[Node]:
        """What hangs below a node, or the roots (None), oldest first."""
        return self._nodes(NODES.c.parent.is_(None) if node is None else NODES.c.parent == node)

    def tips(self, under: str | None = None) -> list[Node]:
        """Nodes with nothing below them, oldest first; `under`: of this node's branches only."""
        below = NODES.alias("below")
        tip = ~sa.exists().where(below.c.parent == NODES.c.hash)
        if under is None:
            return self._nodes(tip)
        return self._nodes(sa.and_(tip, NODES.c.hash.in_(sa.select(traces.below(under).c.hash))))

    def verify(self) -> Verified:
        """Derive every hash again."""
        nodes, tombstones, problems = 0, [], []
        with reading(self.engine) as connection:
            for row in _every_row(connection):
                nodes += 1
                if row.deleted is not None:
                    tombstones.append(str(row.hash))
                if wrong := _wrong(row):
                    problems.append(f"node {row.hash}: {wrong}")
        return Verified(nodes, tuple(tombstones), tuple(problems))

    def _nodes(self, which: sa.ColumnElement[bool]) -> list[Node]:
        wanted = sa.select(NODES).where(which).order_by(NODES.c.created, NODES.c.hash)
        with reading(self.engine) as connection:
            return [Node.of(row) for row in connection.execute(wanted)]


# ---- inside a transaction ------------------------------------------------------------------------------------------


def put(connection: sa.Connection, nodes: Sequence[NewNode], parent: str | None) -> str | None:
    """Hang nodes below each other, the first one below `parent`; returns the last one's hash, or `parent` for none."""
    rows, when = [], now()
    for node in nodes:
        if not node.kind or not node.kind.isprintable():
            raise DataError(f"{node.kind!r} is no kind of node: give a word")
        content = canonical(dict(node.content))
        made = spelled_node_hash(node.kind, content, parent)
        rows.append(
            {"hash": made, "kind": node.kind, "content": content.decode(), "parent": parent, "created": when}
        )
        parent = made
    new = _first_new(connection, rows)
    if new < len(rows):
        _PUT.run(connection, rows[new:])
    return parent


def chain(connection: sa.Connection, tip: str | None, above: str | None = None) -> list[Node]:
    """The nodes from below `above` (None: from the root) down to `tip`."""
    if tip is None or tip == above:
        return []
    rows = _CHAIN.run(connection, {"tip": tip, "above": above or ""}).all()
    return [Node.of(row) for row in reversed(rows)]


_PUT = Spelled(
    "INSERT INTO nodes (hash, kind, content, parent, created) VALUES (:hash, :kind, :content, :parent, :created) "
    "ON CONFLICT (hash) DO UPDATE SET content = excluded.content, deleted = NULL, seal = NULL "
    "WHERE nodes.deleted IS NOT NULL"
)
_FOUND = Spelled(
    "SELECT (SELECT 1 FROM nodes WHERE hash = :hash) AS found, "
    "(SELECT 1 FROM nodes WHERE deleted IS NOT NULL LIMIT 1) AS deletions"
)
_CHAIN = Spelled(
    "WITH RECURSIVE up (hash, kind, content, parent, created, deleted, depth) AS ("
    "SELECT hash, kind, content, parent, created, deleted, 0 FROM nodes WHERE hash = :tip UNION ALL "
    "SELECT n.hash, n.kind, n.content, n.parent, n.created, n.deleted, up.depth + 1 FROM nodes n "
    "JOIN up ON n.hash = up.parent AND n.hash <> :above) SELECT * FROM up ORDER BY depth"
)


def _first_new(connection: sa.Connection, rows: Sequence[dict[str, str | None]]) -> int:
    """Place behind the last row that is in the tree; what is there has all that is above it.

    Dialogs grow at their end, so that is tried first, and the rest is halved. Where nodes were deleted, any of those
    above may have to be made whole, so all count as new.
    """
    if len(rows) <= FEW:
        return 0
    low, high = 0, len(rows)  # all before `low` are there, none from `high` on
    while low < high:
        place = high if len(rows) - high < NEAR else (low + high + 1) // 2
        seen = _FOUND.run(connection, {"hash": rows[place - 1]["hash"]}).one()
        if seen.deletions:
            return 0
        low, high = (place, high) if seen.found else (low, place - 1)
    return low


def _get(connection: sa.Connection, node: str) -> Node:
    row = connection.execute(sa.select(NODES).where(NODES.c.hash == node)).one_or_none()
    if row is None:
        raise MissingError(f"there is no node {node} in the tree")
    return Node.of(row)


# ---- verifying -----------------------------------------------------------------------------------------------------


def _every_row(connection: sa.Connection) -> Iterator[Any]:
    above = NODES.alias("above")
    wanted = (
        sa.select(NODES, above.c.hash.label("found"))
        .select_from(NODES.outerjoin(above, NODES.c.parent == above.c.hash))
        .order_by(NODES.c.hash)
    )
    yield from connection.execution_options(yield_per=BATCH).execute(wanted)


def _wrong(row: Any) -> str | None:
    """What is wrong with a row, or None."""
    if row.parent is not None and row.found is None:
        return f"hangs below {row.parent}, which is not there"
    if row.deleted is not None:
        whole = row.content is None and row.seal == _seal(row.hash, row.kind, row.parent, row.deleted)
        return None if whole else "was deleted, and is not what was left then"
    if row.content is None or row.seal is not None:
        return "is half deleted"
    return None if _derived(row) == row.hash else "its kind, content or parent is not what it was made of"


def _derived(row: Any) -> str | None:
    """The hash of what is stored; of its bytes as they are, not of what they mean."""
    try:
        content = canonical(json.loads(row.content))
        return spelled_node_hash(row.kind, content, row.parent) if content.decode() == row.content else None
    except (ValueError, TypeError):
        return None


def _seal(node: str, kind: str, parent: str | None, deleted: str) -> str:
    return digest(["deleted", node, kind, parent, deleted])
