"""Calls found by the words of what was asked and answered, latest first. The query is that of `database.fulltext`."""

from __future__ import annotations

import re
from dataclasses import dataclass

import sqlalchemy as sa

from mindset.calls.log import CallLog
from mindset.calls.schema import CALLS, TEXT_INDEX, TEXTS
from mindset.database.engine import reading
from mindset.database.fulltext import parse_query

__all__ = ["Found", "search"]

AROUND = 40
"""Letters shown on each side of what was found."""


@dataclass(frozen=True)
class Found:
    """One call that holds the words."""

    call: int
    began: str
    """When, in UTC."""
    model: str
    prompt: str
    answer: str

    def excerpt(self, query: str) -> str:
        """The place where the first of the words stands."""
        words = [
            word for terms in parse_query(query) for term in terms if not term.without for word in term.words
        ]
        for text in (self.prompt, self.answer):
            match = re.search("|".join(rf"\b{re.escape(word)}" for word in words), text, re.IGNORECASE)
            if match is not None:
                start, end = max(match.start() - AROUND, 0), match.end() + AROUND
                return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"
        return self.prompt[: 2 * AROUND]


def search(log: CallLog, query: str, limit: int = 20) -> list[Found]:
    """The latest calls that hold all the words."""
    with reading(log.engine) as connection:
        wanted = (
            sa.select(CALLS.c.id, CALLS.c.began, CALLS.c.model, TEXTS.c.prompt, TEXTS.c.answer)
            .select_from(CALLS.join(TEXTS, CALLS.c.id == TEXTS.c.id))
            .where(TEXT_INDEX.condition(connection, query))
            .order_by(CALLS.c.id.desc())
            .limit(limit)
        )
        return [Found(*row) for row in connection.execute(wanted)]
