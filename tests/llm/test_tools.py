from __future__ import annotations

import asyncio
import enum
import functools
import json
import threading
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindset.errors import UsageError
from mindset.llm.docstrings import described
from mindset.llm.messages import ToolCall, ToolResult
from mindset.llm.tools import Tool, ToolSet, tool


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: float
    y: float = 0.0


def everything(
    text: str,
    count: int,
    share: float,
    sure: bool,
    how: Literal["fast", "slow"],
    colour: Colour,
    names: list[str],
    sizes: dict[str, int],
    where: Point,
    either: int | str,
    maybe: str | None = None,
    many: int = 3,
    tags: list[str] = [],  # noqa: B006
) -> dict[str, Any]:
    """Do everything.

    And more of it,
    in a second paragraph.

    Args:
        text: What to say.
        count (int): How often,
            at most.

    Returns:
        All of it.
    """
    return dict(locals())


GOOD: dict[str, Any] = {
    "text": "a",
    "count": 1,
    "share": 0.5,
    "sure": True,
    "how": "slow",
    "colour": "blue",
    "names": ["n"],
    "sizes": {"s": 1},
    "where": {"x": 1},
    "either": "e",
}


def call(name: str, arguments: Any) -> ToolCall:
    return ToolCall("c1", name, arguments if isinstance(arguments, str) else json.dumps(arguments))


def run(made: Tool | ToolSet, name: str, arguments: Any) -> ToolResult:
    return asyncio.run(made.run(call(name, arguments)))


def test_a_schema_from_a_signature() -> None:
    spec = tool(everything).spec
    assert spec.name == "everything"
    assert spec.description == "Do everything.\n\nAnd more of it,\nin a second paragraph."
    schema = dict(spec.parameters)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["required"] == list(GOOD)
    below = schema["properties"]
    assert below["text"] == {"type": "string", "description": "What to say."}
    assert below["count"] == {"type": "integer", "description": "How often, at most."}
    assert below["share"] == {"type": "number"}
    assert below["sure"] == {"type": "boolean"}
    assert below["how"] == {"type": "string", "enum": ["fast", "slow"]}
    assert below["names"] == {"type": "array", "items": {"type": "string"}}
    assert below["sizes"] == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert below["either"] == {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    assert below["maybe"] == {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    assert below["many"] == {"type": "integer", "default": 3}
    assert schema["$defs"]["Colour"] == {"enum": ["red", "blue"], "type": "string"}
    assert schema["$defs"]["Point"]["properties"]["y"] == {"type": "number", "default": 0.0}
    assert "description" not in schema


def test_arguments_arrive_as_the_types_say() -> None:
    seen: list[Any] = []

    def look(colour: Colour, where: Point, tags: list[str] | None = None) -> None:
        seen.extend([colour, where, tags])

    result = run(tool(look), "look", {"colour": "red", "where": {"x": 1}})
    assert result == ToolResult("c1", "null", "look")
    assert seen == [Colour.RED, Point(1.0), None]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("{", "wrong arguments for everything: Invalid JSON"),
        ("[]", "wrong arguments"),
        ({**GOOD, "count": "many"}, "count: Input should be a valid integer"),
        ({**GOOD, "how": "hm"}, "how: Input should be 'fast' or 'slow'"),
        ({**GOOD, "where": {"y": 1}}, "where.x: Field required"),
        ({**GOOD, "colur": 1}, "colur: Unexpected keyword argument"),
        ({}, "; and 5 more"),
    ],
)
def test_wrong_arguments_are_a_result_that_helps(wrong: Any, sentence: str) -> None:
    result = run(tool(everything), "everything", wrong)
    assert result.is_error
    assert sentence in result.content


def test_what_a_tool_returns_is_text() -> None:
    for value, text in (
        ("as it is", "as it is"),
        (3, "3"),
        (None, "null"),
        ([1, {"a": Colour.RED}], '[1,{"a":"red"}]'),
        (Point(1, 2), '{"x":1,"y":2}'),
        (float("nan"), '"NaN"'),
        (threading.Lock, '"' + str(threading.Lock) + '"'),
    ):
        assert run(_giving(value), "give", "").content == text


def _giving(value: Any) -> Tool:
    def give() -> Any:
        return value

    return tool(give)


def test_what_fails_is_a_result_too() -> None:
    def fail() -> None:
        raise KeyError("gone")

    result = run(tool(fail), "fail", "{}")
    assert result == ToolResult("c1", "fail failed: KeyError: 'gone'", "fail", is_error=True)


