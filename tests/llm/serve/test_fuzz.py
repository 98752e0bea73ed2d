"""Whatever comes is answered, and by nothing above 499; benchmarks.serving_fuzz and serving_load go on for longer."""

from __future__ import annotations

import http.client
import json
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llm.serve.asking import ask

from benchmarks.serving_bodies import body, schemas_by_path
from benchmarks.serving_fuzz import SAMPLES, check_reply, fuzz, post
from benchmarks.serving_load import load


@pytest.fixture(scope="module")
def document(echo: str) -> dict[str, Any]:
    found: dict[str, Any] = ask(echo, "/openapi.json").json
    return found


@pytest.fixture(scope="module")
def connection(echo: str) -> Iterator[http.client.HTTPConnection]:
    parts = urlsplit(echo)
    made = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    yield made
    made.close()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), path=st.sampled_from(sorted(SAMPLES)))
def test_bodies_from_our_own_document(
    connection: http.client.HTTPConnection, document: dict[str, Any], seed: int, path: str
) -> None:
    data = body(random.Random(seed), schemas_by_path(document)[path], document)  # noqa: S311
    assert check_reply(*post(connection, path, data)) is None, data


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()),
    path=st.sampled_from(sorted(SAMPLES)),
)
def test_any_bytes_and_any_json(connection: http.client.HTTPConnection, data: bytes, path: str) -> None:
    status, kind, told = post(connection, path, data)
    assert check_reply(status, kind, told) is None
    assert status == 400


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=JSON, path=st.sampled_from(sorted(SAMPLES)), drawn=st.data())
def test_any_value_in_place_of_a_right_one(
    connection: http.client.HTTPConnection,
    document: dict[str, Any],
    value: Any,
    path: str,
    drawn: st.DataObject,
) -> None:
    ref = schemas_by_path(document)[path]["$ref"].rsplit("/", 1)[1]
    fields = sorted(document["components"]["schemas"][ref]["properties"])
    data = json.dumps(SAMPLES[path] | {drawn.draw(st.sampled_from(fields)): value}).encode()
    assert check_reply(*post(connection, path, data)) is None, data


def test_a_few_hundred_of_everything() -> None:
    found = fuzz(300, seed=1)
    assert found.failures == []
    assert found.left == 0
    assert found.sent >= 300
    for path in SAMPLES:
        assert found.statuses[f"{path} 200"], f"none that was right came to {path}"


def test_what_is_wrong_with_an_answer_is_found() -> None:
    error = {"error": {"message": "m", "type": "t", "param": None, "code": None}}
    right = json.dumps(error).encode()
    assert check_reply(400, "application/json", right) is None
    for status, kind, told in (
        (500, "application/json", right),
        (400, "application/json", b"oops"),
        (400, "application/json", b'{"error": {"message": ""}}'),
        (200, "application/json", b"{"),
        (200, "text/event-stream; charset=utf-8", b"data: {}\n\n"),
    ):
        assert check_reply(status, kind, told) is not None


def test_many_who_ask_and_a_third_who_leave() -> None:
    found = load(6, 4.0)
    assert found.failures == []
    assert found.sent > 20
    assert found.tally.left > 3
    assert found.rows["cancelled"] > 3
