"""The user's log of calls, opened for looking: brought up to date where that may be, and never made."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mindset.calls.log import CallLog

__all__ = ["needed_log", "opened_log"]


def opened_log() -> CallLog | None:
    """The log; None where there is none yet.

    Opening it for writing is what tells the calls of processes that ended from those that run.
    """
    from mindset.calls.log import CallLog
    from mindset.calls.place import file_of, log_url
    from mindset.errors import ReadOnlyError

    file = file_of(log_url())
    if file is not None and not file.exists():
        return None
    try:
        return CallLog.open()
    except ReadOnlyError:
        return CallLog.open(read_only=True)


def needed_log() -> CallLog:
    """The log, for what makes no sense without one."""
    from mindset.errors import MissingError

    log = opened_log()
    if log is None:
        raise MissingError("no call was made yet")
    return log
