from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindset.calls.call import Usage
from mindset.calls.log import CallLog
from mindset.calls.runs import run
from mindset.errors import CallError, MissingError, NotRecordedError, OverloadedError
from mindset.llm.budget import budget
from mindset.llm.capabilities import Capabilities
from mindset.llm.client import Client
from mindset.llm.events import Embeddings, Event, Finished, Forward, Read, TextPiece, to_json
from mindset.llm.messages import system, user
from mindset.llm.opening import open_client
from mindset.llm.policy import Policy
from mindset.llm.replaying import ReplayClient, replaying
from mindset.llm.request import ForwardRequest, Request
from mindset.llm.requests_allowed import forbid_requests
from mindset.llm.scripted import Line, ScriptedClient

Go = Callable[[Any], Any]
QUESTION = Request((user("Who?"),))


class Forbidden(Client):
    """A model that must not be touched."""

    @property
    def capabilities(self) -> Capabilities:
        raise AssertionError("capabilities were asked for")

    async def _prepare(self) -> None:
        raise AssertionError("the model was loaded")


def forbidden(log: CallLog, model: str = "script") -> Client:
    return Forbidden(model, log=log)


async def events_of(client: Client, request: Request = QUESTION) -> list[str]:
    """Events as the bytes that they are."""
    return [json.dumps(to_json(event)) async for event in client.complete(request)]


def test_events_come_again_byte_for_byte_and_no_model_is_touched(log: CallLog, go: Go) -> None:
    lines = [
        Line("One, naïve 😀.", reasoning="let me think", usage=Usage(1, 2, 3, 4)),
        Line(fails="busy", retry=True),
        "Two.",
        "Three.",
    ]
    with run("original"):
        client = ScriptedClient(lines, log=log, policy=Policy(backoff=0.01))
        first = [go(events_of(client)) for _ in range(3)]
    with replaying("original", log), forbid_requests(), budget(tokens=0):
        again = [go(events_of(forbidden(log))) for _ in range(3)]
    assert again == first
    assert '"event": "retried"' in first[1][1]
    rows = [log.call(number) for number in (4, 5, 6)]
    assert [row.outcome.replayed_from for row in rows] == [1, 2, 3]
    assert [row.outcome.usage for row in rows] == [log.call(number).outcome.usage for number in (1, 2, 3)]
    assert [row.pieces[-1].event for row in rows] == [
        log.call(number).pieces[-1].event for number in (1, 2, 3)
    ]


def test_equal_requests_at_the_same_time_come_in_their_order(log: CallLog, go: Go) -> None:
    async def scenario(client: Client) -> list[str]:
        return [answer.text for answer in await asyncio.gather(*(client.chat("Hi") for _ in range(8)))]

    with run("original"):
        original = go(scenario(ScriptedClient([str(n) for n in range(8)], log=log)))
    with replaying("original", log):
        assert go(scenario(forbidden(log))) == original


def test_what_was_never_asked_is_shown_beside_what_was(log: CallLog, go: Go) -> None:
    with run("original"):
        client = ScriptedClient(lambda _: "ok", log=log)
        go(client.chat([system("Be brief."), user("Who wrote Dracula?")], max_tokens=5))
        go(client.chat("Something else"))
    with replaying("original", log):
        with pytest.raises(NotRecordedError) as raised:
            go(forbidden(log).chat([system("Be brief."), user("Who wrote Emma?")], max_tokens=6))
        told = str(raised.value)
        assert "run original never asked script this; the nearest is call 1:" in told
        for line in (
            "-max_tokens = 5",
            "+max_tokens = 6",
            "-Who wrote Dracula?",
            "+Who wrote Emma?",
            " Be brief.",
        ):
            assert line in told.splitlines(), told
        assert go(forbidden(log).chat("Something else")).text == "ok"
        with pytest.raises(
            NotRecordedError, match="asked script this 1 times, and now it is asked once more"
        ):
            go(forbidden(log).chat("Something else"))
        with pytest.raises(NotRecordedError):
            go(forbidden(log, "another").chat("Something else"))
    assert log.call(3).outcome.status == "failed"


