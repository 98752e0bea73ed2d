"""Every error that mindset raises on purpose.

One base, so that a caller can catch all of them, and beside it the builtin that fits, so that code which knows
nothing of mindset still does the right thing. A message says what was given, what is allowed and what to do.
The command line prints the message without a traceback: exit code 2 for `UsageError`, 1 for the others.
"""

from __future__ import annotations

__all__ = [
    "BankSizeError",
    "BudgetError",
    "BusyError",
    "CallError",
    "CallTimeoutError",
    "DataError",
    "DiskFullError",
    "FormatError",
    "MindsetError",
    "MissingError",
    "ModelFolderError",
    "NotRecordedError",
    "OverloadedError",
    "ReadOnlyError",
    "RunMismatchError",
    "UnsupportedModelError",
    "UnsupportedRequestError",
    "UsageError",
    "WeightsError",
]


class MindsetError(Exception):
    """Base of all errors raised on purpose."""


class UsageError(MindsetError, ValueError):
    """An argument, option or setting that cannot be meant as given."""


class BankSizeError(MindsetError, ValueError):
    """More slots to read, or to propose, than a model's bank holds."""


class UnsupportedModelError(MindsetError, ValueError):
    """A model whose feed-forward blocks mindset does not know how to replace."""


class ModelFolderError(MindsetError, ValueError):
    """A folder or file that is not the model it should be."""


class WeightsError(ModelFolderError):
    """Weights that cannot be read: missing, truncated, of another shape."""


class FormatError(MindsetError, ValueError):
    """Persisted bytes that are damaged or of a version this release cannot read."""


class MissingError(MindsetError, LookupError):
    """Something named that is not there."""


class BusyError(MindsetError, TimeoutError):
    """Something that another process is writing to."""


class ReadOnlyError(MindsetError, PermissionError):
    """Something that was opened for reading, or lies where it cannot be written."""


class DiskFullError(MindsetError, OSError):
    """The disk has no room for what was to be written; nothing half-written is left."""


class RunMismatchError(MindsetError, ValueError):
    """A run folder that belongs to another configuration."""


class DataError(MindsetError, ValueError):
    """Text to train or to score on that is empty, too short or unreadable."""


class CallError(MindsetError, ConnectionError):
    """A language model that did not answer, or not as asked."""

    def __init__(self, message: str, *, retry: bool = False, retry_after: float | None = None) -> None:
        """`retry`: whether the same request may succeed later; `retry_after`: seconds, where the endpoint said so."""
        super().__init__(message)
        self.retry, self.retry_after = retry, retry_after


class CallTimeoutError(CallError, TimeoutError):
    """A language model that did not answer in time."""


class OverloadedError(CallError):
    """An endpoint whose queue is full."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        """Seconds until it is worth another try."""
        super().__init__(message, retry=True, retry_after=retry_after)


class BudgetError(MindsetError, PermissionError):
    """A call that would cost more than what was granted, or that a switch forbids; nothing was sent."""


class NotRecordedError(MindsetError, LookupError):
    """A request that the run which is replayed never made."""


class UnsupportedRequestError(MindsetError, ValueError):
    """Something asked of a model that it, or the way to it, cannot do."""
