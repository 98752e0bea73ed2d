from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindset.calls.log import CallLog
from mindset.errors import CallError, DataError, UsageError
from mindset.llm.capabilities import Capabilities
from mindset.llm.messages import system, user
from mindset.llm.scripted import ScriptedClient
from mindset.llm.shapes import Shape

Go = Callable[[Any], Any]
PLAIN = Capabilities(chat=True)


@dataclass
class Item:
    name: str
    price: float = 0.0


@dataclass
class Order:
    items: list[Item]
    kind: Literal["buy", "sell"]


SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 1}},
    "required": ["n"],
    "additionalProperties": False,
}


def test_a_model_that_can_is_held_to_the_schema(log: CallLog, go: Go) -> None:
    client = ScriptedClient(['{"items": [{"name": "tea", "price": 3}], "kind": "buy"}'], log=log)
    value = go(client.structured("Order tea.", Order, temperature=0))
    assert value == Order([Item("tea", 3.0)], "buy")
    sent = client.requests[0]
    assert sent.options.schema is not None
    assert sent.options.schema["properties"]["kind"] == {"enum": ["buy", "sell"], "type": "string"}
    assert sent.options.temperature == 0
    assert sent.messages == (user("Order tea."),)


def test_another_one_is_told_the_schema_in_words(log: CallLog, go: Go) -> None:
    client = ScriptedClient(['```json\n{"n": 3}\n```', '{"n": 4}'], log=log, capabilities=PLAIN)
    assert go(client.structured([system("Be brief."), user("How many?")], SCHEMA)) == {"n": 3}
    first, second = client.requests[0].messages
    assert first.text.startswith("Be brief.\n\nAnswer with JSON alone")
    assert '"minimum": 1' in first.text
    assert second == user("How many?")
    assert client.requests[0].options.schema is None
    assert go(client.structured("How many?", SCHEMA)) == {"n": 4}
    assert [message.role for message in client.requests[1].messages] == ["system", "user"]


@pytest.mark.parametrize("can", [PLAIN, None])
def test_what_does_not_fit_is_asked_for_once_more(log: CallLog, go: Go, can: Capabilities | None) -> None:
    client = ScriptedClient(["three", '{"n": 3}'], log=log, capabilities=can)
    assert go(client.structured("How many?", SCHEMA)) == {"n": 3}
    told = client.requests[1].messages
    assert told[-2].text == "three"
    assert told[-1].text.startswith("That does not fit: it is no JSON")
    assert log.call(2).asked.parent == 1


def test_then_it_is_given_up(log: CallLog, go: Go) -> None:
    client = ScriptedClient(['{"n": 0}', '{"n": 0, "m": 1}'], log=log, capabilities=PLAIN)
    with pytest.raises(CallError, match=r"script gave no answer of the wanted shape.*'m' was unexpected"):
        go(client.structured("How many?", SCHEMA))
    assert "n: 0 is less than the minimum of 1" in client.requests[1].messages[-1].text


def test_values_that_are_no_objects_are_wrapped(log: CallLog, go: Go) -> None:
    client = ScriptedClient(['{"value": [1, 2]}', "[1, 2]", '{"value": ["x"]}'], log=log)
    assert go(client.structured("Which?", list[int])) == [1, 2]
    schema = client.requests[0].options.schema
    assert schema is not None
    assert schema["properties"]["value"] == {"type": "array", "items": {"type": "integer"}}
    with pytest.raises(CallError, match="0: Input should be a valid integer"):
        go(client.structured("Which?", list[int]))
    assert 'one field, "value"' in client.requests[2].messages[-1].text


def test_shapes_that_cannot_be_are_refused(log: CallLog, go: Go) -> None:
    for wanted in ({"type": "no such type"}, Callable[[int], int]):
        with pytest.raises(UsageError, match="no JSON schema"):
            go(ScriptedClient([], log=log).structured("x", wanted))


@dataclass
class Tree:
    name: str
    below: list[Tree]


def test_a_shape_may_hold_itself() -> None:
    shape = Shape.of(Tree)
    assert shape.read('{"name": "a", "below": [{"name": "b", "below": []}]}') == Tree("a", [Tree("b", [])])
    with pytest.raises(DataError, match=r"below.0.below: Field required"):
        shape.read('{"name": "a", "below": [{"name": "b"}]}')


NUMBERS = st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.sampled_from("nm"), NUMBERS | st.text(max_size=2)))
def test_a_schema_and_the_same_type_agree(value: dict[str, Any]) -> None:
    import json

    text = json.dumps(value)
    fits = set(value) == {"n"} and isinstance(value["n"], int) and value["n"] >= 1
    by_schema = Shape.of(SCHEMA)
    if fits:
        assert by_schema.read(text) == value
    elif (
        set(value) != {"n"} or not float(value["n"] if not isinstance(value["n"], str) else 0.5).is_integer()
    ):
        with pytest.raises(DataError):
            by_schema.read(text)


@pytest.mark.parametrize("text", ["", "```", "```json\n```", "NaN", '{"n": Infinity}', "{} {}"])
def test_what_is_no_json_says_so(text: str) -> None:
    with pytest.raises(DataError):
        Shape.of(SCHEMA).read(text)
