"""A request's body: read within limits, parsed as JSON, checked against its pydantic model.

Knows no endpoint. Invariant: what comes out holds only numbers that are finite and fit 64 bits, and text that is
UTF-8; everything else is refused here, in one sentence, so that nothing behind has to expect it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from mindset.calls.canonical import Json
from mindset.llm.serve.errors import RefusedError
from mindset.llm.serve.limits import Limits

__all__ = ["Body", "checked", "parsed", "read"]

_LARGEST = 2**64
_SHOWN = 120
"""Characters of a wrong value that are said back."""


class Body(BaseModel):
    """What every body has in common: exact types, no NaN; fields that we do not know are passed over."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


B = TypeVar("B", bound=Body)


async def read(request: Request, limits: Limits) -> bytes:
    """The bytes of a body that is JSON."""
    _check_headers(request.headers, limits)
    pieces, size = [], 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for piece in request.stream():
                size += len(piece)
                if size > limits.body_bytes:
                    raise _too_large(limits)
                pieces.append(piece)
    except TimeoutError as error:
        raise RefusedError(408, f"the request did not come within {limits.body_seconds:g} s") from error
    except ClientDisconnect as error:
        raise RefusedError(400, "the request was broken off") from error
    return b"".join(pieces)


def parsed(data: bytes, limits: Limits) -> Json:
    """The JSON value of a body."""
    if not data:
        raise RefusedError(400, "the body is empty; it is a JSON object")
    try:
        value = from_json(data, allow_inf_nan=False)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the body is no JSON: {str(error)[:200]}") from error
    _check_values(value, limits.depth)
    return value


def checked(kind: type[B], value: Json) -> B:
    """The body that a JSON value is."""
    if not isinstance(value, dict):
        raise RefusedError(400, f"the body is a JSON object, not {_kind(value)}")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _refused(error, value) from error
    except RecursionError as error:
        raise RefusedError(400, "the body is nested too deep") from error


def _check_headers(headers: Mapping[str, str], limits: Limits) -> None:
    kind, _, parameters = headers.get("content-type", "").partition(";")
    if kind.strip().lower() != "application/json":
        raise RefusedError(
            415, f"the content type is {kind[:_SHOWN]!r}; send the header Content-Type: application/json"
        )
    charset = parameters.lower().replace('"', "").replace(" ", "")
    if "charset=" in charset and "charset=utf-8" not in charset:
        raise RefusedError(415, "JSON is UTF-8; send it without another charset")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError(415, "a compressed body is not read; send it as it is")
    length = headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > limits.body_bytes):
        raise _too_large(limits)


def _too_large(limits: Limits) -> RefusedError:
    return RefusedError(413, f"a body of more than {limits.body_bytes:,} bytes")


def _check_values(value: Json, depth: int) -> None:
    """Refuse what is nested too deep, and numbers that no 64 bits hold."""
    level: list[Json] = [value]
    for _ in range(depth):
        level = list(_below(level))
        if not level:
            return
    raise RefusedError(400, f"the body is nested deeper than {depth} levels")


def _below(level: Sequence[Json]) -> Iterator[Json]:
    for value in level:
        if isinstance(value, dict):
            yield from value.values()
        elif isinstance(value, list):
            yield from value
        elif _is_too_large(value):
            raise RefusedError(400, "a number in the body is too large")


def _is_too_large(value: Json) -> bool:
    """A float may be large, as long as it is finite."""
    if isinstance(value, float):
        return math.isinf(value)
    return isinstance(value, int) and not -_LARGEST < value < _LARGEST


def _refused(error: ValidationError, value: Json) -> RefusedError:
    """The first thing that is wrong; of a union, of the member that went furthest."""
    problems: list[Any] = error.errors(include_url=False, include_context=False)
    first = max(problems, key=lambda problem: (len(problem["loc"]), not problem["type"].endswith("_type")))
    where = ".".join(_fields(value, first["loc"], missing=first["type"] == "missing"))
    message = str(first["msg"]).removeprefix("Value error, ")
    given = "" if first["type"] == "missing" else f"; {_kind(first['input'])} was given"
    return RefusedError(400, f"{where or 'the body'}: {message}{given}", param=where or None)


def _fields(value: Json, path: Sequence[str | int], *, missing: bool) -> Iterator[str]:
    """The fields of a path, without the members of unions that pydantic names between them."""
    for position, part in enumerate(path):
        inside: Any = value  # a dict's key, or a list's place
        if (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int)):
            value = inside[part]
            yield str(part)
        elif missing and position == len(path) - 1:
            yield str(part)


def _kind(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return str(value)[:_SHOWN]
    if isinstance(value, str):
        return f"text of {len(value):,} characters" if len(value) > _SHOWN else repr(value)
    return (
        "an object"
        if isinstance(value, dict)
        else "a list"
        if isinstance(value, list)
        else type(value).__name__
    )
