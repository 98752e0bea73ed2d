"""Errors as HTTP says them: a status, and OpenAI's error object with one sentence.

Knows every error of mindset by its kind, no endpoint. What nobody raised on purpose is told without its details.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mindset import errors
from mindset.calls.canonical import Json
from mindset.llm.serve.desk import DrainingError

__all__ = ["RefusedError", "Told", "told"]

_LONGEST = 2000
"""Characters of a sentence."""


class RefusedError(errors.UsageError):
    """A request that is refused before any model is asked."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        """`param`: the field that is wrong; `code`: a word for programs."""
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


@dataclass(frozen=True)
class Told:
    """An error, as it is sent."""

    status: int
    message: str
    kind: str
    param: str | None = None
    code: str | None = None
    retry_after: float | None = None
    expected: bool = True
    """Whether somebody raised it on purpose; others are for the log."""

    @property
    def body(self) -> dict[str, Json]:
        """OpenAI's shape."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """What belongs to the status."""
        told: dict[str, str] = {}
        if self.retry_after is not None:
            told["retry-after"] = str(max(1, math.ceil(self.retry_after)))
        if self.status == 401:
            told["www-authenticate"] = "Bearer"
        return told


_BAD = "invalid_request_error"
_KINDS: tuple[tuple[type[Exception], int, str, str | None], ...] = (
    (DrainingError, 503, "server_error", "stopping"),
    (errors.OverloadedError, 429, "rate_limit_error", "overloaded"),
    (errors.BudgetError, 403, "permission_error", "budget"),
    (errors.NotRecordedError, 404, _BAD, "not_recorded"),
    (errors.UnsupportedRequestError, 400, _BAD, "unsupported"),
    (errors.UsageError, 400, _BAD, None),
    (errors.DataError, 400, _BAD, None),
    (errors.MissingError, 404, _BAD, "model_not_found"),
    (errors.BusyError, 503, "server_error", "busy"),
    (TimeoutError, 504, "server_error", "timeout"),
)
_BY_STATUS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def told(error: BaseException) -> Told:
    """What is sent for an error."""
    message = str(error)[:_LONGEST]
    if isinstance(error, RefusedError):
        return Told(error.status, message, _BY_STATUS.get(error.status, _BAD), error.param, error.code)
    for kind, status, word, code in _KINDS:
        if isinstance(error, kind):
            after = getattr(error, "retry_after", None)
            return Told(status, message or "it took too long", word, code=code, retry_after=after)
    if isinstance(error, errors.CallError):
        status, code = (503, "try_again") if error.retry else (502, "upstream")
        return Told(status, message, "server_error", code=code, retry_after=error.retry_after)
    if isinstance(error, errors.MindsetError):
        return Told(500, message, "server_error", code=type(error).__name__)
    sentence = f"the server failed ({type(error).__name__}); its log says more"
    return Told(500, sentence, "server_error", code="internal", expected=False)
