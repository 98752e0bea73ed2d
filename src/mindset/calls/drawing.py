"""A part of the dialog tree as lines of text: what was said, where it forks, and which calls asked and answered.

A dialog without forks is a column; at a fork each branch is drawn below its sign. Of a tree with more nodes than are
shown, the path to the wanted node is drawn, what hangs below it, and how many branches were left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from mindset.calls.call import NewNode
from mindset.calls.log import CallLog
from mindset.calls.schema import CALLS, NODES
from mindset.calls.traces import below
from mindset.calls.tree import Node
from mindset.calls.words import words_of
from mindset.database.engine import reading
from mindset.errors import MissingError

__all__ = ["Drawn", "drawn", "node_named"]

MOST = 200
"""Nodes that are drawn whole."""
WORDS = 72
"""Letters of a node's words."""
HASH = 8


@dataclass(frozen=True)
class Drawn:
    """A node in a drawing."""

    node: Node
    signs: str
    """What stands before it: the lines of the branches around it."""
    calls: tuple[int, ...]
    """Ids of the calls whose answer ends here."""
    left_out: int = 0
    """Branches below it that are not drawn."""

    @property
    def line(self) -> str:
        """As text."""
        told = f"{self.signs}{self.node.hash[:HASH]}  {_speaker(self.node)}: {_words(self.node)}"
        calls = f"   [call {', '.join(map(str, self.calls))}]" if self.calls else ""
        more = f"   (+ {self.left_out} branches)" if self.left_out else ""
        return told + calls + more


def node_named(log: CallLog, name: str) -> str:
    """The node that a call's id means (its answer's last, or what it asked), or the beginning of a hash."""
    if not name.isdecimal() or len(name) > 9:
        return log.tree.find(name)
    with reading(log.engine) as connection:
        row = connection.execute(
            sa.select(CALLS.c.asked, CALLS.c.answered).where(CALLS.c.id == int(name))
        ).one_or_none()
    if row is None:
        raise MissingError(
            f"there is no call {name} in the log, and the beginning of a hash has letters or more digits"
        )
    tip = row.answered or row.asked
    if tip is None:
        raise MissingError(f"call {name} has no dialog: it asked for something else")
    return str(tip)


def drawn(log: CallLog, node: str) -> list[Drawn]:
    """The whole dialog that a node belongs to, from its root."""
    path = log.tree.path(node)
    with reading(log.engine) as connection:
        nodes = _below(connection, path[0].hash)
        if len(nodes) > MOST:
            nodes = list({one.hash: one for one in [*path, *_below(connection, node)]}.values())
        children: defaultdict[str | None, list[Node]] = defaultdict(list)
        for one in nodes:
            children[one.parent].append(one)
        hashes = [one.hash for one in nodes]
        calls, degrees = _calls(connection, hashes), _degrees(connection, hashes)
    return [
        Drawn(one, signs, tuple(calls[one.hash]), degrees.get(one.hash, 0) - len(children[one.hash]))
        for one, signs in _walked(path[0], children)
    ]


def _walked(root: Node, children: dict[str | None, list[Node]]) -> Iterator[tuple[Node, str]]:
    """Nodes with the signs before them, deepest branches last; no recursion, dialogs are long."""
    waiting = [(root, "", "")]
    while waiting:
        node, signs, after = waiting.pop()
        yield node, signs
        branches = children[node.hash]
        if len(branches) == 1:
            waiting.append((branches[0], after, after))
            continue
        for place, branch in reversed(list(enumerate(branches))):
            last = place == len(branches) - 1
            waiting.append((branch, after + ("└─ " if last else "├─ "), after + ("   " if last else "│  ")))


def _below(connection: sa.Connection, node: str) -> list[Node]:
    wanted = sa.select(NODES).where(NODES.c.hash.in_(sa.select(below(node).c.hash).limit(MOST + 1)))
    rows = connection.execute(wanted.order_by(NODES.c.created, NODES.c.hash)).all()
    return [Node.of(row) for row in rows]


def _calls(connection: sa.Connection, hashes: Sequence[str]) -> defaultdict[str, list[int]]:
    found: defaultdict[str, list[int]] = defaultdict(list)
    wanted = sa.select(CALLS.c.id, CALLS.c.answered).where(CALLS.c.answered.in_(hashes)).order_by(CALLS.c.id)
    for call, answered in connection.execute(wanted):
        found[answered].append(int(call))
    return found


def _degrees(connection: sa.Connection, hashes: Sequence[str]) -> dict[str, int]:
    wanted = (
        sa.select(NODES.c.parent, sa.func.count()).where(NODES.c.parent.in_(hashes)).group_by(NODES.c.parent)
    )
    return {str(parent): int(count) for parent, count in connection.execute(wanted)}


def _speaker(node: Node) -> str:
    role = (node.content or {}).get("role")
    return role if node.kind == "message" and isinstance(role, str) else node.kind


def _words(node: Node) -> str:
    if node.content is None:
        return "(deleted)"
    words = " ".join(words_of([NewNode(node.kind, node.content)]).split())
    return words if len(words) <= WORDS else f"{words[:WORDS]}…"
