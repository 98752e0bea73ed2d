"""What a person has set once for all: `config.toml` in the user's folder.

    model = "smollm2"        # whom chat and prompt talk to, where -m says nothing else

Reads; a person writes. Does not know what a MODEL is. A file that is not there sets nothing.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from mindset import places
from mindset.errors import FormatError

__all__ = ["DEFAULT_MODEL", "config_file", "default_model"]

DEFAULT_MODEL = "smollm2"


def config_file() -> Path:
    """Where settings are kept; the file need not exist."""
    return places.home() / "config.toml"


def default_model() -> str:
    """MODEL where none is given."""
    model = _read().get("model", DEFAULT_MODEL)
    if not isinstance(model, str) or not model.strip():
        raise FormatError(
            f'{config_file()}: model is a text such as model = "{DEFAULT_MODEL}", not {model!r}'
        )
    return model


def _read() -> dict[str, Any]:
    path = config_file()
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is no TOML: {error}") from error
