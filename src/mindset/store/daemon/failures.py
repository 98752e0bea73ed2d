"""Errors across the wire: what a daemon raises is raised at its client, of the same class and with the same sentence.

What gRPC itself says (nobody answers, too late, too large) becomes a sentence of ours too. Knows no call.
"""

from __future__ import annotations

import grpc

from mindset import errors
from mindset.errors import BusyError, FormatError, MindsetError, MissingError, UsageError

__all__ = ["ERROR_KEY", "as_error", "as_status"]

ERROR_KEY = "mindset-error"
"""Trailing metadata with the name of the error's class."""
_LONGEST = 2000
"""Characters of a sentence; a status travels in a header."""

_STATUS: tuple[tuple[str, grpc.StatusCode], ...] = (
    ("UsageError", grpc.StatusCode.INVALID_ARGUMENT),
    ("MissingError", grpc.StatusCode.NOT_FOUND),
    ("ReadOnlyError", grpc.StatusCode.PERMISSION_DENIED),
    ("BusyError", grpc.StatusCode.ABORTED),
    ("DiskFullError", grpc.StatusCode.RESOURCE_EXHAUSTED),
    ("FormatError", grpc.StatusCode.DATA_LOSS),
)


def as_status(error: Exception) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]:
    """Code, sentence and metadata of an error."""
    if not isinstance(error, MindsetError):
        sentence = f"the daemon failed ({error!r})"
        return grpc.StatusCode.INTERNAL, sentence[:_LONGEST], ((ERROR_KEY, "MindsetError"),)
    name = type(error).__name__
    code = dict(_STATUS).get(name, grpc.StatusCode.FAILED_PRECONDITION)
    return code, str(error)[:_LONGEST], ((ERROR_KEY, name),)


def as_error(error: grpc.RpcError, url: str, *, changes: bool) -> MindsetError:
    """What a failed call means; `changes`: whether it was to change something."""
    told = dict(error.trailing_metadata() or ()).get(ERROR_KEY)
    if told is not None:
        kind = getattr(errors, told, MindsetError) if told in errors.__all__ else MindsetError
        made: MindsetError = kind(error.details())
        return made
    kind, sentence = _of_grpc(error.code(), str(error.details()))
    unsure = changes and kind is not UsageError
    return kind(
        f"{url}: {sentence}{'; `mindset history` says whether the change was made' if unsure else ''}"
    )


def _of_grpc(code: grpc.StatusCode, details: str) -> tuple[type[MindsetError], str]:
    """What gRPC says itself."""
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "oncurrent" in details:
        return BusyError, "too many calls at once; try again"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return UsageError, f"too large for a message ({details})"
    known = {
        grpc.StatusCode.UNAVAILABLE: (
            MissingError, "no daemon answers there; start one with: mindset memory serve DIR"
        ),
        grpc.StatusCode.DEADLINE_EXCEEDED: (BusyError, "no answer in time"),
        grpc.StatusCode.CANCELLED: (BusyError, "the call was broken off"),
        grpc.StatusCode.UNIMPLEMENTED: (
            FormatError, "what answers there is no memory's daemon of this release"
        ),
    }  # fmt: skip
    return known.get(
        code, (FormatError, f"not understood ({code.name}: {details}); is it a memory's daemon?")
    )
