from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindset.calls.log import CallLog
from mindset.errors import CallError, FormatError, UsageError
from mindset.llm.events import Finished, TextPiece
from mindset.llm.messages import ToolCall, ToolResult, assistant, tool_result, user
from mindset.llm.paused import Paused
from mindset.llm.request import Request
from mindset.llm.scripted import Line, ScriptedClient
from mindset.llm.tool_loop import Ran, resume, run_tools

Go = Callable[[Any], Any]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def wish(identity: str, a: int, b: int) -> ToolCall:
    return ToolCall(identity, "add", json.dumps({"a": a, "b": b}))


def asks(*calls: ToolCall, text: str = "") -> Line:
    return Line(text, tool_calls=calls)


def test_a_dialog_runs_until_the_model_is_done(log: CallLog, go: Go) -> None:
    client = ScriptedClient(
        [asks(wish("c1", 3, 4), text="I add."), asks(wish("c2", 7, 1)), "It is 8."], log=log
    )
    ran = go(run_tools(client, "What is 3 + 4 + 1?", [add], max_tokens=50))
    assert isinstance(ran, Ran)
    assert ran.answer.text == "It is 8."
    assert (ran.done, ran.rounds) == (True, 3)
    assert ran.messages == (
        user("What is 3 + 4 + 1?"),
        assistant("I add.", wish("c1", 3, 4)),
        tool_result(ToolResult("c1", "7", "add")),
        assistant("", wish("c2", 7, 1)),
        tool_result(ToolResult("c2", "8", "add")),
        assistant("It is 8."),
    )
    assert [request.tools[0].name for request in client.requests] == ["add"] * 3
    assert client.requests[2].options.max_tokens == 50
    assert [log.call(number).asked.parent for number in (1, 2, 3)] == [None, 1, 2]
    assert log.call(3).asked.nodes == Request(ran.messages[:-1]).nodes()


def test_wishes_of_one_answer_run_at_the_same_time_and_are_told_in_order(log: CallLog, go: Go) -> None:
    both = asyncio.Event()
    under_way: list[str] = []

    async def meet(name: str) -> str:
        under_way.append(name)
        if len(under_way) == 2:
            both.set()
        await both.wait()
        if name == "first":
            await asyncio.sleep(0.02)
        return name

    calls = [ToolCall(name, "meet", json.dumps({"name": name})) for name in ("first", "second")]
    ran = go(run_tools(ScriptedClient([asks(*calls), "done"], log=log), "go", [meet]))
    assert [message.parts[0].content for message in ran.messages[2:4]] == ["first", "second"]


def test_errors_go_back_to_the_model(log: CallLog, go: Go) -> None:
    wrong = [
        ToolCall("c1", "add", "{"),
        ToolCall("c2", "subtract", "{}"),
        ToolCall("c3", "add", '{"a": "x", "b": 1}'),
    ]
    client = ScriptedClient([asks(*wrong), "I give up."], log=log)
    go(run_tools(client, "go", [add]))
    results = [message.parts[0] for message in client.requests[1].messages[2:]]
    assert all(isinstance(result, ToolResult) and result.is_error for result in results)
    assert ["Invalid JSON" in results[0].content, "no tool 'subtract'" in results[1].content] == [True, True]


def test_it_ends_when_it_has_asked_often_enough(log: CallLog, go: Go) -> None:
    client = ScriptedClient(lambda _: asks(wish("c", 1, 1)), log=log)
    ran = go(run_tools(client, "go", [add], max_rounds=3))
    assert (ran.done, ran.rounds, len(client.requests)) == (False, 3, 3)
    assert ran.answer.message.tool_calls == (wish("c", 1, 1),)
    with pytest.raises(UsageError, match="max_rounds=0 asks nothing"):
        go(run_tools(client, "go", [add], max_rounds=0))


def test_what_is_not_allowed_does_not_run(log: CallLog, go: Go) -> None:
    ran_with: list[int] = []

    def remember(a: int) -> None:
        ran_with.append(a)

    async def approve(call: ToolCall) -> Any:
        return "yes" if call.parsed()["a"] < 5 else "no"

    calls = [ToolCall(str(a), "remember", json.dumps({"a": a})) for a in (1, 9)]
    client = ScriptedClient([asks(*calls), "fine"], log=log)
    go(run_tools(client, "go", [remember], approve=approve))
    assert ran_with == [1]
    refused = client.requests[1].messages[-1].parts[0]
    assert isinstance(refused, ToolResult)
    assert refused.is_error
    assert "not allowed" in refused.content
    with pytest.raises(UsageError, match="approve answered 'maybe'"):
        go(run_tools(ScriptedClient([asks(*calls)], log=log), "go", [remember], approve=lambda _: "maybe"))  # type: ignore[arg-type,return-value]


