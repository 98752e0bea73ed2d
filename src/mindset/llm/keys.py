"""Keys of endpoints: given, from the environment, or from the user's own file of keys.

The file is `keys.json` in the user's folder, a JSON object from names to keys: `openai`, `anthropic`, or the host of
an address. Does not know what a key opens. Invariant: a key is never part of an error.
"""

from __future__ import annotations

import json
from pathlib import Path

from mindset import places
from mindset.errors import FormatError

__all__ = ["keys_file", "stored_key"]


def keys_file() -> Path:
    """Where keys are kept; the file need not exist."""
    return places.home() / "keys.json"


def stored_key(*names: str) -> str | None:
    """The key of the first of these names that has one in the file."""
    path = keys_file()
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise FormatError(
            f"{path} cannot be read as keys: it should be a JSON object of names and keys"
        ) from None
    if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys.values()):
        raise FormatError(f"{path} holds no keys: it should be a JSON object of names and keys")
    return next((keys[name] for name in names if keys.get(name)), None)
