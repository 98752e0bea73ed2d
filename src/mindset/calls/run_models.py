"""Which models a recorded run asked, in the order in which it first did."""

from __future__ import annotations

import sqlalchemy as sa

from mindset.calls.log import CallLog
from mindset.calls.schema import CALLS
from mindset.database.engine import reading

__all__ = ["run_models"]


def run_models(log: CallLog, run: str) -> tuple[str, ...]:
    """MODEL of every call of a run, given by its id or name."""
    found = log.run_id(run)
    first = sa.func.min(CALLS.c.id)
    wanted = sa.select(CALLS.c.model).where(CALLS.c.run == found).group_by(CALLS.c.model).order_by(first)
    with reading(log.engine) as connection:
        return tuple(connection.execute(wanted).scalars())
