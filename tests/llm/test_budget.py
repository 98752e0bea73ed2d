from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm.loopback import serving, whole

from mindset.calls.call import Usage
from mindset.calls.log import CallLog
from mindset.errors import BudgetError, CallError, UsageError
from mindset.llm.budget import Budget, Grant, budget, budgets_in_force
from mindset.llm.messages import Image, user
from mindset.llm.openai_client import OpenAIClient
from mindset.llm.scripted import Line, ScriptedClient

Go = Callable[[Any], Any]


def penny(usage: Usage) -> float:
    return (usage.prompt_tokens + usage.completion_tokens) / 100


def test_a_call_that_would_pass_it_is_refused_before_it_is_made(log: CallLog, go: Go) -> None:
    client = ScriptedClient(lambda _: Line("ok", usage=Usage(10, 5)), log=log)

    async def scenario() -> None:
        with budget(tokens=300) as purse:
            await client.chat("Hi", max_tokens=100)
            assert purse.tokens_spent == 15
            with pytest.raises(
                BudgetError, match=r"a budget of 300 tokens has 285 left; this call may take [0-9]+: lower"
            ):
                await client.chat("Hi", max_tokens=300)
            assert purse.tokens_spent == 15
            await client.chat("Hi", max_tokens=100)

    go(scenario())
    assert len(client.requests) == 2
    assert [log.call(number).outcome.status for number in (1, 2, 3)] == ["ok", "refused", "ok"]
    assert "a budget of 300 tokens" in str(log.call(2).outcome.error)


def test_without_a_limit_an_answer_is_taken_to_be_long(log: CallLog, go: Go) -> None:
    client = ScriptedClient(lambda _: "ok", log=log, budget=Budget(tokens=1000))
    with pytest.raises(BudgetError):
        go(client.chat("Hi"))


def test_blocks_and_clients_hold_together(log: CallLog, go: Go) -> None:
    own = Budget(tokens=10_000)
    client = ScriptedClient(lambda _: Line("ok", usage=Usage(1, 1)), log=log, budget=own)

    async def scenario() -> None:
        with budget(tokens=5000) as outer, budget(tokens=3000) as inner:
            assert budgets_in_force() == (outer, inner)
            await asyncio.gather(*(client.chat("Hi", max_tokens=100) for _ in range(5)))
            assert outer.tokens_spent == inner.tokens_spent == own.tokens_spent == 10
            with budget(tokens=1), pytest.raises(BudgetError):
                await client.chat("Hi", max_tokens=1)
            assert outer.tokens_spent == inner.tokens_spent == own.tokens_spent == 10

    go(scenario())
    assert budgets_in_force() == ()


def test_calls_at_the_same_time_do_not_pass_it_together(log: CallLog, go: Go) -> None:
    client = ScriptedClient(lambda _: Line("ok", delay=0.02, usage=Usage(1, 1)), log=log)

    async def scenario() -> list[Any]:
        with budget(tokens=500):
            calls = (client.chat("Hi", max_tokens=150) for _ in range(6))
            return await asyncio.gather(*calls, return_exceptions=True)

    done = go(scenario())
    assert 1 <= sum(not isinstance(one, BudgetError) for one in done) <= 3


def test_what_fails_is_charged_as_far_as_it_came(log: CallLog, go: Go) -> None:
    lines = [Line(fails="no"), Line("some words were said here", fails="cut", fails_after=9)]
    client = ScriptedClient(lines, log=log)

    async def scenario() -> None:
        with budget(tokens=10_000) as purse:
            with pytest.raises(CallError):
                await client.chat("Hi")
            assert purse.tokens_spent == 0
            with pytest.raises(CallError):
                await client.chat("Hi")
            assert 6 < purse.tokens_spent < 200

    go(scenario())


def test_a_replay_and_a_budget_of_nothing(log: CallLog, go: Go) -> None:
    with budget(tokens=0), pytest.raises(BudgetError):
        go(ScriptedClient(["x"], log=log).chat("Hi"))


