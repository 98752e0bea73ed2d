"""The real command on a pseudo-terminal: type, wait for what is printed, press Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
# Ctrl-C goes to the foreground of a session's own terminal, which only the session's leader can take.
LEADER = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, '-m', 'mindset', *sys.argv[1:]])"
)
WAIT = 60.0
"""Seconds for the slowest thing that is waited for, on a busy machine."""


class Terminal:
    def __init__(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, columns: int = 80
    ) -> None:
        self.ours, theirs = pty.openpty()
        size = {"COLUMNS": str(columns), "LINES": "40"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", LEADER, *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **size, **(env or {})},
        )
        os.close(theirs)
        self.dumb = (env or {}).get("TERM") == "dumb"
        self.raw = ""
        self._seen = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)

    def until(self, text: str) -> str:
        """What was printed since the last time, up to and with `text`; colours in it do not matter."""
        wanted = re.compile(f"(?:{ESCAPES.pattern})*".join(map(re.escape, text)))
        end = time.monotonic() + WAIT
        while (found := wanted.search(self.raw, self._seen)) is None:
            if time.monotonic() > end or not self._more():
                raise AssertionError(f"{text!r} was never printed, but {self.raw[self._seen :]!r}")
        printed, self._seen = self.raw[self._seen : found.end()], found.end()
        return printed

    def prompt(self) -> str:
        """What was printed up to the next prompt, which turns on bracketed paste where there is such a thing."""
        return self.until("> " if self.dumb else "\x1b[?2004h")

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def enter(self, line: str) -> None:
        self.type(f"{line}\r")

    def ends(self) -> int:
        """Wait for the exit code."""
        end = time.monotonic() + WAIT
        while self._more() and time.monotonic() < end:
            pass
        return self.process.wait(WAIT)

    def _more(self) -> bool:
        if not select.select([self.ours], [], [], 0.2)[0]:
            return self.process.poll() is None
        try:
            data = os.read(self.ours, 1 << 16)
        except OSError:  # the other side is closed
            return False
        self.raw += data.decode(errors="replace")
        return bool(data)
