from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import pytest

from mindset.calls.log import CallLog
from mindset.calls.runs import run
from mindset.errors import CallError, CallTimeoutError, OverloadedError, UnsupportedRequestError, UsageError
from mindset.llm.capabilities import Capabilities
from mindset.llm.client import Client
from mindset.llm.events import Event, Finished, Retried, Started, TextPiece
from mindset.llm.messages import assistant, system, user
from mindset.llm.policy import Policy
from mindset.llm.request import ForwardRequest, Options, Request
from mindset.llm.scripted import Line, ScriptedClient

Go = Callable[[Any], Any]
QUESTION = Request((user("Who?"),))


class Broken(Client):
    """Speaks, and then does what it was made to do."""

    def __init__(self, log: CallLog, then: Callable[[], Any], **more: Any) -> None:
        super().__init__("broken", log=log, **more)
        self.then = then

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(chat=True)

    async def _stream(self, request: Request) -> AsyncIterator[Event]:
        yield Started("broken one")
        yield TextPiece("so far")
        await self.then()


def test_an_answer_is_whole_and_its_row_knows_everything(log: CallLog, go: Go) -> None:
    client = ScriptedClient(["Bram Stoker did."], log=log)
    messages = (system("Be brief."), user("Who wrote Dracula?"))
    answer = go(client.chat(messages, max_tokens=50, temperature=0, stop=["\n"]))
    assert answer.text == "Bram Stoker did."
    assert answer.finish_reason == "stop"
    row = log.call(answer.call_id)
    assert row.asked.options == {"max_tokens": 50, "temperature": 0, "stop": ["\n"]}
    assert row.asked.nodes == Request(messages).nodes()
    assert (row.asked.verb, row.asked.model, row.asked.client) == ("complete", "script", "script")
    assert row.outcome.status == "ok"
    assert row.outcome.answer[0].content["parts"] == [{"type": "text", "text": "Bram Stoker did."}]
    assert row.outcome.usage.completion_tokens == 3
    assert row.outcome.seconds >= row.outcome.first_token > 0
    assert row.outcome.local_seconds > 0


def test_a_client_without_a_log_writes_to_the_users_own(go: Go) -> None:
    answer = go(ScriptedClient(["yes"]).chat("Really?"))
    own = CallLog.open()
    assert own.call(answer.call_id).outcome.status == "ok"
    own.close()


def test_the_public_methods_cannot_be_replaced() -> None:
    with pytest.raises(TypeError, match="Sly replaces chat, complete of Client"):

        class Sly(Client):
            def complete(self, request: Request, **more: Any) -> Any:
                return None

            async def chat(self, *messages: Any, **options: Any) -> Any:
                return None

    for name in (
        "embed",
        "encode",
        "decode",
        "forward",
        "content_hash",
        "close",
        "__aenter__",
        "_log",
        "_once",
    ):
        with pytest.raises(TypeError, match=name):
            type("Sly", (Client,), {name: lambda self: None})
    mixed = type("Mixed", (), {"chat": lambda self: None})
    with pytest.raises(TypeError, match="Below replaces chat of Client"):
        type("Below", (mixed, ScriptedClient), {})


def test_the_row_is_there_before_the_model_is_asked(log: CallLog, go: Go) -> None:
    seen: list[str] = []

    def look(request: Request) -> str:
        with log.engine.connect() as connection:
            seen.extend(connection.exec_driver_sql("SELECT status FROM calls").scalars())
        return "ok"

    go(ScriptedClient(look, log=log).chat("Hi"))
    assert seen == ["running"]


