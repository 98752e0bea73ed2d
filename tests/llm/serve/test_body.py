from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from mindset.llm.serve.body import Body, checked, parsed
from mindset.llm.serve.errors import RefusedError
from mindset.llm.serve.limits import Limits

LIMITS = Limits(depth=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


class Inner(Body):
    value: int = Field(ge=0)


class Outer(Body):
    some: str | list[Inner]
    flag: bool | None = None


@settings(max_examples=150, deadline=None)
@given(value=VALUES)
def test_json_comes_through_as_it_is(value: Any) -> None:
    deep = Limits(depth=40)
    assert parsed(json.dumps(value).encode(), deep) == value
    assert parsed(json.dumps(value, ensure_ascii=False).encode(), deep) == value


@settings(max_examples=500, deadline=None)
@given(
    data=st.binary(max_size=200)
    | st.text(alphabet='{}[]",:0123456789eE+-.\\u dnulltrefs \n\x00é', max_size=60).map(str.encode)
)
def test_bytes_are_json_or_refused(data: bytes) -> None:
    try:
        value = parsed(data, LIMITS)
    except RefusedError as refused:
        value = {"status": refused.status, "message": str(refused)}
        if refused.status != 400:
            raise
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


def test_depth_and_size_are_bounded() -> None:
    assert parsed(b"[" * 7 + b"]" * 7, LIMITS) is not None
    for data in (b"[" * 9 + b"]" * 9, b"[" * 199 + b"]" * 199, b'{"a":' * 9 + b"1" + b"}" * 9):
        with pytest.raises(RefusedError, match="deeper than 8"):
            parsed(data, LIMITS)
    for data in (b"[1e999]", b"[-1e999]", b"[" + b"9" * 30 + b"]", b"[-" + b"9" * 30 + b"]"):
        with pytest.raises(RefusedError, match="too large"):
            parsed(data, LIMITS)
    assert parsed(b"[1e300, 18446744073709551615]", LIMITS) == [1e300, 2**64 - 1]


@pytest.mark.parametrize(
    ("value", "param", "words"),
    [
        ({}, "some", "some: Field required"),
        ({"some": 5}, "some", "5 was given"),
        ({"some": [{"value": "x"}]}, "some.0.value", "'x' was given"),
        ({"some": [{"value": 1}, {}]}, "some.1.value", "required"),
        ({"some": [{"value": -1}]}, "some.0.value", "-1 was given"),
        ({"some": "x", "flag": 1}, "flag", "1 was given"),
        ({"some": "x", "flag": "y" * 500}, "flag", "text of 500 characters was given"),
        ({"some": "x", "flag": {}}, "flag", "an object was given"),
    ],
    ids=str,
)
def test_the_field_that_is_wrong_is_named(value: Any, param: str, words: str) -> None:
    with pytest.raises(RefusedError) as found:
        checked(Outer, value)
    assert found.value.param == param
    assert words in str(found.value)


@pytest.mark.parametrize("value", [None, [], "x", 5, True])
def test_a_body_is_an_object(value: Any) -> None:
    with pytest.raises(RefusedError, match="is a JSON object, not"):
        checked(Outer, value)


def test_fields_that_nobody_knows_are_passed_over() -> None:
    assert checked(Outer, {"some": "x", "more": {"flag": 5}}) == Outer(some="x")
