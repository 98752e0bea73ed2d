from __future__ import annotations

import asyncio
import time

import pytest

from benchmarks.serving_echo import EchoClient
from mindset.errors import MissingError, OverloadedError
from mindset.llm.serve.desk import Desk, DrainingError
from mindset.llm.serve.limits import Limits


def test_places_are_counted_and_given_back() -> None:
    async def go() -> None:
        desk = Desk(EchoClient(), limits=Limits(places=2))
        async with desk.place(), desk.place():
            with pytest.raises(OverloadedError, match="all 2 places") as full:
                async with desk.place():
                    pytest.fail("there was a third")
            assert (full.value.retry_after or 0) >= 1
        assert desk.taken == 0
        with pytest.raises(KeyError):
            async with desk.place():
                raise KeyError
        assert desk.taken == 0

    asyncio.run(go())


def test_whoever_is_cancelled_gives_its_place_back() -> None:
    async def go() -> None:
        desk = Desk(EchoClient())

        async def work() -> None:
            async with desk.place():
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        assert desk.taken == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert desk.taken == 0

    asyncio.run(go())


@pytest.mark.parametrize("long", [True, False])
def test_draining_waits_and_then_breaks_off(long: bool) -> None:
    async def go() -> None:
        desk = Desk(EchoClient())

        async def work() -> str:
            async with desk.place():
                await asyncio.sleep(60 if long else 0.05)
            return "done"

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        begun = time.monotonic()
        assert await desk.drain(0.3) is not long
        assert time.monotonic() - begun < 5
        if long:
            with pytest.raises(DrainingError):
                await task
        else:
            assert await task == "done"
        with pytest.raises(DrainingError):
            async with desk.place():
                pytest.fail("there was a place")
        assert desk.taken == 0

    asyncio.run(go())


def test_names() -> None:
    desk = Desk(EchoClient(), names=("a", "b"))
    for name in (None, "", "a", "b"):
        desk.check_model(name)
    with pytest.raises(MissingError, match="no model 'c' here; served: a, b"):
        desk.check_model("c")
