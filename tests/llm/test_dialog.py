from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindset.calls.log import CallLog
from mindset.calls.pruning import prune
from mindset.calls.threads import Threads
from mindset.errors import CallError, MissingError, UsageError
from mindset.llm.dialog import Dialog
from mindset.llm.events import TextPiece
from mindset.llm.exchanges import exchanges
from mindset.llm.messages import ToolCall, ToolResult
from mindset.llm.request import Request
from mindset.llm.scripted import Line, ScriptedClient
from mindset.llm.tools import ToolSet
from mindset.llm.turn import ROUNDS, STOPPED, Turn

Go = Callable[[Coroutine[Any, Any, Any]], Any]
Path_ = tuple[tuple[str, str], ...]


def echo(request: Request) -> str:
    """The same dialog gets the same answer."""
    return f"{request.messages[-1].text}, {len(request.messages)} said"


async def heard(turn: Turn, pieces: int | None = None) -> Turn:
    """Listen to a turn, to its end or until so many pieces have come."""
    async with turn:
        if pieces == 0:
            return turn
        async for news in turn:
            if isinstance(news, TextPiece) and pieces is not None:
                pieces -= 1
                if not pieces:
                    break
    return turn


def said(dialog: Dialog) -> Path_:
    return tuple((exchange.question, exchange.answer) for exchange in dialog.exchanges)


def paths(log: CallLog, dialog: Dialog) -> dict[str, Path_]:
    """What every branch says, read from the tree."""
    return {
        branch.name: tuple((e.question, e.answer) for e in exchanges(log.tree.path(branch.tip)) if e.asks)
        for branch in dialog.branches()
        if branch.tip
    }


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["say", "stop", "fail", "back", "retry", "fork", "switch", "hash"]), st.integers(0, 3)
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=30)
@given(STEPS)
def test_whatever_is_done_nothing_is_lost_and_the_place_is_right(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    log = CallLog.open(f"sqlite:///{tmp_path_factory.mktemp('dialog') / 'calls.sqlite'}")
    ever: set[Path_] = set()

    async def live(dialog: Dialog) -> None:
        here: Path_ = ()
        for step, number in steps:
            here = await one_step(log, dialog, here, step, number)
            ever.add(here)
            assert said(dialog) == here
            branches = paths(log, dialog)
            for path in ever:
                assert not path or any(line[: len(path)] == path for line in branches.values())

    dialog = Dialog(log, ScriptedClient(echo, log=log))
    asyncio.run(live(dialog))
    assert log.tree.verify().problems == ()
    if dialog.branch is not None and dialog.branch.tip:
        again = Dialog(log, dialog.client, branch=Threads(log.engine).branch(dialog.branch.id))
        assert said(again) == paths(log, dialog)[dialog.branch.name]
    log.close()


async def one_step(log: CallLog, dialog: Dialog, here: Path_, step: str, number: int) -> Path_:
    """Do something; returns where that should lead."""
    question = "abcd"[number]
    before = 2 * len(here)
    if step == "say":
        await heard(dialog.say(question))
        return (*here, (question, f"{question}, {before + 1} said"))
    if step == "stop":
        await heard(dialog.say(question), number)
        words = f"{question}, {before + 1} said".split(" ")[:number]
        return (*here, (question, " ".join(words))) if number else here
    if step == "fail":
        with pytest.raises(CallError, match="no line"):
            await heard(say_to(dialog, Line("half said", fails="no line", fails_after=number), question))
        words = ["half", "said"][:number]
        return (*here, (question, " ".join(words))) if number else here
    if step in ("back", "retry"):
        return await gone_back(dialog, here, step, number)
    return elsewhere(log, dialog, here, step, number)


def elsewhere(log: CallLog, dialog: Dialog, here: Path_, step: str, number: int) -> Path_:
    if dialog.branch is None:
        with pytest.raises((UsageError, MissingError)):
            dialog.fork() if step == "fork" else dialog.switch("main")
        return here
    if step == "fork":
        assert dialog.fork().tip == dialog.tip
        return here
    branches = dialog.branches()
    branch = branches[number % len(branches)]
    if step == "hash" and branch.tip:
        found = exchanges(log.tree.path(branch.tip))
        wanted = found[number % len(found)]
        dialog.switch(wanted.tip)
        return tuple((e.question, e.answer) for e in found[: found.index(wanted) + 1])
    dialog.switch(branch.name)
    return paths(log, dialog).get(branch.name, ())


async def gone_back(dialog: Dialog, here: Path_, step: str, number: int) -> Path_:
    if step == "back":
        if not 1 <= number <= len(here):
            with pytest.raises(UsageError, match="cannot go back"):
                dialog.back(number)
            return here
        assert dialog.back(number) == here[-number][0]
        return here[:-number]
    if dialog.waiting is not None:
        waits = dialog.waiting.text
        await heard(dialog.retry())
        return (*here, (waits, f"{waits}, {2 * len(here) + 1} said"))
    if not here:
        with pytest.raises(UsageError, match="nothing was asked"):
            dialog.retry()
        return here
    question = here[-1][0]
    await heard(dialog.retry())
    return (*here[:-1], (question, f"{question}, {2 * len(here) - 1} said"))


def say_to(dialog: Dialog, line: Line, question: str) -> Turn:
    """Say something that gets this answer."""
    usual = dialog.client

    class Once(Turn):
        async def __aexit__(self, *how: Any) -> None:
            await super().__aexit__(*how)
            dialog.client = usual

    dialog.client = ScriptedClient([line], log=dialog.log)
    turn = dialog.say(question)
    turn.__class__ = Once
    return turn


# ---- one at a time ---------------------------------------------------------------------------------------------------


def test_a_task_that_is_cancelled_keeps_what_had_come(log: CallLog, go: Go) -> None:
    dialog = Dialog(log, ScriptedClient([Line("one two three", pace=0.05)] * 2, log=log))

    async def scenario() -> None:
        task = asyncio.create_task(heard(dialog.say("count")))
        while not dialog.client.requests:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.03)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    go(scenario())
    (exchange,) = dialog.exchanges
    assert (exchange.question, exchange.answer.split()[0]) == ("count", "one")
    assert log.call(1).outcome.status == "cancelled"
    assert log.tree.path(dialog.tip or "")[-1].hash == dialog.tip