def test_a_pause_goes_on_elsewhere_without_asking_again(log: CallLog, go: Go) -> None:
    ran_with: list[int] = []

    def square(a: int) -> int:
        ran_with.append(a)
        return a * a

    calls = [ToolCall(f"c{a}", "square", json.dumps({"a": a})) for a in (1, 2, 3)]
    before = ScriptedClient([asks(*calls)], log=log)
    paused = go(
        run_tools(
            before, "go", [square], approve=lambda call: "pause" if call.id != "c2" else "yes", max_rounds=4
        )
    )
    assert isinstance(paused, Paused)
    assert ran_with == [2]
    assert [call.id for call in paused.waiting] == ["c1", "c3"]

    told = json.dumps(paused.to_json())
    again = go(
        resume(
            ScriptedClient([], log=log),
            Paused.from_json(json.loads(told)),
            [square],
            approve=lambda c: "pause" if c.id == "c3" else "no",
        )
    )
    assert isinstance(again, Paused)
    assert [call.id for call in again.waiting] == ["c3"]

    after = ScriptedClient(["all done"], log=log)
    ran = go(resume(after, again, [square]))
    assert ran.answer.text == "all done"
    assert (ran.rounds, ran_with) == (2, [2, 3])
    assert [message.parts[0].content[:3] for message in after.requests[0].messages[2:]] == ["thi", "4", "9"]
    assert log.call(2).asked.parent == 1


def test_everything_can_be_watched(log: CallLog, go: Go) -> None:
    seen: list[Any] = []
    go(run_tools(ScriptedClient([asks(wish("c", 1, 1)), "two"], log=log), "go", [add], watch=seen.append))
    assert ToolResult("c", "2", "add") in seen
    assert TextPiece("two") in seen
    assert sum(isinstance(one, Finished) for one in seen) == 2


def test_a_tool_that_asks_a_model_is_the_calls_child(log: CallLog, go: Go) -> None:
    helper = ScriptedClient(["from below", "from a thread"], log=log)

    async def consult(how: str) -> str:
        return (await helper.chat(how)).text

    def consult_in_a_thread(how: str) -> str:
        return asyncio.run(helper.chat(how)).text

    first = ToolCall("c1", "consult", '{"how": "x"}')
    second = ToolCall("c2", "consult_in_a_thread", '{"how": "x"}')
    client = ScriptedClient([asks(first), asks(second), "done"], log=log)
    go(run_tools(client, "go", [consult, consult_in_a_thread]))
    rows = [log.call(number) for number in range(1, 6)]
    assert [row.asked.parent for row in rows] == [None, 1, 1, 3, 3]


def test_a_failing_model_fails_the_loop_and_cancelling_cancels_it(log: CallLog, go: Go) -> None:
    with pytest.raises(CallError, match="dead"):
        go(run_tools(ScriptedClient([Line(fails="dead")], log=log), "go", [add]))

    async def scenario() -> None:
        running = asyncio.Event()

        async def hang() -> None:
            running.set()
            await asyncio.sleep(60)

        client = ScriptedClient([asks(ToolCall("c", "hang", "{}"))], log=log)
        task = asyncio.create_task(run_tools(client, "go", [hang]))
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    go(scenario())


WORDS = st.text(max_size=6)
SPOKEN = st.fixed_dictionaries({"type": st.just("text"), "text": WORDS})
NODES = st.one_of(
    st.fixed_dictionaries(
        {
            "kind": st.just("message"),
            "content": st.fixed_dictionaries(
                {"role": st.sampled_from(["user", "assistant"]), "parts": st.lists(SPOKEN, max_size=2)}
            ),
        }
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("tool_call"),
            "content": st.fixed_dictionaries({"id": WORDS, "name": WORDS, "arguments": WORDS}),
        }
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("tool_result"),
            "content": st.fixed_dictionaries({"call_id": WORDS, "content": WORDS, "is_error": st.booleans()}),
        }
    ),
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(1, 99),
        "temperature": st.floats(0, 2),
        "stop": st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=2),
        "schema": st.just({"type": "object"}),
        "extra": st.dictionaries(WORDS, st.integers(), min_size=1, max_size=2),
    },
)
PAUSED = st.fixed_dictionaries(
    {
        "version": st.just(1),
        "messages": st.lists(NODES, max_size=5),
        "options": OPTIONS,
        "max_rounds": st.integers(1, 9),
        "rounds": st.integers(0, 9),
        "parent": st.none() | st.integers(1, 9),
        "waiting": st.lists(
            st.fixed_dictionaries({"id": WORDS, "name": WORDS, "arguments": WORDS}), max_size=2
        ),
        "results": st.lists(st.fixed_dictionaries({"call_id": WORDS, "content": WORDS}), max_size=2),
    }
)


@given(PAUSED)
def test_a_pause_is_json_and_back(told: dict[str, Any]) -> None:
    paused = Paused.from_json(told)
    again = Paused.from_json(json.loads(json.dumps(paused.to_json())))
    assert again == paused
    assert again.options.given() == told["options"]


def test_what_is_no_pause_is_refused() -> None:
    with pytest.raises(FormatError, match="version 7; this release reads 1"):
        Paused.from_json({"version": 7})
    with pytest.raises(FormatError, match="no paused dialog"):
        Paused.from_json({"version": 1})
