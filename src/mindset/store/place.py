"""A memory wherever it is: a model folder beside us, or a daemon's URL.

Does not know what is done with it. The daemon's client, which needs the extra `serve`, is imported for a URL only.
"""

from __future__ import annotations

from pathlib import Path

from mindset.errors import BusyError
from mindset.store.daemon.address import default_socket, is_url
from mindset.store.daemon.socket_file import answers
from mindset.store.interface import SlotMemory
from mindset.store.memory import Memory

__all__ = ["open_memory"]


def open_memory(place: Path | str, *, read_only: bool = False) -> SlotMemory:
    """Open DIR, or the memory at `unix:PATH` or `grpc://HOST:PORT`."""
    if is_url(str(place)):
        from mindset.store.daemon.extra import need_grpc

        need_grpc()
        from mindset.store.daemon.remote_memory import RemoteMemory

        return RemoteMemory(str(place), read_only=read_only)
    return _beside(Path(place), read_only)


def _beside(folder: Path, read_only: bool) -> Memory:
    there = default_socket(folder)
    if not read_only and there.is_socket() and answers(there):
        raise BusyError(f"{folder} is served by a daemon, which alone may write; give its URL: unix:{there}")
    return Memory(folder, read_only=read_only)
