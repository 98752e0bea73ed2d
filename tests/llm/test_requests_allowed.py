from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from llm.loopback import serving, whole

from mindset.calls.log import CallLog
from mindset.errors import BudgetError, UsageError
from mindset.llm.openai_client import OpenAIClient
from mindset.llm.requests_allowed import VARIABLE, forbid_requests
from mindset.llm.scripted import ScriptedClient

Go = Callable[[Any], Any]
OK = whole({"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}]})


async def asked(log: CallLog) -> int:
    """How many of two requests arrive."""
    async with serving(OK) as server, OpenAIClient(f"{server.url}#m", log=log) as client:
        with pytest.raises(BudgetError, match="only s"):
            await client.chat("Hi")
        with pytest.raises(BudgetError):
            await client.embed(["Hi"])
        return len(server.got)


def test_a_block_lets_nothing_through(log: CallLog, go: Go) -> None:
    with forbid_requests():
        assert go(asked(log)) == 0
        assert go(ScriptedClient(["yes"], log=log).chat("Hi")).text == "yes"
    assert log.call(1).outcome.status == "refused"
    assert "forbid_requests() is in force" in str(log.call(1).outcome.error)

    async def allowed() -> str:
        async with serving(OK) as server, OpenAIClient(f"{server.url}#m", log=log) as client:
            return (await client.chat("Hi")).text

    assert go(allowed()) == "ok"


def test_it_holds_in_other_threads(log: CallLog) -> None:
    counts: list[int] = []
    with forbid_requests():
        thread = threading.Thread(target=lambda: counts.append(asyncio.run(asked(log))))
        thread.start()
        thread.join()
    assert counts == [0]


def test_a_variable_does_the_same(log: CallLog, go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    assert go(asked(log)) == 0
    monkeypatch.setenv(VARIABLE, "perhaps")
    with pytest.raises(UsageError, match="neither yes nor no"):
        go(OpenAIClient("http://localhost:1/v1#m", log=log).chat("Hi"))
