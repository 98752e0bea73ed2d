"""What calls cost, together: by model, by day or by run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from mindset.calls.listing import Wanted, conditions
from mindset.calls.log import CallLog
from mindset.calls.schema import CALLS, RUNS
from mindset.database.engine import reading

__all__ = ["By", "Cost", "costs"]

EVERYTHING = Wanted()
By = Literal["model", "day", "run"]


@dataclass(frozen=True)
class Cost:
    """What the calls of one model, day or run cost."""

    name: str
    """MODEL; the day in UTC; the run's name."""
    run: str | None
    """Id of the run, where it is one."""
    calls: int
    failed: int
    """Of them, those that failed, were cancelled or refused."""
    prompt_tokens: int
    completion_tokens: int
    cost: float
    """US dollars, of those whose price is known."""
    unpriced: int
    """Calls whose price nobody knows."""
    seconds: float
    """From being asked to the end, waiting included."""
    local_seconds: float
    """Seconds of computing here."""


def costs(log: CallLog, by: By = "model", wanted: Wanted = EVERYTHING) -> list[Cost]:
    """Dearest first; days and runs newest first. `wanted` counts all its calls, and knows no words here."""
    keys: dict[By, list[sa.ColumnElement[Any]]] = {
        "model": [CALLS.c.model],
        "day": [sa.func.substr(CALLS.c.began, 1, 10)],
        "run": [CALLS.c.run, RUNS.c.name],
    }
    group = keys[by]
    name, run = (group[1], group[0]) if by == "run" else (group[0], sa.null())
    ended_badly = CALLS.c.status.in_(("failed", "cancelled", "refused"))
    over = CALLS.c.status != "running"
    cost = _sum(CALLS.c.cost)
    question = (
        sa.select(
            name.label("name"),
            run.label("run"),
            sa.func.count().label("calls"),
            _count(ended_badly).label("failed"),
            _sum(CALLS.c.prompt_tokens).label("prompt_tokens"),
            _sum(CALLS.c.completion_tokens).label("completion_tokens"),
            cost.label("cost"),
            _count(sa.and_(CALLS.c.cost.is_(None), over)).label("unpriced"),
            _sum(CALLS.c.seconds).label("seconds"),
            _sum(CALLS.c.local_seconds).label("local_seconds"),
        )
        .select_from(CALLS.join(RUNS, RUNS.c.id == CALLS.c.run))
        .where(*conditions(wanted))
        .group_by(*group)
    )
    order = [cost.desc(), sa.func.count().desc(), name] if by == "model" else [sa.func.max(CALLS.c.id).desc()]
    with reading(log.engine) as connection:
        return [_cost(row) for row in connection.execute(question.order_by(*order))]


def _cost(row: Any) -> Cost:
    """PostgreSQL sums whole numbers into decimals."""
    return Cost(
        row.name,
        row.run,
        int(row.calls),
        int(row.failed),
        int(row.prompt_tokens),
        int(row.completion_tokens),
        float(row.cost),
        int(row.unpriced),
        float(row.seconds),
        float(row.local_seconds),
    )


def _sum(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.coalesce(sa.func.sum(column), 0)


def _count(which: sa.ColumnElement[bool]) -> sa.ColumnElement[Any]:
    return sa.func.coalesce(sa.func.sum(sa.case((which, 1), else_=0)), 0)
