from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mindset.calls.log import CallLog
from mindset.errors import CallError
from mindset.llm import attempts
from mindset.llm.events import Event, Finished, TextPiece, to_json
from mindset.llm.messages import user
from mindset.llm.request import Request
from mindset.llm.scripted import Line, ScriptedClient

Go = Callable[[Any], Any]
QUESTION = Request((user("Count."),))
SLOW = Line("one two three four", pace=0.02)
STUCK = Line("one", pace=60)


def said(log: CallLog, call: int | None) -> str:
    assert call is not None
    row = log.call(call)
    assert row.outcome.status == "cancelled"
    return "".join(part["text"] for node in row.outcome.answer for part in node.content["parts"])


def test_breaking_out_of_the_loop_keeps_what_was_said(log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        async for event in ScriptedClient([SLOW], log=log).complete(QUESTION):
            if isinstance(event, TextPiece) and "two" in event.text:
                break

    go(scenario())
    assert said(log, 1) == "one two"


def test_leaving_the_block_stops_at_once(log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        async with ScriptedClient([SLOW], log=log).complete(QUESTION) as stream:
            await anext(stream)
            await anext(stream)
        assert said(log, stream.call_id) == "one"
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    go(scenario())


def test_a_stream_that_nobody_holds_is_cancelled(log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        stream = ScriptedClient([SLOW], log=log).complete(QUESTION)
        await anext(stream)
        await anext(stream)
        del stream
        gc.collect()
        await asyncio.sleep(0.15)
        assert said(log, 1) == "one"

    go(scenario())


def test_a_cancelled_task_cancels_its_call(log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(ScriptedClient([STUCK], log=log).chat("Hi"))
        await asyncio.sleep(0.15)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert said(log, 1) == "one"

    go(scenario())


def test_a_timeout_around_a_call_cancels_it(log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.15):
                await ScriptedClient([STUCK], log=log).chat("Hi")
        assert said(log, 1) == "one"

    go(scenario())


def test_a_task_cancelled_at_any_moment_leaves_no_row_running(log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        client = ScriptedClient(lambda _: Line("one two three", pace=0.004, delay=0.004), log=log)
        for step in range(30):
            task = asyncio.create_task(client.chat("Hi"))
            await asyncio.sleep(step * 0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    go(scenario())
    with log.engine.connect() as connection:
        rows = dict(connection.exec_driver_sql("SELECT status, count(*) FROM calls GROUP BY status").all())
    assert set(rows) <= {"cancelled", "ok"}
    assert rows["cancelled"] > 5


def test_the_end_of_the_loop_finishes_what_is_under_way(log: CallLog) -> None:
    kept = []

    async def scenario() -> None:
        stream = ScriptedClient([STUCK], log=log).complete(QUESTION)
        await anext(stream)
        await anext(stream)
        kept.append(stream)  # alive when the loop ends

    asyncio.run(scenario())
    assert said(log, 1) == "one"


def test_what_cannot_be_closed_in_order_was_closed_all_the_same(
    log: CallLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a loop that ends closes the place in the line before the call that stands there."""

    class Limiter:
        @asynccontextmanager
        async def turn(self, _: float) -> AsyncIterator[None]:
            try:
                yield
            except GeneratorExit:
                raise RuntimeError("generator didn't stop after athrow()") from None

    async def scenario() -> None:
        stream = ScriptedClient([STUCK], log=log).complete(QUESTION)
        await anext(stream)
        await anext(stream)
        with contextlib.suppress(RuntimeError):
            await stream.aclose()

    monkeypatch.setattr(attempts, "limiter_of", lambda *_: Limiter())
    asyncio.run(scenario())
    assert said(log, 1) == "one"


@pytest.mark.parametrize("reading", [True, False])
def test_cancel_ends_a_stream_with_a_last_event(log: CallLog, go: Go, reading: bool) -> None:
    async def scenario() -> None:
        stream = ScriptedClient([STUCK if reading else SLOW], log=log).complete(QUESTION)
        seen: list[Event] = [await anext(stream), await anext(stream)]

        async def read() -> None:
            seen.extend([event async for event in stream])

        reader = asyncio.create_task(read()) if reading else None
        await asyncio.sleep(0.05)
        answer = await stream.cancel()
        assert answer.text == "one"
        assert answer.finish_reason == "cancelled"
        await (reader or read())
        assert seen[-1] == Finished("cancelled")
        assert said(log, stream.call_id) == "one"
        assert [dict(piece.event) for piece in log.call(1).pieces] == [to_json(event) for event in seen]
        assert (await stream.cancel()).text == "one", "twice is once"

    go(scenario())


def test_cancel_before_anything_was_asked_asks_nothing(log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        client = ScriptedClient([SLOW], log=log)
        stream = client.complete(QUESTION)
        assert (await stream.cancel()).text == ""
        assert [event async for event in stream] == []
        assert client.requests == []
        assert stream.call_id is None

    go(scenario())


def test_cancel_ends_a_wait_for_the_next_attempt(log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        stream = ScriptedClient(lambda _: CallError("busy", retry=True, retry_after=50), log=log).complete(
            QUESTION
        )
        reader = asyncio.create_task(stream.answer())
        await asyncio.sleep(0.1)
        await stream.cancel()
        assert (await reader).finish_reason == "cancelled"

    go(scenario())


def test_an_answer_counts_what_was_read_before(log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        stream = ScriptedClient(["one two"], log=log).complete(QUESTION)
        await anext(stream)
        await anext(stream)
        assert stream.so_far().text == "one"
        assert (await stream.answer()).text == "one two"
        assert (await stream.answer()).call_id == stream.call_id
        assert len(stream.events) == 4

    go(scenario())


def test_pieces_are_in_the_log_while_the_model_hesitates(log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        async with ScriptedClient([STUCK], log=log).complete(QUESTION) as stream:
            await anext(stream)
            await anext(stream)
            for _ in range(100):
                if len(log.call(1).pieces) == 2:
                    return
                await asyncio.sleep(0.05)
            pytest.fail("nothing was noted")

    go(scenario())


KILLED = """
import asyncio, sys
from mindset.calls.log import CallLog
from mindset.llm.request import Request
from mindset.llm.scripted import Line, ScriptedClient
client = ScriptedClient([Line("these words were said and no more", pace=0.05)], log=CallLog.open(sys.argv[1]))
async def main():
    stream = client.complete(Request(prompt="Speak:"))
    for _ in range(5):
        print(await anext(stream), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_a_killed_process_leaves_what_was_said(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'killed.sqlite'}"
    with subprocess.Popen([sys.executable, "-c", KILLED, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline()
        time.sleep(0.2)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            time.sleep(0.1)
            reader = CallLog.open(url, read_only=True)
            if len(reader.call(1).pieces) == 5:
                break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    reader.close()
    log = CallLog.open(url)
    row = log.call(1)
    log.close()
    assert row.outcome.status == "failed"
    assert row.outcome.answer[0].content["parts"][0]["text"] == "these words were said"