def test_what_got_no_answer_is_remembered(log: CallLog, go: Go) -> None:
    dialog = Dialog(log, ScriptedClient([Line(fails="the line is dead"), "here"], log=log))
    with pytest.raises(CallError, match="dead"):
        go(heard(dialog.say("hello?")))
    assert said(dialog) == ()
    assert dialog.branch is None
    go(heard(dialog.retry()))
    assert said(dialog) == (("hello?", "here"),)
    with pytest.raises(CallError, match="once more"):
        go(heard(dialog.retry()))
    assert said(dialog) == (("hello?", "here"),)


def test_a_conversation_goes_on_in_another_process(log: CallLog, go: Go) -> None:
    client = ScriptedClient(echo, log=log)
    first = Dialog(log, client)
    first.instruct("Be brief.")
    go(heard(first.say("a")))
    go(heard(first.say("b")))
    again = Dialog(log, client, branch=Threads(log.engine).latest())
    assert again.system == "Be brief."
    go(heard(again.say("c")))
    assert [message.role for message in client.requests[-1].messages] == [
        "system",
        *["user", "assistant"] * 2,
        "user",
    ]
    assert list(paths(log, again)) == ["main"]


def test_a_conversation_outlives_its_calls(log: CallLog, go: Go) -> None:
    dialog = Dialog(log, ScriptedClient(echo, log=log))
    for question in "ab":
        go(heard(dialog.say(question)))
    assert prune(log, keep=0).calls == 2
    again = Dialog(log, dialog.client, branch=Threads(log.engine).latest())
    assert [exchange.question for exchange in again.exchanges] == ["a", "b"]


def test_two_who_go_on_at_once_end_on_two_branches(log: CallLog, go: Go) -> None:
    client = ScriptedClient(echo, log=log)
    one = Dialog(log, client)
    go(heard(one.say("a")))
    other = Dialog(log, client, branch=one.branch)
    go(heard(other.say("b")))
    go(heard(one.say("c")))
    assert {name: path[-1][0] for name, path in paths(log, one).items()} == {"main": "b", "2": "c"}


def test_other_instructions_tell_the_whole_dialog_anew(log: CallLog, go: Go) -> None:
    dialog = Dialog(log, ScriptedClient(echo, log=log))
    go(heard(dialog.say("a")))
    dialog.instruct("Be brief.")
    assert (dialog.system, said(dialog)) == ("Be brief.", (("a", "a, 1 said"),))
    go(heard(dialog.say("b")))
    dialog.instruct(None)
    assert dialog.system is None
    assert len(dialog.branches()) == 3
    dialog.switch("main")
    assert (dialog.system, said(dialog)) == (None, (("a", "a, 1 said"),))


def test_a_long_dialog_is_sent_without_its_oldest_exchanges(log: CallLog, go: Go) -> None:
    class Small(ScriptedClient):
        @property
        def context(self) -> int:
            return 100

    client = Small(lambda request: "x" * 60, log=log)
    dialog = Dialog(log, client)
    dialog.instruct("Be brief.")
    turns = [go(heard(dialog.say(f"{number} " + "y" * 60))) for number in range(4)]
    assert [turn.left_out for turn in turns] == [0, 1, 2, 3]
    last = client.requests[-1].messages
    assert [message.text[:1] for message in last] == ["B", "3"]
    assert len(dialog.exchanges) == 4
    (fork,) = dialog.tree()
    assert fork.after[0].after[0].after[0].names == ["main"]


def test_an_endpoint_that_says_too_long_gets_less(log: CallLog, go: Go) -> None:
    def answer(request: Request) -> str | Exception:
        if sum(len(message.text) for message in request.messages) > 300:
            return CallError("this model's maximum context length is 300 tokens")
        return "x" * 100

    dialog = Dialog(log, ScriptedClient(answer, log=log))
    turns = [go(heard(dialog.say(f"{number} " + "y" * 100))) for number in range(4)]
    assert [turn.left_out for turn in turns] == [0, 1, 2, 3]
    with pytest.raises(CallError, match="maximum context"):
        go(heard(dialog.say("z" * 400)))
    assert len(dialog.exchanges) == 4


