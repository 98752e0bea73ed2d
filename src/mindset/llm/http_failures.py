"""What went wrong with a request over HTTP, as one `CallError`: the status, and the server's own sentence.

Overload, rate limits and failures of the server may pass, and are worth another try; what is wrong with the request
is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx2

from mindset.calls.canonical import Json
from mindset.errors import CallError, MindsetError, OverloadedError, UnsupportedRequestError
from mindset.llm.surrogates import whole_text

__all__ = ["StatusError", "failure", "retry_after", "said_in", "unreachable"]

PASSING = {408, 409, 425, 429, 529}
"""Statuses below 500, and one that few know, after which another try may succeed."""
FINAL_CODES = ("insufficient_quota", "billing_hard_limit_reached", "credit balance")
"""What a rate limit is called where waiting does not help."""
LONGEST = 600
"""Letters of a server's sentence."""


class StatusError(CallError):
    """A reply that is no success."""

    def __init__(
        self,
        message: str,
        status: int,
        code: str = "",
        *,
        retry: bool = False,
        retry_after: float | None = None,
    ) -> None:
        """`status` as HTTP has it; `code`: the server's own word, if it gave one."""
        super().__init__(message, retry=retry, retry_after=retry_after)
        self.status, self.code = status, code


def failure(status: int, headers: Mapping[str, str], content: bytes, host: str) -> MindsetError:
    """The error for a reply that is no success."""
    told, sentence = _told(content)
    message = f"{host} answered {status}{_name(status)}: {sentence or 'it gave no reason'}"
    if isinstance(told, Mapping) and told.get("code") == "unsupported":
        return UnsupportedRequestError(message)
    wait = retry_after(headers, datetime.now(UTC))
    retry = _worth_it(status, headers, f"{sentence} {json.dumps(told)}")
    if retry and wait is not None and status in (429, 503, 529):
        return OverloadedError(message, retry_after=wait)
    code = str(told.get("code") or "") if isinstance(told, Mapping) else ""
    return StatusError(message, status, code, retry=retry, retry_after=wait)


def said_in(told: Json) -> str:
    """The sentence in a server's error object, whatever its shape."""
    if isinstance(told, str):
        return told
    if isinstance(told, list):
        return "; ".join(filter(None, (said_in(item) for item in told)))
    if isinstance(told, Mapping):
        for name in ("error", "message", "msg", "detail", "error_description", "errors", "title"):
            if sentence := said_in(told.get(name)):
                return sentence
    return ""


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait, where a reply says so: in seconds, in milliseconds, or as a date."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    given = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", given):
        return float(given)
    try:
        when = parsedate_to_datetime(given)
    except (ValueError, TypeError, IndexError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - now).total_seconds())


def unreachable(error: Exception, url: str) -> CallError:
    """The error where no whole reply came."""
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return CallError(
            f"cannot reach {url}: {reason}; is the server running, and the address right?", retry=True
        )
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
        return CallError(f"cannot ask {url}: {reason}")
    return CallError(f"the connection to {url} broke: {reason}", retry=True)


def _told(content: bytes) -> tuple[Json, str]:
    """The error object of a reply, and its sentence; a page for people gives its title."""
    text = content.decode("utf-8", "replace").strip()
    try:
        told = json.loads(text)
    except ValueError:
        title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        sentence = title[1] if title else "" if text.startswith("<") else text
        return None, " ".join(sentence.split())[:LONGEST]
    inner = told.get("error", told) if isinstance(told, Mapping) else told
    return inner, " ".join(whole_text(said_in(told)).split())[:LONGEST]


def _worth_it(status: int, headers: Mapping[str, str], said: str) -> bool:
    word = headers.get("x-should-retry", "")
    if word in ("true", "false"):
        return word == "true"
    if any(code in said for code in FINAL_CODES):
        return False
    return status in PASSING or (status >= 500 and status not in (501, 505))


def _name(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""
