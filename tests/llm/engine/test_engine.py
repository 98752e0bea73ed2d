"""The engine's thread: callers from many threads, a queue with an end, cancellation, closing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from graft.tiny import tiny_model
from llm.engine.texts import Told, alone, spelled, words

from mindset.errors import CallError, OverloadedError, UsageError
from mindset.llm.engine.batch import BatchSettings
from mindset.llm.engine.engine import Engine
from mindset.llm.engine.job import Job
from mindset.llm.request import Options

LONG = Options(max_tokens=100, temperature=1.0, seed=1)


class Waiting(Told):
    """Told of a text on another thread."""

    def __init__(self) -> None:
        super().__init__()
        self.over = threading.Event()
        self.begun = threading.Event()

    def __call__(self, told: object) -> None:
        super().__call__(told)
        self.begun.set()
        if self.last is not None:
            self.over.set()


@contextmanager
def running(**settings: int) -> Iterator[Engine]:
    queue = settings.pop("queue", 64)
    model = tiny_model("llama")
    model.generation_config.eos_token_id = 999  # never said
    engine = Engine(model, words(), settings=BatchSettings(**settings), queue=queue)
    try:
        yield engine
    finally:
        engine.close()
    assert not engine._thread.is_alive()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_callers_on_many_threads_are_told_what_each_asked() -> None:
    with running(rows=4) as engine:
        model = engine.model

        def ask(number: int, found: dict[int, Waiting]) -> None:
            told = found[number] = Waiting()
            engine.submit(Job((5 + number, 7), told, Options(max_tokens=8, temperature=1.0, seed=number)))
            told.over.wait(20)

        found: dict[int, Waiting] = {}
        threads = [threading.Thread(target=ask, args=(n, found)) for n in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        state = engine.state
    assert (state.running, state.waiting, state.finished) == (0, 0, 10)
    for number, told in found.items():
        options = Options(max_tokens=8, temperature=1.0, seed=number)
        wanted = spelled(alone(model, [5 + number, 7], options, ends=frozenset()))
        assert told.text == wanted.replace("c", "")  # a special token, which no text shows


def test_a_full_engine_refuses_and_says_when_to_come_again() -> None:
    with running(rows=1, queue=1) as engine:
        told = [Waiting() for _ in range(2)]
        tickets = [engine.submit(Job((5, 7), one, LONG)) for one in told]
        with pytest.raises(OverloadedError, match="full: 2 texts") as refused:
            engine.submit(Job((5, 7), Waiting(), LONG))
        assert refused.value.retry_after > 0
        for ticket in tickets:
            ticket.cancel()
        until(lambda: engine.state.finished == 2)
        last = Waiting()
        engine.submit(Job((5, 7), last, Options(max_tokens=2)))
        assert last.over.wait(20)


def test_a_cancelled_text_makes_room_at_the_next_step() -> None:
    with running(rows=1) as engine:
        first, second = Waiting(), Waiting()
        ticket = engine.submit(Job((5, 7), first, LONG))
        engine.submit(Job((9, 7), second, Options(max_tokens=3, temperature=1.0, seed=2)))
        first.begun.wait(20)
        ticket.cancel()
        assert first.over.wait(20)
        assert second.over.wait(20)
        assert first.reason == "cancelled"
        assert len(first.text) < 100
        assert ticket.seconds > 0


def test_prompts_that_cannot_be_read_are_refused_at_once() -> None:
    with running() as engine:
        for ids, said in (((), "prompt is empty"), ((5,) * 128, "shorten it")):
            with pytest.raises(UsageError, match=said):
                engine.submit(Job(ids, Waiting()))


def test_something_else_is_done_with_the_model_between_steps() -> None:
    with running() as engine:
        told = Waiting()
        engine.submit(Job((5, 7), told, LONG))
        assert engine.call(lambda: threading.current_thread().name).result(20) == "mindset engine"
        with pytest.raises(ZeroDivisionError):
            engine.call(lambda: 1 // 0).result(20)
        assert told.over.wait(20)
        assert told.reason == "length"


def test_closing_waits_as_long_as_it_is_told() -> None:
    with running(rows=1) as engine:
        told = [Waiting(), Waiting()]
        for one in told:
            engine.submit(Job((5, 7), one, LONG))
        engine.close(drain=None)
        assert [one.reason for one in told] == ["length", "length"]
        with pytest.raises(CallError, match="closed"):
            engine.submit(Job((5, 7), Waiting()))
        with pytest.raises(CallError, match="closed"):
            engine.call(lambda: 1)
    with running(rows=1) as engine:
        told = [Waiting(), Waiting()]
        for one in told:
            engine.submit(Job((5, 7), one, LONG))
        until(told[0].begun.is_set)
        engine.close(drain=0)
        assert all(isinstance(one.last, CallError) and one.last.retry for one in told)


def test_a_context_that_cannot_be_entered_is_told_to_everybody() -> None:
    @contextmanager
    def breaks() -> Iterator[None]:
        raise UsageError("no such folder")
        yield

    engine = Engine(tiny_model("llama"), words(), around=breaks)
    until(lambda: not engine._thread.is_alive())
    with pytest.raises(CallError, match="closed"):
        engine.submit(Job((5,), Waiting()))
    with pytest.raises(UsageError, match="no such folder"):
        engine.close()
    engine.close()


def test_the_thread_works_in_a_context() -> None:
    seen: list[str] = []

    @contextmanager
    def around() -> Iterator[None]:
        seen.append(threading.current_thread().name)
        yield
        seen.append("left")

    engine = Engine(tiny_model("llama"), words(), around=around)
    told = Waiting()
    engine.submit(Job((5, 7), told, Options(max_tokens=3)))
    told.over.wait(20)
    engine.close()
    assert seen == ["mindset engine", "left"]
