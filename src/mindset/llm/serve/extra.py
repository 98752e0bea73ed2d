"""Whether the extra `serve` is installed; imports nothing of it."""

from __future__ import annotations

from importlib.util import find_spec

from mindset.errors import MissingError

__all__ = ["need_serve"]

_PACKAGES = ("grpc", "google.protobuf", "grpc_health", "grpc_reflection", "pydantic", "starlette", "uvicorn")


def need_serve() -> None:
    """Say what is missing before a module is imported that needs it."""
    missing = [name for name in _PACKAGES if not _is_there(name)]
    if missing:
        raise MissingError(
            f"serving a model needs the extra `serve`: pip install 'mindset-lm[serve]' (missing: {', '.join(missing)})"
        )


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False
