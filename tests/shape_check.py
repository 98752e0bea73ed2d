"""The type checker behind jaxtyping's import hook: as mypy has it, an int is good where a float is wanted."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
