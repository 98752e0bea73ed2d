"""A memory's daemon as a process of its own, stopped or killed by its id."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

SOURCES = Path(__file__).resolve().parent.parent / "src"


class Daemon:
    """One process of `mindset memory serve`."""

    def __init__(self, folder: Path, *options: object) -> None:
        command = [sys.executable, "-m", "mindset", "memory", "serve", folder, *options, "--json"]
        self.process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(SOURCES)},
        )  # fmt: skip
        self.folder, self.url, self.errors = folder, "", ""

    def started(self) -> Self:
        """Once it answers."""
        told = ""
        while not told.endswith("}\n"):
            line = self.process.stdout.readline()  # type: ignore[union-attr]
            if not line:
                self._end()
                pytest.fail(f"the daemon did not start: {self.errors}")
            told += line
        self.url = json.loads(told)["url"]
        return self

    def refused(self) -> str:
        """What it says where it cannot start."""
        self._end()
        assert self.process.returncode in (1, 2), (self.process.returncode, self.errors)
        return self.errors

    def stop(self, by: int = signal.SIGTERM) -> int:
        """Tell it to stop; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(by)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end; its exit code."""
        self._end()
        return self.process.returncode

    def kill(self) -> None:
        """kill -9."""
        self.stop(signal.SIGKILL)

    def _end(self) -> None:
        _, self.errors = self.process.communicate(timeout=60)


@pytest.fixture
def daemon() -> Iterator[Callable[..., Daemon]]:
    """Starts daemons: daemon(FOLDER, OPTION ...)."""
    pytest.importorskip("grpc", reason="no daemon: the extra `serve` (grpcio) is missing")
    running: list[Daemon] = []

    def start(folder: Path, *options: object) -> Daemon:
        running.append(Daemon(folder, *options))
        return running[-1]

    yield start
    for one in running:
        one.kill()