def test_failures_fail_alike(log: CallLog, go: Go) -> None:
    lines = [
        Line("some words", fails="dead", fails_after=1),
        OverloadedError("full", retry_after=7),
        ZeroDivisionError("a bug"),
    ]

    def fails(client: Client) -> list[tuple[str, str, Any]]:
        found = []
        for _ in range(3):
            with pytest.raises(Exception) as raised:  # noqa: PT011 - which one it is, is compared
                go(client.chat("Hi"))
            found.append(
                (type(raised.value).__name__, str(raised.value), getattr(raised.value, "retry_after", 0))
            )
        return found

    with run("original"):
        original = fails(ScriptedClient(lines, log=log, policy=Policy(attempts=1)))
    with replaying("original", log):
        again = fails(forbidden(log))
    assert original[:2] == again[:2] == [("CallError", "dead", None), ("OverloadedError", "full", 7)]
    assert again[2] == ("CallError", "ZeroDivisionError: a bug", None)
    assert log.call(4).outcome.answer == log.call(1).outcome.answer
    assert log.call(4).outcome.status == "failed"


def test_what_was_refused_is_refused_again(log: CallLog, go: Go) -> None:
    from mindset.errors import BudgetError

    with run("original"), budget(tokens=0), pytest.raises(BudgetError) as first:
        go(ScriptedClient(["x"], log=log).chat("Hi"))
    with replaying("original", log), pytest.raises(BudgetError) as again:
        go(forbidden(log).chat("Hi"))
    assert str(first.value) == str(again.value)
    assert log.call(2).outcome.status == "refused"


def test_what_was_cancelled_is_cancelled_again(log: CallLog, go: Go) -> None:
    async def broken_off(client: Client) -> list[str]:
        seen = []
        async for event in client.complete(QUESTION):
            seen.append(json.dumps(to_json(event)))
            if isinstance(event, TextPiece) and "two" in event.text:
                break
        return seen

    async def stopped(client: Client) -> list[str]:
        stream = client.complete(Request(prompt="Go on:"))
        for _ in range(2):
            await anext(stream)
        await stream.cancel()
        return [json.dumps(to_json(event)) for event in stream.events]

    with run("original"):
        client = ScriptedClient(lambda _: Line("one two three", pace=0.02), log=log)
        original = [go(broken_off(client)), go(stopped(client))]
    with replaying("original", log):
        assert [go(broken_off(forbidden(log))), go(stopped(forbidden(log)))] == original
    with replaying("original", log):
        read_on = go(events_of(forbidden(log)))
        assert read_on[:-1] == original[0]
        assert json.loads(read_on[-1]) == {"event": "finished", "reason": "cancelled", "usage": {}}
        assert go(events_of(forbidden(log), Request(prompt="Go on:"))) == original[1]
    assert {log.call(number).outcome.status for number in range(1, 7)} == {"cancelled"}


class Full(ScriptedClient):
    """Shows passes too."""

    def __init__(self, log: CallLog, size: int, **more: Any) -> None:
        able = Capabilities(forward=True, embed=True, tokens=True, reads=True)
        super().__init__([], log=log, capabilities=able, **more)
        self.size = size

    async def _forward(self, request: ForwardRequest) -> Forward:
        logits = np.arange(self.size, dtype=np.float32).reshape(1, -1)
        return Forward(
            (1, 2), logits, reads=((), (Read(1, 2, 0.5),)), model="full", content_hash="ab", usage=Usage(2)
        )


async def everything(client: Client) -> tuple[Embeddings, Sequence[int], str, Forward]:
    return (
        await client.embed(["a", "b"]),
        await client.encode("né"),
        await client.decode([110]),
        await client.forward(ForwardRequest("x", reads=1)),
    )


def test_results_come_again_too(log: CallLog, go: Go) -> None:
    with run("original"):
        first = go(everything(Full(log, 10)))
    with replaying("original", log):
        again = go(everything(forbidden(log)))
    assert again[0].vectors.tobytes() == first[0].vectors.tobytes()
    assert (again[0].usage, again[0].model) == (first[0].usage, first[0].model)
    assert again[1:3] == first[1:3] == ((110, 195, 169), "n")
    assert again[3].logits is not None
    assert first[3].logits is not None
    assert again[3].logits.tobytes() == first[3].logits.tobytes()
    assert (again[3].ids, again[3].reads, again[3].content_hash) == ((1, 2), ((), (Read(1, 2, 0.5),)), "ab")
    assert again[3].hidden_states is None
    assert log.call(8).outcome.content_hash == "ab"


