from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from mindset.cli.edge import Edge


@pytest.fixture
def edge() -> Iterator[Edge]:
    with Edge() as opened:
        yield opened


def press_after(seconds: float) -> threading.Timer:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def test_work_has_a_result_and_one_loop(edge: Edge) -> None:
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert edge.run(loop()) is edge.run(loop())


def test_ctrl_c_stops_what_runs_and_lets_it_clean_up(edge: Edge) -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.05)
            steps.append("cleaned up")

    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    press_after(0.1)
    with pytest.raises(KeyboardInterrupt):
        edge.run(work())
    assert steps == ["cleaned up"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_polite_kill_lets_it_clean_up_too(edge: Edge) -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            steps.append("cleaned up")

    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(SystemExit) as ended:
        edge.run(work())
    assert (steps, ended.value.code) == (["cleaned up"], 128 + signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_ctrl_c_twice_in_a_row_is_ctrl_c_once(edge: Edge) -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.3)
            steps.append("cleaned up")

    for seconds in (0.1, 0.2):
        press_after(seconds)
    with pytest.raises(KeyboardInterrupt):
        edge.run(work())
    assert steps == ["cleaned up"]


def test_who_is_in_a_hurry_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mindset.cli.edge.HURRY", 0.1)
    begun = time.monotonic()

    async def stubborn() -> None:
        while time.monotonic() < begun + 30:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                continue

    with Edge() as edge:
        for seconds in (0.1, 0.5):
            press_after(seconds)
        with pytest.raises(KeyboardInterrupt):
            edge.run(stubborn())
        assert time.monotonic() - begun < 20
        begun -= 100


def test_an_error_comes_through(edge: Edge) -> None:
    async def fail() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        edge.run(fail())

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        edge.run(cancelled())
