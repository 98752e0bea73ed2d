"""Keys of endpoints: given, from the environment, or from the user's own file of keys.

The file is `keys.json` in the user's folder, for its owner only: a JSON object from names to keys, where a name is
`openai`, `anthropic`, or the host of an address. Does not know what a key opens. Invariant: a key is never part of an
error.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from mindset import places
from mindset.atomic_file import replacing
from mindset.errors import FormatError, UsageError

__all__ = ["keys_file", "store_key", "stored_key", "stored_names"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}")


def keys_file() -> Path:
    """Where keys are kept; the file need not exist."""
    return places.home() / "keys.json"


def stored_key(*names: str) -> str | None:
    """The key of the first of these names that has one in the file."""
    keys = _stored()
    return next((keys[name] for name in names if keys.get(name)), None)


def stored_names() -> list[str]:
    """The names that have a key in the file."""
    return sorted(name for name, key in _stored().items() if key)


def store_key(name: str, key: str | None) -> None:
    """Keep a key under a name in the file, in place of the one that was there; None takes it out."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} names no key: give openai, anthropic, or the host of an address")
    if key is not None and (not key or not key.isprintable() or any(letter.isspace() for letter in key)):
        raise UsageError("that is no key: give one word, on standard input")
    keys = {other: kept for other, kept in _stored().items() if other != name}
    if key is not None:
        keys[name] = key
    path = keys_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replacing(path) as file:
        if hasattr(os, "fchmod"):
            os.fchmod(file.fileno(), 0o600)  # while nothing is in it
        file.write(json.dumps(keys, indent=2, sort_keys=True).encode() + b"\n")


def _stored() -> dict[str, str]:
    path = keys_file()
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise FormatError(
            f"{path} cannot be read as keys: it should be a JSON object of names and keys"
        ) from None
    if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys.values()):
        raise FormatError(f"{path} holds no keys: it should be a JSON object of names and keys")
    return keys