def test_the_row_is_finished_before_the_last_event_is_handed_out(log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        stream = ScriptedClient(["one two"], log=log).complete(QUESTION)
        async for event in stream:
            if isinstance(event, Finished):
                assert log.call(stream.call_id).outcome.status == "ok"
                assert len(log.call(stream.call_id).pieces) == 4

    go(scenario())


def test_every_verb_is_a_row(log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        client = ScriptedClient([], log=log)
        vectors = (await client.embed(["a b", "b a", "c"])).vectors
        assert vectors.shape == (3, 64)
        assert vectors[0] @ vectors[1] > 0.99 > vectors[0] @ vectors[2]
        assert await client.encode("né") == tuple("né".encode())
        assert await client.decode([110, 195, 169]) == "né"

    go(scenario())
    rows = [log.call(number) for number in (1, 2, 3)]
    assert [row.asked.verb for row in rows] == ["embed", "encode", "decode"]
    assert {row.outcome.status for row in rows} == {"ok"}
    assert rows[1].outcome.result == {"ids": [110, 195, 169]}
    assert rows[2].outcome.result == {"text": "né"}


def test_a_failure_keeps_what_was_said_and_its_sentence(log: CallLog, go: Go) -> None:
    client = ScriptedClient(
        [Line("I was about to", fails="the line\n is dead", fails_after=2, retry=True)], log=log
    )
    with pytest.raises(CallError, match="is dead"):
        go(client.chat("Hi"))
    row = log.call(1)
    assert row.outcome.status == "failed"
    assert row.outcome.error == "the line is dead"
    assert row.outcome.answer[0].content["parts"][0]["text"] == "I was"
    assert len(client.requests) == 1, "nobody may hear the same words twice"


def test_failures_before_the_first_word_are_tried_again(log: CallLog, go: Go) -> None:
    client = ScriptedClient(
        [Line(fails="busy", retry=True), OverloadedError("full", retry_after=0.05), "Here I am."],
        log=log,
        policy=Policy(backoff=0.01),
    )

    async def scenario() -> list[Event]:
        return [event async for event in client.complete(QUESTION)]

    events = go(scenario())
    retried = [event for event in events if isinstance(event, Retried)]
    assert [event.reason for event in retried] == ["busy", "full"]
    assert 0 <= retried[0].wait <= 0.01
    assert retried[1].wait == 0.05
    assert sum(isinstance(event, Started) for event in events) == 1
    row = log.call(1).outcome
    assert [retry.reason for retry in row.retries] == ["busy", "full"]
    assert row.status == "ok"


@pytest.mark.parametrize(
    ("failure", "attempts"),
    [
        (CallError("no such model"), 1),
        (CallError("busy", retry=True), 3),
        (OverloadedError("come back tomorrow", retry_after=86400), 1),
        (CallError("longer than the call may wait", retry=True, retry_after=30), 1),
    ],
)
def test_it_is_given_up_where_another_attempt_is_of_no_use(
    log: CallLog, go: Go, failure: CallError, attempts: int
) -> None:
    client = ScriptedClient(lambda _: failure, log=log, policy=Policy(backoff=0, attempts=3))
    with pytest.raises(CallError) as raised:
        go(client.chat("Hi", timeout=20))
    assert raised.value is failure
    assert len(client.requests) == attempts


def test_results_in_one_piece_are_tried_again_too(log: CallLog, go: Go) -> None:
    class Flaky(ScriptedClient):
        tries = 0

        async def _encode(self, text: str) -> tuple[int, ...]:
            self.tries += 1
            if self.tries < 3:
                raise CallError("not yet", retry=True)
            return (1,)

    assert go(Flaky([], log=log, policy=Policy(backoff=0)).encode("x")) == (1,)
    assert [retry.reason for retry in log.call(1).outcome.retries] == ["not yet", "not yet"]


def test_a_call_ends_when_its_time_is_over(log: CallLog, go: Go) -> None:
    client = ScriptedClient([Line("too late to say", pace=5)], log=log)
    with pytest.raises(CallTimeoutError, match=r"script gave no full answer within 0.2 seconds"):
        go(client.chat("Hi", timeout=0.2))
    assert log.call(1).outcome.status == "failed"
    assert log.call(1).outcome.answer[0].content["parts"][0]["text"] == "too"


def test_no_sign_of_life_is_worth_another_attempt(log: CallLog, go: Go) -> None:
    class Sleepy(Broken):
        naps: ClassVar[list[float]] = [5.0, 0.0]

        async def _stream(self, request: Request) -> AsyncIterator[Event]:
            await asyncio.sleep(self.naps.pop(0))
            yield TextPiece("awake")
            yield Finished("stop")

    client = Sleepy(log, then=lambda: None, policy=Policy(first_event=0.1, backoff=0))
    assert go(client.chat("Hi")).text == "awake"
    assert log.call(1).outcome.retries[0].reason == "broken gave no sign of life within 0.1 seconds"


def test_the_readers_own_time_does_not_count(log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        async for _ in ScriptedClient(["a b c"], log=log).complete(QUESTION, timeout=0.15):
            await asyncio.sleep(0.1)

    go(scenario())
    assert log.call(1).outcome.status == "ok"


def test_an_answer_without_an_end_is_a_failure(log: CallLog, go: Go) -> None:
    async def nothing() -> None:
        pass

    with pytest.raises(CallError, match="broke off before its answer was finished"):
        go(Broken(log, nothing).chat("Hi"))


def test_a_bug_in_a_client_is_a_failed_call_and_stays_what_it_is(log: CallLog, go: Go) -> None:
    async def bug() -> None:
        raise ZeroDivisionError("one by none")

    with pytest.raises(ZeroDivisionError):
        go(Broken(log, bug).chat("Hi"))
    assert log.call(1).outcome.error == "ZeroDivisionError: one by none"


def test_what_a_model_cannot_do_is_refused_before_it_is_asked(log: CallLog, go: Go) -> None:
    client = ScriptedClient([], log=log, capabilities=Capabilities(chat=True))
    with pytest.raises(UnsupportedRequestError, match=r"cannot be asked for a JSON schema .* and a seed"):
        go(client.chat("Hi", schema={}, seed=1))
    with pytest.raises(UnsupportedRequestError, match="the inside of a pass"):
        go(client.forward(ForwardRequest("x")))
    with pytest.raises(UnsupportedRequestError, match="embeddings; it offers dialogs"):
        go(client.embed(["x"]))
    assert client.requests == []
    assert {log.call(number).outcome.status for number in (1, 2, 3)} == {"failed"}


def test_wrong_arguments_are_told_at_once(log: CallLog, go: Go) -> None:
    client = ScriptedClient([], log=log)
    with pytest.raises(UsageError, match="there is no option tempertaure; there are max_tokens"):
        go(client.chat("Hi", tempertaure=1))
    with pytest.raises(UsageError, match="timeout=0 leaves no time"):
        go(client.chat("Hi", timeout=0))
    with pytest.raises(UsageError, match="one text or more"):
        go(client.embed([]))


def test_a_call_belongs_to_its_run_and_its_parent(log: CallLog, go: Go) -> None:
    client = ScriptedClient(lambda _: "yes", log=log)
    with run("experiment") as begun:
        first = go(client.chat("Hi"))
        second = go(client.chat([user("Hi"), assistant("yes"), user("Sure?")], parent=first.call_id))
    row = log.call(second.call_id)
    assert row.run == begun.id
    assert row.asked.parent == first.call_id


def test_many_at_once_in_several_loops(log: CallLog) -> None:
    client = ScriptedClient(lambda request: Line(request.messages[0].text, delay=0.01), log=log)

    async def scenario(start: int) -> list[str]:
        numbers = range(start, start + 20)
        answers = await asyncio.gather(*(client.chat(f"number {number}") for number in numbers))
        return [answer.text for answer in answers]

    async def threads() -> list[list[str]]:
        return await asyncio.gather(*(asyncio.to_thread(asyncio.run, scenario(n)) for n in (0, 100)))

    found = asyncio.run(threads())
    assert found == [[f"number {n}" for n in range(start, start + 20)] for start in (0, 100)]


def test_importing_clients_loads_no_model_library() -> None:
    modules = "attempts client opening replaying scripted openai_client anthropic_client tools tool_loop"
    code = (
        "import sys, importlib\n"
        f"for name in {modules.split()!r}: importlib.import_module('mindset.llm.' + name)\n"
        "print([name for name in ('torch', 'transformers', 'grpc', 'starlette') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_options_are_those_of_a_request(log: CallLog, go: Go) -> None:
    client = ScriptedClient(lambda _: "yes", log=log)
    go(client.chat(user("Hi"), stop="x", top_k=3))
    assert client.requests[0].options == Options(stop=("x",), top_k=3)


def test_getting_ready_is_tried_again_too(log: CallLog, go: Go) -> None:
    class Distant(ScriptedClient):
        tries = 0

        async def _prepare(self) -> None:
            self.tries += 1
            if self.tries < 3:
                raise CallError("nobody there yet", retry=True)

    client = Distant(["here"], log=log, policy=Policy(backoff=0))
    assert go(client.chat("Hi")).text == "here"
    assert len(log.call(1).outcome.retries) == 2
