"""Errors across gRPC: what a server raises is raised at its client, of the same class and with the same sentence.

What gRPC itself says (nobody answers, too late, too large) becomes one of our sentences too. Knows no call.
"""

from __future__ import annotations

import grpc

from mindset import errors
from mindset.errors import CallError, CallTimeoutError, MindsetError, OverloadedError
from mindset.llm.serve.errors import told

__all__ = ["ERROR_KEY", "RETRY_KEY", "as_error", "as_status"]

ERROR_KEY = "mindset-error"
"""Trailing metadata with the name of the error's class."""
RETRY_KEY = "mindset-retry-after"
"""Trailing metadata with seconds; `0` where it is worth another try and nobody said when."""

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    502: grpc.StatusCode.FAILED_PRECONDITION,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def as_status(error: Exception) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]:
    """Code, sentence and metadata of an error."""
    said = told(error)
    metadata = [(ERROR_KEY, _public(type(error)))]
    if isinstance(error, CallError) and error.retry:
        metadata.append((RETRY_KEY, f"{error.retry_after or 0:g}"))
    return _CODES.get(said.status, grpc.StatusCode.INTERNAL), said.message, tuple(metadata)


def as_error(error: grpc.RpcError, url: str) -> MindsetError:
    """What a failed call means."""
    metadata = dict(error.trailing_metadata() or ())
    name, after = metadata.get(ERROR_KEY), metadata.get(RETRY_KEY)
    kind = getattr(errors, name) if name in errors.__all__ else None
    details = str(error.details())
    if kind is None:
        return _of_grpc(error.code(), details, url)
    seconds = _seconds(after)
    if kind is OverloadedError:
        return OverloadedError(details, retry_after=seconds or 0.0)
    if issubclass(kind, CallError):
        made: MindsetError = kind(details, retry=after is not None, retry_after=seconds or None)
        return made
    return kind(details)  # type: ignore[no-any-return]


def _public(kind: type[BaseException]) -> str:
    """The nearest class that `mindset.errors` tells of."""
    names = (base.__name__ for base in kind.__mro__ if issubclass(base, MindsetError))
    return next((name for name in names if name in errors.__all__), "MindsetError")


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None


def _of_grpc(code: grpc.StatusCode, details: str, url: str) -> MindsetError:
    """What gRPC says itself."""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return CallTimeoutError(f"{url} gave no answer in time")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "message" in details:
        return errors.UsageError(f"{url}: too large for a message ({details})")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return OverloadedError(f"{url}: too many calls at once", retry_after=1.0)
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return errors.UsageError(f"{url}: {details}")
    sentence = {
        grpc.StatusCode.UNAVAILABLE: f"{url}: nobody answers there ({details})",
        grpc.StatusCode.CANCELLED: f"{url}: the call was broken off",
        grpc.StatusCode.UNIMPLEMENTED: f"{url}: what answers there serves no language model",
    }.get(code, f"{url}: not understood ({code.name}: {details})")
    return CallError(sentence, retry=code is grpc.StatusCode.UNAVAILABLE)
