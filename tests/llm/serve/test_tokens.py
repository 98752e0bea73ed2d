from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llm.serve.asking import ask

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXT)
def test_text_comes_back(echo: str, text: str) -> None:
    told = ask(echo, "/v1/encode", {"text": text}).json
    assert told["ids"] == list(text.encode())
    assert told["count"] == len(told["ids"])
    assert ask(echo, "/v1/decode", {"ids": told["ids"]}).json["text"] == text


@pytest.mark.parametrize(
    "body", [{}, {"ids": None}, {"ids": ["a"]}, {"ids": [True]}, {"ids": [-1]}, {"ids": [256]}], ids=str
)
def test_tokens_that_are_none(echo: str, body: dict[str, object]) -> None:
    reply = ask(echo, "/v1/decode", body)
    assert reply.status == 400
    assert reply.error["message"]


def test_a_text_is_needed(echo: str) -> None:
    assert ask(echo, "/v1/encode", {"text": 5}).error["param"] == "text"
    assert ask(echo, "/v1/encode", {"model": "other", "text": "x"}).status == 404