def test_a_deleted_part_is_left_out_with_its_exchange(log: CallLog, go: Go) -> None:
    client = ScriptedClient(echo, log=log)
    dialog = Dialog(log, client)
    for question in "abc":
        go(heard(dialog.say(question)))
    for place in (2, 5):  # the question b, and the answer to c
        log.tree.delete(log.tree.path(dialog.tip or "")[place].hash)
    again = Dialog(log, client, branch=Threads(log.engine).latest())
    assert [exchange.question for exchange in again.exchanges] == ["a", "", "c"]
    go(heard(again.say("d")))
    assert [message.text[0] for message in client.requests[-1].messages] == ["a", "a", "d"]
    again.back(3)
    with pytest.raises(UsageError, match="deleted"):
        Dialog(log, client, branch=Threads(log.engine).latest()).instruct("x")


def test_secrets_are_not_kept(log: CallLog, go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "very-secret-value-123")
    dialog = Dialog(log, ScriptedClient(["it is very-secret-value-123"], log=log))
    dialog.instruct("never say very-secret-value-123")
    go(heard(dialog.say("what is very-secret-value-123?")))
    kept = [str(node.content) for node in log.tree.path(dialog.tip or "")]
    assert len(kept) == 3
    assert not any("very-secret" in text for text in kept)
    assert log.tree.tips()[0].hash == dialog.tip  # the log has the same nodes


# ---- tools -----------------------------------------------------------------------------------------------------------


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


ASKS = Line(
    "I shall see.", tool_calls=(ToolCall("1", "add", '{"a": 1, "b": 2}'), ToolCall("2", "gone", "{}"))
)


def results(dialog: Dialog) -> list[tuple[str, bool]]:
    return [
        (part.content, part.is_error)
        for message in dialog.messages
        for part in message.parts
        if isinstance(part, ToolResult)
    ]


def test_tools_run_and_the_model_reads_what_came_of_them(log: CallLog, go: Go) -> None:
    client = ScriptedClient([ASKS, "It is 3."], log=log)
    dialog = Dialog(log, client, tools=ToolSet([add]))
    turn = go(heard(dialog.say("1 + 2?")))
    assert turn.calls == [1, 2]
    assert log.call(2).asked.parent == 1
    assert results(dialog) == [("3", False), ("there is no tool 'gone'; there are: add", True)]
    assert [message.role for message in dialog.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert said(dialog) == (("1 + 2?", "I shall see.\nIt is 3."),)


def test_a_tool_waits_for_a_word(log: CallLog, go: Go) -> None:
    client = ScriptedClient([ASKS, "It is 3."], log=log)
    dialog = Dialog(log, client, tools=ToolSet([add]), trusted=["gone"])
    turn = go(heard(dialog.say("1 + 2?")))
    assert [wish.name for wish in turn.waiting] == ["add"]
    assert said(dialog) == ()
    turn.decide({"1": False})
    go(heard(turn))
    assert not turn.waiting
    assert "not allowed" in results(dialog)[0][0]
    assert said(dialog)[0][1] == "I shall see.\nIt is 3."


def test_who_leaves_a_turn_that_waits_keeps_what_was_said(log: CallLog, go: Go) -> None:
    dialog = Dialog(log, ScriptedClient([ASKS, "Well."], log=log), tools=ToolSet([add]), trusted=[])
    turn = go(heard(dialog.say("1 + 2?")))
    turn.leave()
    assert results(dialog) == [(STOPPED, True)] * 2
    go(heard(dialog.say("Never mind.")))
    assert said(dialog)[1] == ("Never mind.", "Well.")


def test_a_tool_that_is_stopped_has_a_result(log: CallLog, go: Go) -> None:
    begun = asyncio.Event()

    async def slow() -> str:
        """Take an hour."""
        begun.set()
        await asyncio.sleep(3600)
        return "done"

    asks = Line(tool_calls=(ToolCall("1", "slow", "{}"),))
    dialog = Dialog(log, ScriptedClient([asks], log=log), tools=ToolSet([slow]))

    async def scenario() -> None:
        task = asyncio.create_task(heard(dialog.say("go")))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    go(scenario())
    assert results(dialog) == [(STOPPED, True)]


def test_a_model_that_never_stops_asking_is_stopped(log: CallLog, go: Go) -> None:
    client = ScriptedClient(lambda _: Line(tool_calls=(ToolCall("1", "add", '{"a": 1, "b": 2}'),)), log=log)
    dialog = Dialog(log, client, tools=ToolSet([add]))
    go(heard(dialog.say("go")))
    assert len(client.requests) == ROUNDS
    assert [error for _, error in results(dialog)] == [False] * (ROUNDS - 1) + [True]


def test_nothing_is_said_by_blanks(log: CallLog) -> None:
    with pytest.raises(UsageError, match="nothing to say"):
        Dialog(log, ScriptedClient([], log=log)).say(" \n")