def test_money_is_what_the_tariff_says() -> None:
    purse = Budget(money=2.0)
    Grant((purse,), penny, Usage(50, 50)).settle(Usage(50, 25))
    assert purse.money_spent == pytest.approx(0.75)
    with pytest.raises(
        BudgetError, match=r"a budget of \$2.0000 has \$1.2500 left; this call may cost \$1.3000"
    ):
        Grant((purse,), penny, Usage(130))
    with pytest.raises(BudgetError, match="price is unknown: limit its tokens"):
        Grant((purse,), lambda _: None, Usage(1))
    Grant((Budget(tokens=9),), lambda _: None, Usage(1)).settle(Usage(1))


def test_what_computes_here_costs_no_money(log: CallLog, go: Go) -> None:
    with budget(money=0) as purse:
        go(ScriptedClient(["x"], log=log).chat("Hi"))
    assert purse.money_spent == 0


def test_a_call_costs_what_the_list_says(log: CallLog, go: Go) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 1000}
    reply = whole(
        {
            "model": "gpt-4o-mini",
            "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}],
            "usage": usage,
        }
    )

    class Elsewhere(OpenAIClient):
        """Asks this machine, and says that it was OpenAI."""

        @property
        def endpoint(self) -> str:
            return "https://api.openai.com/v1"

    async def scenario() -> None:
        async with (
            serving(reply) as server,
            Elsewhere("openai:gpt-4o-mini", base_url=server.url, log=log) as client,
        ):
            with budget(money=0.001) as purse:
                await client.chat("Hi", max_tokens=1000)
                assert purse.money_spent == pytest.approx(0.00075)
                with pytest.raises(BudgetError, match=r"has \$0.0003 left; this call may cost \$0.0006"):
                    await client.chat("Hi", max_tokens=1000)
            assert len(server.got) == 1

    go(scenario())
    assert log.call(1).outcome.endpoint == "https://api.openai.com/v1"
    with log.engine.connect() as connection:
        costs = connection.exec_driver_sql("SELECT cost FROM calls ORDER BY id").scalars().all()
    assert costs == [pytest.approx(0.00075), 0.0]


def test_money_cannot_be_granted_where_nobody_knows_the_price(log: CallLog, go: Go) -> None:
    client = OpenAIClient("https://unheard.example/v1#model", log=log, key="x")
    with budget(money=1.0), pytest.raises(BudgetError, match="price is unknown"):
        go(client.chat("Hi"))


def test_a_budget_limits_something() -> None:
    with pytest.raises(UsageError, match="limits money or tokens"):
        Budget()
    with pytest.raises(UsageError, match="tokens=-1 is no budget"):
        Budget(tokens=-1)


@given(
    st.integers(0, 300),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 90)), max_size=20),
)
def test_what_is_spent_is_what_was_used(tokens: int, calls: list[tuple[int, int, int]]) -> None:
    outer, inner = Budget(tokens=tokens), Budget(tokens=150, money=1.0)
    used = 0
    for prompt, answer, real in calls:
        try:
            grant = Grant((outer, inner), penny, Usage(prompt, answer))
        except BudgetError:
            continue
        assert outer.tokens_spent <= tokens or used > tokens
        grant.settle(Usage(real))
        used += real
    assert outer.tokens_spent == inner.tokens_spent == used
    assert inner.money_spent == pytest.approx(used / 100)


def test_pictures_do_not_count_by_their_bytes(log: CallLog, go: Go) -> None:
    client = ScriptedClient(["I see."], log=log)
    with budget(tokens=5000) as purse:
        go(client.chat(user("What is this?", Image(data=b"x" * 100_000)), max_tokens=10))
    assert purse.tokens_spent < 5000


def test_a_client_with_tokens_of_its_own_counts_with_them(log: CallLog, go: Go) -> None:
    class Wordy(ScriptedClient):
        remote: ClassVar[bool] = False

        async def _encode(self, text: str) -> tuple[int, ...]:
            return tuple(range(len(text)))

    with budget(tokens=1000), pytest.raises(BudgetError):
        go(Wordy(["x"], log=log).chat("y" * 990, max_tokens=1))
    with budget(tokens=1000):
        go(Wordy(["x"], log=log).chat("y" * 100, max_tokens=1))