def test_async_tools_and_slow_ones() -> None:
    async def wait(seconds: float) -> str:
        """Wait."""
        await asyncio.sleep(seconds)
        return "awake"

    assert run(tool(wait), "wait", {"seconds": 0}).content == "awake"
    late = run(tool(seconds=0.05)(wait), "wait", {"seconds": 5})
    assert late.content == "wait was stopped: it took longer than 0.05 seconds"
    assert late.is_error

    def own() -> None:
        raise TimeoutError("the tool's own")

    assert "the tool's own" in run(tool(own), "own", "{}").content


def test_tools_that_are_not_async_do_not_hold_up_the_others() -> None:
    def nap() -> str:
        time.sleep(0.1)
        return threading.current_thread().name

    async def scenario() -> None:
        begun = time.monotonic()
        made = tool(nap)
        results = await asyncio.gather(*(made.run(call("nap", "{}")) for _ in range(4)))
        assert time.monotonic() - begun < 0.39
        assert all(result.content != "MainThread" for result in results)

    asyncio.run(scenario())


def test_names_that_models_of_data_stumble_over() -> None:
    def odd(schema: str, json: int, copy: bool, model_name: str, self: str, title: str = "t") -> list[Any]:
        return [schema, json, copy, model_name, self, title]

    given = {"schema": "s", "json": 1, "copy": True, "model_name": "m", "self": "me"}
    assert run(tool(odd), "odd", given).content == '["s",1,true,"m","me","t"]'
    assert tool(odd).spec.parameters["properties"]["title"] == {"type": "string", "default": "t"}


def test_methods_partials_and_words_beside_types() -> None:
    class Shop:
        def price(self, what: Annotated[str, "the thing"]) -> str:
            """Tell a price."""
            return f"{what}: 3"

    made = tool(Shop().price)
    assert made.spec.parameters["properties"] == {"what": {"type": "string", "description": "the thing"}}
    assert run(made, "price", {"what": "tea"}).content == "tea: 3"
    assert made(what="tea") == "tea: 3"
    half = tool(name="half", description="Half.")(functools.partial(everything, "text"))
    assert half.spec.description == "Half."

    class Counter:
        def __call__(self, step: int) -> int:
            return step + 1

    assert run(tool(name="count")(Counter()), "count", {"step": 1}).content == "2"


def test_functions_that_cannot_be_tools() -> None:
    def plain(a) -> None: ...  # type: ignore[no-untyped-def]
    def starred(*a: int) -> None: ...
    def lost(a: Missing) -> None: ...  # type: ignore[name-defined] # noqa: F821
    def odd(a: threading.Thread) -> None: ...

    for function, sentence in (
        (plain, "does not say of what type a is"),
        (starred, r"takes a by place or in any number"),
        (lost, "cannot be told by its signature"),
        (odd, "has no JSON schema"),
        (lambda: 1, "no name for a tool"),
    ):
        with pytest.raises(UsageError, match=sentence):
            tool(function)


def test_a_set_of_tools() -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    tools = ToolSet([add, tool(name="plus")(add)])
    assert list(tools) == ["add", "plus"]
    assert [spec.name for spec in tools.specs] == ["add", "plus"]
    assert run(tools, "plus", {"a": 1, "b": 2}).content == "3"
    missing = run(tools, "minus", {})
    assert missing.content == "there is no tool 'minus'; there are: add, plus"
    assert missing.is_error
    with pytest.raises(UsageError, match="two tools are called add"):
        ToolSet([add, add])


@pytest.mark.parametrize(
    "text",
    [
        "Do it.\n\nArgs:\n    a: The first,\n        of two.\n    b (int): The second.\n\nReturns:\n    x: no",
        "Do it.\n\n:param a: The first,\n    of two.\n:param int b: The second.\n:returns: nothing",
        "Do it.\n\nParameters\n---\na : int\n    The first,\n    of two.\nb\n    The second.\n\nRaises\n------\nx",
    ],
)
def test_docstrings_of_three_schools(text: str) -> None:
    assert described(text) == ("Do it.", {"a": "The first, of two.", "b": "The second."})


def test_prose_stays_prose() -> None:
    text = "Wait: this is no section.\n\nNor is this: it has a colon.\nArguments are good."
    assert described(text) == (text, {})


EVERYTHING = tool(everything)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*GOOD, "tags", "other"]), VALUES, max_size=14) | VALUES)
def test_whatever_a_model_asks_a_tool_answers(arguments: Any) -> None:
    result = run(
        EVERYTHING, "everything", {**GOOD, **arguments} if isinstance(arguments, dict) else arguments
    )
    assert isinstance(result.content, str)
