"""Conversations that go on: named pointers into the dialog tree, the only rows about dialogs that ever change.

A conversation is a set of branches, each a name and the hash of its last node; the tree below knows nothing of them.
Identity: a branch is called by its number, and by its name within its conversation. Invariant: a pointer moves only
from where its mover believes it to be; two processes that continue one branch end on two branches, never on one
that has lost what the other said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from mindset.calls.schema import now
from mindset.database.engine import dialect_of, reading, writing
from mindset.errors import MissingError, UsageError

__all__ = ["MAIN", "Branch", "Threads"]

MAIN = "main"
"""Name of the branch that a conversation begins with."""

_COLUMNS = "id, conversation, name, tip, model, made, moved"


@dataclass(frozen=True)
class Branch:
    """One line of a conversation, as it was when it was looked up."""

    id: int
    conversation: int
    """Number of the conversation: the id of its first branch."""
    name: str
    tip: str | None
    """Hash of its last node; None before anything was said."""
    model: str
    """MODEL that was last spoken with."""
    made: str
    """When it began, in UTC."""
    moved: str
    """When something was last said here."""


class Threads:
    """The conversations of one database."""

    def __init__(self, engine: sa.Engine) -> None:
        """Over a database whose tables are there."""
        self._engine = engine

    def start(self, model: str, tip: str | None = None) -> Branch:
        """A new conversation."""
        with writing(self._engine) as connection:
            return _insert(connection, None, MAIN, tip, model)

    def branch(self, number: int) -> Branch:
        """One branch by its number."""
        with reading(self._engine) as connection:
            return _get(connection, number)

    def branches(self, conversation: int) -> list[Branch]:
        """All branches of a conversation, oldest first; never none."""
        with reading(self._engine) as connection:
            found = _of(connection, conversation)
        if not found:
            raise MissingError(f"there is no conversation {conversation}")
        return found

    def latest(self, conversation: int | None = None) -> Branch:
        """Where something was said last, in one conversation or in all."""
        if conversation is not None:
            return max(self.branches(conversation), key=lambda branch: (branch.moved, branch.id))
        sql = f"SELECT {_COLUMNS} FROM threads ORDER BY moved DESC, id DESC LIMIT 1"  # noqa: S608 - constants
        with reading(self._engine) as connection:
            row = connection.execute(sa.text(sql)).first()
        if row is None:
            raise MissingError("there is no conversation yet")
        return Branch(*row)

    def recent(self, limit: int = 20) -> list[Branch]:
        """The branch of each conversation where something was said last, latest first."""
        sql = (
            f"SELECT {_COLUMNS} FROM threads t WHERE id = (SELECT id FROM threads o WHERE "  # noqa: S608 - constants
            "o.conversation = t.conversation ORDER BY o.moved DESC, o.id DESC LIMIT 1) "
            "ORDER BY moved DESC, id DESC LIMIT :limit"
        )
        with reading(self._engine) as connection:
            return [Branch(*row) for row in connection.execute(sa.text(sql), {"limit": limit})]

    def fork(self, branch: Branch, tip: str | None, *, name: str | None = None, model: str = "") -> Branch:
        """A new branch of the same conversation; without a name it gets the next free number."""
        with writing(self._engine) as connection:
            return _fork(connection, branch, tip, name, model or branch.model)

    def move(self, branch: Branch, tip: str | None, model: str = "") -> Branch:
        """Let a branch end at `tip`; where another process has moved it meanwhile, a new branch does."""
        sql = (
            "UPDATE threads SET tip = :tip, model = :model, moved = :moved WHERE id = :id "
            "AND (tip = :old OR (tip IS NULL AND CAST(:old AS TEXT) IS NULL))"
        )
        model = model or branch.model
        values = {"tip": tip, "model": model, "moved": now(), "id": branch.id, "old": branch.tip}
        with writing(self._engine) as connection:
            if connection.execute(sa.text(sql), values).rowcount == 0:
                return _fork(connection, _get(connection, branch.id), tip, None, model)
            return _get(connection, branch.id)

    def rename(self, branch: Branch, name: str) -> Branch:
        """Call a branch something else."""
        with writing(self._engine) as connection:
            _alone(connection, branch.conversation)
            _refuse(name, _of(connection, branch.conversation))
            connection.execute(
                sa.text("UPDATE threads SET name = :name WHERE id = :id"), {"name": name, "id": branch.id}
            )
            return _get(connection, branch.id)


def _fork(connection: sa.Connection, branch: Branch, tip: str | None, name: str | None, model: str) -> Branch:
    _alone(connection, branch.conversation)
    others = _of(connection, branch.conversation)
    if name is None:
        taken = {other.name for other in others}
        name = next(str(n) for n in range(len(others) + 1, 2 * len(others) + 2) if str(n) not in taken)
    _refuse(name, others)
    return _insert(connection, branch.conversation, name, tip, model)


def _alone(connection: sa.Connection, conversation: int) -> None:
    """Nobody else names a branch of this conversation until we are done; SQLite has one writer anyway."""
    if dialect_of(connection) == "postgresql":
        connection.execute(sa.text("SELECT id FROM threads WHERE id = :id FOR UPDATE"), {"id": conversation})


def _refuse(name: str, others: Sequence[Branch]) -> None:
    if not name or any(letter.isspace() or not letter.isprintable() for letter in name):
        raise UsageError(f"{name!r} is no name for a branch: give one word")
    if any(other.name == name for other in others):
        raise UsageError(f"there is a branch {name!r} already; give another name")


def _insert(
    connection: sa.Connection, conversation: int | None, name: str, tip: str | None, model: str
) -> Branch:
    values = {"conversation": conversation, "name": name, "tip": tip, "model": model, "now": now()}
    sql = (
        "INSERT INTO threads (conversation, name, tip, model, made, moved) "
        "VALUES (:conversation, :name, :tip, :model, :now, :now) RETURNING id"
    )
    number = connection.execute(sa.text(sql), values).scalar_one()
    if conversation is None:
        connection.execute(sa.text("UPDATE threads SET conversation = id WHERE id = :id"), {"id": number})
    return _get(connection, number)


def _get(connection: sa.Connection, number: int) -> Branch:
    sql = f"SELECT {_COLUMNS} FROM threads WHERE id = :id"  # noqa: S608 - constants
    row = connection.execute(sa.text(sql), {"id": number}).first()
    if row is None:
        raise MissingError(f"there is no branch with number {number}")
    return Branch(*row)


def _of(connection: sa.Connection, conversation: int) -> list[Branch]:
    sql = f"SELECT {_COLUMNS} FROM threads WHERE conversation = :conversation ORDER BY id"  # noqa: S608 - constants
    return [Branch(*row) for row in connection.execute(sa.text(sql), {"conversation": conversation})]
