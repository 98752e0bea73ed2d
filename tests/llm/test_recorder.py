from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mindset.calls.log import CallLog
from mindset.errors import MindsetError
from mindset.llm.events import Event, Finished, Started, TextPiece
from mindset.llm.messages import user
from mindset.llm.request import Request
from mindset.llm.scripted import Line, ScriptedClient

Go = Callable[[Any], Any]
QUESTION = Request((user("Who?"),))


def break_the_log(log: CallLog) -> None:
    with log.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE pieces RENAME TO pieces_away")


def mend_the_log(log: CallLog) -> None:
    with log.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE pieces_away RENAME TO pieces")


def test_what_could_not_be_noted_is_written_at_the_end(log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        stream = ScriptedClient([Line("one two three", pace=0.15)], log=log).complete(QUESTION)
        await anext(stream)
        await anext(stream)
        await asyncio.to_thread(break_the_log, log)
        await anext(stream)
        await anext(stream)
        await asyncio.sleep(0.15)
        await asyncio.to_thread(mend_the_log, log)
        assert (await stream.answer()).text == "one two three"

    go(scenario())
    assert [piece.event.get("text") for piece in log.call(1).pieces] == [None, "one", " two", " three", None]


def test_an_answer_that_cannot_be_recorded_is_not_handed_out(log: CallLog, go: Go) -> None:
    seen: list[Event] = []

    async def scenario() -> None:
        async for event in ScriptedClient(["x"], log=log).complete(QUESTION):
            seen.append(event)
            if isinstance(event, Started):
                await asyncio.to_thread(break_the_log, log)

    with pytest.raises(Exception, match="pieces"):
        go(scenario())
    assert not any(isinstance(event, Finished) for event in seen)
    assert TextPiece("x") in seen


def test_without_a_log_nothing_is_asked(log: CallLog, go: Go) -> None:
    with log.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE pieces")
        connection.exec_driver_sql("ALTER TABLE calls RENAME TO calls_away")
    client = ScriptedClient(["x"], log=log)
    with pytest.raises(Exception, match="calls"):
        go(client.chat("Hi"))
    assert client.requests == []


def test_an_answer_that_ends_in_an_error_counts_as_failed(log: CallLog, go: Go) -> None:
    answer = go(ScriptedClient([Line("x", finish_reason="error")], log=log).chat("Hi"))
    assert answer.finish_reason == "error"
    assert log.call(1).outcome.status == "failed"
    assert log.call(1).outcome.error == "the model broke off its answer, and said no more"


def test_the_log_is_opened_at_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINDSET_CALLS", "nonsense://")
    client = ScriptedClient(["x"])
    with pytest.raises(MindsetError):
        asyncio.run(client.chat("Hi"))
