from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindset.errors import CallError, MindsetError, OverloadedError, UnsupportedRequestError
from mindset.llm.error_json import error_from_json, error_to_json
from mindset.llm.http_failures import StatusError, failure, retry_after, said_in

NOW = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "Thu, 26 Nov 2026 12:00:09 GMT"}, 9.0),
        ({"retry-after": "Thu, 26 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Thu, 26 Nov 2026 14:00:09 +0200"}, 9.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(httpx2.Headers(headers), NOW) == seconds


def test_overload_with_a_time_is_told_apart() -> None:
    for status in (429, 503, 529):
        error = failure(status, {"retry-after": "3"}, b"", "h")
        assert isinstance(error, OverloadedError)
        assert error.retry_after == 3
    error = failure(500, {"retry-after": "3"}, b"", "h")
    assert isinstance(error, StatusError)
    assert (error.status, error.retry, error.retry_after) == (500, True, 3)
    assert str(failure(599, {}, b"", "h")) == "h answered 599: it gave no reason"


def test_our_own_server_says_what_it_cannot_do() -> None:
    told = b'{"error": {"message": "no images here", "code": "unsupported"}}'
    assert isinstance(failure(400, {}, told, "h"), UnsupportedRequestError)


def test_long_pages_are_cut() -> None:
    assert len(str(failure(500, {}, b"x" * 10_000, "h"))) < 700
    assert "<" not in str(failure(502, {}, b"<html><head></head>nothing to see</html>", "h"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["error", "message", "detail", "x"]), inner, max_size=3)
        ),
    )
)
def test_any_error_object_has_some_sentence_or_none(told: Any) -> None:
    assert isinstance(said_in(told), str)


@pytest.mark.parametrize(
    "error",
    [
        CallError("no", retry=True, retry_after=3.0),
        OverloadedError("full", retry_after=1.0),
        UnsupportedRequestError("cannot"),
    ],
)
def test_errors_go_to_json_and_back(error: MindsetError) -> None:
    again = error_from_json(error_to_json(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_errors_of_others_come_back_by_their_name() -> None:
    assert str(error_from_json(error_to_json(KeyError("x")))) == "KeyError: 'x'"
    status = error_from_json(error_to_json(StatusError("gone", 404)))
    assert (type(status), str(status)) == (CallError, "gone")
