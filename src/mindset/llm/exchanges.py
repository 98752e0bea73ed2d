"""A dialog as people count it: exchanges, each a question with all that was said until the next one.

Branches that share their beginning become one tree of exchanges. Does not know a database or a client. Invariant: the
nodes of a path's exchanges, one after another, are the path.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mindset.calls.call import NewNode
from mindset.calls.tree import Node
from mindset.llm.messages import Message, from_nodes

__all__ = ["Exchange", "Fork", "exchanges", "grow"]


@dataclass(frozen=True)
class Exchange:
    """A question, its answer, and the tools that ran between them."""

    nodes: tuple[Node, ...]

    @property
    def tip(self) -> str:
        """Hash of its last node."""
        return self.nodes[-1].hash

    @property
    def whole(self) -> bool:
        """Whether nothing of it was deleted."""
        return all(node.content is not None for node in self.nodes)

    @property
    def messages(self) -> tuple[Message, ...]:
        """What is left of it."""
        return from_nodes([NewNode(n.kind, n.content) for n in self.nodes if n.content is not None])

    @property
    def asks(self) -> bool:
        """Whether it begins with a question; what stands before the first one does not."""
        return _role(self.nodes[0], None) == "user"

    @property
    def question(self) -> str:
        """The words asked; empty where they were deleted, or nobody asked."""
        return next((m.text for m in self.messages[:1] if m.role == "user"), "")

    @property
    def answer(self) -> str:
        """The words answered."""
        return "\n".join(m.text for m in self.messages if m.role == "assistant" and m.text)


@dataclass
class Fork:
    """An exchange, and what came after it on all branches."""

    exchange: Exchange
    after: list[Fork] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """Branches that end here."""


def exchanges(path: Sequence[Node]) -> list[Exchange]:
    """The exchanges of a path; what stands before the first question is one, without a question."""
    groups: list[list[Node]] = []
    last: Node | None = None
    for node in path:
        if _role(node, last) == "user" or not groups:
            groups.append([])
        groups[-1].append(node)
        last = node
    return [Exchange(tuple(group)) for group in groups]


def grow(branches: Iterable[tuple[str, Sequence[Exchange]]]) -> list[Fork]:
    """Branches, each by its name and exchanges, as one tree; an empty branch is nowhere in it."""
    roots: list[Fork] = []
    for name, line in branches:
        among, last = roots, None
        for exchange in line:
            last = next((fork for fork in among if fork.exchange.tip == exchange.tip), None)
            if last is None:
                last = Fork(exchange)
                among.append(last)
            among = last.after
        if last is not None:
            last.names.append(name)
    return roots


def _role(node: Node, before: Node | None) -> str:
    """Who spoke; of a deleted message it is only known what it must have been."""
    if node.kind != "message":
        return "tool"
    if node.content is not None:
        return str(node.content.get("role", ""))
    waits = before is not None and before.kind == "message" and (before.content or {}).get("role") == "user"
    between = before is not None and before.kind in ("tool_result", "tool_call")
    return "assistant" if waits or between else "user"
