"""Whether the extra `serve` is installed; imports nothing of it."""

from __future__ import annotations

from importlib.util import find_spec

from mindset.errors import MissingError

__all__ = ["need_grpc"]


def need_grpc() -> None:
    """Say what is missing before a module is imported that needs it."""
    for name in ("grpc", "google.protobuf"):
        if not _is_there(name):
            raise MissingError(
                "sharing a memory through a daemon needs the extra `serve`: pip install 'mindset-lm[serve]'"
            )


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False
