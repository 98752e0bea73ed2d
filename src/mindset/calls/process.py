"""Which process makes a call, told so that another one can see later whether it still lives.

A process is a number and the moment it began, on a machine since its last start: numbers come again. Does not know
calls. What cannot be seen from here, such as a process of another machine, counts as neither alive nor dead.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Process", "is_alive", "this_process"]

PROC = Path("/proc")
_STATE, _BEGAN = 0, 19
"""Fields of /proc/PID/stat behind the name, which is in parentheses and may hold anything."""


@dataclass(frozen=True)
class Process:
    """One process, of all that ever were."""

    host: str
    """Name of the machine."""
    boot: str
    """Which of the machine's starts, and which of its lists of processes (`START/LIST`); empty if it does not say."""
    pid: int
    began: str
    """When it began, in the system's own words; empty if it does not say."""


def this_process() -> Process:
    """The one that asks."""
    return Process(platform.node(), _boot(), os.getpid(), _began(os.getpid()) or "")


def is_alive(process: Process) -> bool | None:
    """Whether it still runs; None where that cannot be seen from here."""
    if process.host != platform.node():
        return None
    if process.boot != _boot():
        other_start = process.boot.partition("/")[0] != _boot().partition("/")[0]
        return False if other_start else None
    if os.name == "nt":
        return None
    began = _began(process.pid)
    if began is None:
        return _answers(process.pid)
    return began == process.began


def _boot() -> str:
    try:
        start = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{start}/{(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _began(pid: int) -> str | None:
    """When a process began; empty for one that ended, None where the system does not say."""
    if not (PROC / "self/stat").exists():
        return _asked_ps(pid)
    try:
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except OSError:
        return None
    return "" if fields[_STATE] in "ZX" else fields[_BEGAN]


def _asked_ps(pid: int) -> str | None:
    if os.name == "nt":
        return None
    try:
        done = subprocess.run(  # noqa: S603  a number
            ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip()


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