def test_what_was_too_large_to_record_says_so(log: CallLog, go: Go) -> None:
    with run("original"):
        go(Full(log, 1000, policy=Policy(kept_arrays=100)).forward(ForwardRequest("x")))
    assert log.call(1).outcome.result["logits"] == {"dtype": "float32", "shape": [1, 1000]}
    with (
        replaying("original", log),
        pytest.raises(NotRecordedError, match=r"\[1, 1000\] of float32, were too large"),
    ):
        go(forbidden(log).forward(ForwardRequest("x")))


def test_a_run_is_a_model_too(log: CallLog, go: Go) -> None:
    with run("original"):
        go(ScriptedClient(["from one"], log=log, model="one").chat("Hi"))
        go(ScriptedClient(["from two"], log=log, model="two").chat("Ho"))
    client = open_client("replay:original", log=log)
    assert isinstance(client, ReplayClient)
    assert [go(client.chat(text)).text for text in ("Ho", "Hi")] == ["from two", "from one"]
    assert log.call(3).asked.model == "replay:original"
    assert log.call(3).outcome.replayed_from == 2
    with pytest.raises(NotRecordedError, match="the nearest is call 1"):
        go(client.chat("Hm"))
    with pytest.raises(MissingError, match="there is no run 'none'"):
        go(ReplayClient("none", log=log).chat("Hi"))


class Interrupted(ScriptedClient):
    async def _embed(self, texts: Sequence[str]) -> Embeddings:
        await asyncio.sleep(60)
        raise AssertionError

    async def _stream(self, request: Request) -> AsyncIterator[Event]:
        yield TextPiece("x")
        yield Finished("stop")


def test_a_cancelled_result_is_cancelled_again(log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Interrupted([], log=log).embed(["x"]), 0.1)

    with run("original"):
        go(scenario())
    with replaying("original", log), pytest.raises(asyncio.CancelledError):
        asyncio.run(forbidden(log).embed(["x"]))
    assert [log.call(number).outcome.status for number in (1, 2)] == ["cancelled", "cancelled"]


PROGRAM = """
import asyncio, sys
from mindset.llm.opening import open_client
async def main():
    async with open_client("http://127.0.0.1:9/v1#m" if sys.argv[1] == "http" else sys.argv[1], attempts=1) as client:
        for question in ("One?", "Two?", "One?"):
            print((await client.chat(question)).text)
asyncio.run(main())
"""


def test_a_variable_replays_a_whole_program(tmp_path: Path, go: Go) -> None:
    home = {**os.environ, "MINDSET_HOME": str(tmp_path / "home")}
    script = tmp_path / "answers.jsonl"
    script.write_text('"first"\n"second"\n"third"\n')

    def program(**more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, f"script:{script}"]
        return subprocess.run(command, capture_output=True, text=True, env={**home, **more})

    recorded = program()
    assert recorded.stdout.split() == ["first", "second", "third"], recorded.stderr
    script.write_text("")
    log = CallLog.open(f"sqlite:///{tmp_path / 'home' / 'calls.sqlite'}")
    original = log.call(1).run
    log.close()
    replayed = program(MINDSET_REPLAY=original)
    assert replayed.stdout == recorded.stdout, replayed.stderr
    missing = program(MINDSET_REPLAY="no such run")
    assert "there is no run 'no such run'" in missing.stderr


def test_a_call_that_was_cut_off_says_so(log: CallLog, go: Go) -> None:
    with run("original"):
        go(ScriptedClient(["x"], log=log).chat("Hi"))
    with log.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE calls SET status = 'failed', error = 'its process ended', result = NULL"
        )
        connection.exec_driver_sql("DELETE FROM pieces")
    with replaying("original", log), pytest.raises(CallError, match="its process ended"):
        go(forbidden(log).chat("Hi"))


@pytest.mark.parametrize("able", [Capabilities(chat=True, schema=True), Capabilities(chat=True)])
def test_values_come_again_whether_the_model_was_held_to_a_schema_or_not(
    log: CallLog, go: Go, able: Capabilities
) -> None:
    async def scenario(client: Client) -> list[Any]:
        return [await client.structured("Which?", list[int], temperature=0) for _ in range(2)]

    with run("original"):
        client = ScriptedClient(['{"value": [1]}', "no", '{"value": [2]}'], log=log, capabilities=able)
        assert go(scenario(client)) == [[1], [2]]
    with replaying("original", log):
        assert go(scenario(forbidden(log))) == [[1], [2]]
    assert go(scenario(ReplayClient("original", log=log))) == [[1], [2]]
