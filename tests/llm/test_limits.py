from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindset.calls.log import CallLog
from mindset.errors import CallTimeoutError, UsageError
from mindset.llm.limits import Limiter, Limits, Window, limiter_of
from mindset.llm.policy import Policy
from mindset.llm.scripted import Line, ScriptedClient

Go = Callable[[Any], Any]


@given(
    st.integers(1, 10),
    st.lists(st.tuples(st.floats(0, 30), st.integers(0, 12)), min_size=1, max_size=25),
)
def test_no_stretch_of_time_holds_more_than_allowed(allowance: int, asked: list[tuple[float, int]]) -> None:
    window, now = Window(allowance, 60.0), 0.0
    taken: list[tuple[float, int]] = []
    for pause, amount in asked:
        now += pause
        wait = window.take(now, amount)
        assert wait >= 0
        taken.append((now + wait, amount))
    starts = [at for at, _ in taken]
    assert starts == pytest.approx(sorted(starts)), "in order"
    for start in starts:
        inside = [amount for at, amount in taken if start - 60.0 + 1e-6 < at <= start + 1e-6]
        assert sum(inside) <= allowance or sum(amount > 0 for amount in inside) == 1


def test_nobody_waits_longer_than_needed() -> None:
    window = Window(3, 60.0)
    assert [window.take(0.0, 1) for _ in range(5)] == [0, 0, 0, 60, 60]
    assert window.take(100.0, 1) == 0
    assert window.take(100.0, 2) == 20
    assert Window(3, 60.0).take(5.0, 100) == 0, "what is larger than everything goes alone"


def under_way(limiter: Limiter, tasks: int, seconds: float = 0.005) -> int:
    now = most = 0
    lock = threading.Lock()

    async def work() -> None:
        nonlocal now, most
        async with limiter.turn(1):
            with lock:
                now += 1
                most = max(most, now)
            await asyncio.sleep(seconds)
            with lock:
                now -= 1

    async def scenario() -> None:
        await asyncio.gather(*(work() for _ in range(tasks)))

    threads = [threading.Thread(target=asyncio.run, args=(scenario(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return most


def test_only_so_many_at_once_in_all_loops_together() -> None:
    assert under_way(Limiter(concurrency=4), 20) == 4


def test_a_turn_is_not_lost_with_the_one_who_waited_for_it(go: Go) -> None:
    async def scenario() -> None:
        limiter = Limiter(concurrency=1)

        async def work() -> None:
            async with limiter.turn(1):
                await asyncio.sleep(0.001)

        for step in range(40):
            tasks = [asyncio.create_task(work()) for _ in range(4)]
            await asyncio.sleep(step * 0.0001)
            tasks[step % 4].cancel()
            tasks[(step + 1) % 4].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait_for(work(), 1)

    go(scenario())


def test_a_window_makes_calls_wait(go: Go) -> None:
    async def scenario() -> None:
        limiter = Limiter(requests=Window(2, 0.1))
        begun = time.monotonic()
        for _ in range(4):
            async with limiter.turn(1):
                pass
        assert 0.1 <= time.monotonic() - begun < 2

    go(scenario())


def test_clients_of_one_endpoint_share_their_line() -> None:
    limits = Limits(concurrency=3)
    assert limiter_of("http://a", limits) is limiter_of("http://a", Limits(concurrency=3))
    assert limiter_of("http://a", limits) is not limiter_of("http://b", limits)
    with pytest.raises(UsageError, match="requests_per_minute=0 would let nothing through"):
        Limits(requests_per_minute=0)


def test_calls_keep_to_the_limits_of_their_policy(log: CallLog, go: Go) -> None:
    now = most = 0

    async def answer(_: Any) -> Line:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return Line("ok")

    policy = Policy(limits=Limits(concurrency=2))
    clients = [ScriptedClient(answer, log=log, policy=policy, model="limited") for _ in range(2)]

    async def scenario() -> None:
        await asyncio.gather(*(client.chat("Hi") for client in clients * 4))

    go(scenario())
    assert most == 2


def test_the_time_in_the_line_counts(log: CallLog, go: Go) -> None:
    policy = Policy(limits=Limits(requests_per_minute=1))
    client = ScriptedClient(lambda _: "ok", log=log, policy=policy, model="one a minute")

    async def scenario() -> None:
        assert (await client.chat("Hi")).text == "ok"
        with pytest.raises(CallTimeoutError):
            await client.chat("Hi", timeout=0.1)

    go(scenario())
    assert len(client.requests) == 1


def test_the_tokens_of_a_minute_are_those_asked_for(log: CallLog, go: Go) -> None:
    policy = Policy(limits=Limits(tokens_per_minute=500))
    client = ScriptedClient(lambda _: "ok", log=log, policy=policy, model="few tokens")

    async def scenario() -> None:
        await client.chat("Hi", max_tokens=100)
        with pytest.raises(CallTimeoutError):
            await client.chat("Hi", max_tokens=450, timeout=0.1)

    go(scenario())
