"""A command run again, with the models' answers taken from a recorded run.

The command is told by its environment; that its clients heed it is theirs. Does not know clients.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from mindset.calls.log import CallLog
from mindset.calls.place import VARIABLE
from mindset.calls.runs import REPLAY
from mindset.calls.schema import CALLS
from mindset.database.engine import reading
from mindset.errors import MissingError, UsageError

__all__ = ["Rerun", "rerun"]


@dataclass(frozen=True)
class Rerun:
    """How it went."""

    run: str
    """Id of the run that answered."""
    exit_code: int
    """The command's; 128 and the signal's number where one ended it."""
    recorded: int
    """Calls of the run."""
    answered: int
    """Of them, those that were asked again."""
    stdout: str | None
    """What it printed, where that was captured."""
    stderr: str | None


def rerun(log: CallLog, run: str, command: Sequence[str], *, capture: bool = False) -> Rerun:
    """Run a command with the answers of a run, given by its id or name; `capture` keeps what it prints."""
    if not command:
        raise UsageError("give the command to run again")
    found = log.run_id(run)
    environment = os.environ | {REPLAY: found, VARIABLE: log.engine.url.render_as_string(hide_password=False)}
    since = _count(log, sa.func.max(CALLS.c.id), sa.true())
    try:
        # The user's own command is what is to run.
        done = subprocess.run(command, env=environment, capture_output=capture, text=True, check=False)  # noqa: S603
    except OSError as error:
        raise MissingError(f"{command[0]} cannot be run: {error.strerror}") from error
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    ours = CALLS.c.run == found
    again = sa.and_(
        CALLS.c.id > since,
        CALLS.c.replayed_from.in_(sa.select(_RECORDED.c.id).where(_RECORDED.c.run == found)),
    )
    answered = _count(log, sa.func.count(CALLS.c.replayed_from.distinct()), again)
    return Rerun(found, code, _count(log, sa.func.count(), ours), answered, done.stdout, done.stderr)


_RECORDED = CALLS.alias("recorded")


def _count(log: CallLog, what: sa.ColumnElement[int], which: sa.ColumnElement[bool]) -> int:
    with reading(log.engine) as connection:
        return int(connection.execute(sa.select(what).select_from(CALLS).where(which)).scalar() or 0)
