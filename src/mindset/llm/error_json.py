"""Errors as JSON and back, so that a call that failed fails alike when it is replayed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from mindset import errors
from mindset.calls.canonical import Json
from mindset.errors import CallError, MindsetError

__all__ = ["error_from_json", "error_to_json"]


def error_to_json(error: BaseException) -> dict[str, Json]:
    """The kind of an error, its words, and whether it is worth another try."""
    kind = next((kind for kind in type(error).__mro__ if kind.__name__ in errors.__all__), type(error))
    told: dict[str, Json] = {"raised": kind.__name__, "message": str(error)}
    if isinstance(error, CallError):
        told |= {"retry": error.retry, "retry_after": error.retry_after}
    return told


def error_from_json(told: Mapping[str, Json]) -> MindsetError:
    """The error that `error_to_json` wrote; one that is not ours comes back as a `CallError` with its name."""
    kind = getattr(errors, told["raised"], None) if told["raised"] in errors.__all__ else None
    message = str(told["message"])
    if kind is None:
        return CallError(f"{told['raised']}: {message}")
    if kind is errors.OverloadedError:
        return errors.OverloadedError(message, retry_after=told["retry_after"] or 0.0)
    if issubclass(kind, CallError):
        return cast(MindsetError, kind(message, retry=told["retry"], retry_after=told["retry_after"]))
    return cast(MindsetError, kind(message))
