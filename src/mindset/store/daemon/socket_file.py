"""A Unix socket's file: whether somebody answers there, and making way for a new one that only its owner can use.

A daemon that was killed leaves its file behind, at which nobody answers; such a file is replaced, a living one never.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mindset.errors import BusyError, MissingError, ReadOnlyError, UsageError
from mindset.store.daemon.address import users_folder

__all__ = ["answers", "claimed", "owner_only"]


def answers(path: Path) -> bool:
    """Whether a process listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except TimeoutError:  # so many wait to be let in that it is alive
            return True
        except OSError:
            return False
        return True


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Make way for a socket, which the block makes; it is gone after the block."""
    _make_folder(path.parent)
    _make_way(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def owner_only() -> Iterator[None]:
    """What the block makes is for the owner only; for a block that makes a socket and nothing else."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _make_way(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"{path} is there and is no socket; give another --socket")
    if answers(path):
        raise BusyError(f"unix:{path}: another process serves there; stop it, or give another --socket")
    path.unlink()


def _make_folder(folder: Path) -> None:
    """The folder for default sockets of long paths is made; it must be ours alone, since its name is known."""
    ours = folder.name == users_folder()
    if ours:
        folder.mkdir(mode=0o700, exist_ok=True)
    try:
        found = folder.lstat()
    except FileNotFoundError as error:
        raise MissingError(f"{folder}: there is no such folder for a socket") from error
    if ours and (not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077):
        raise ReadOnlyError(f"{folder} is not yours alone; give --socket PATH in a folder that is")
    if not os.access(folder, os.W_OK):
        raise ReadOnlyError(f"{folder}: you may not write there; give another --socket")
