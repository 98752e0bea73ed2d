"""Functions named on the command line, as tools: `FILE.py`, `FILE.py:NAME`, `MODULE` or `MODULE:NAME`.

Without a NAME, what a file defines and does not begin with an underscore. Loading runs the file, as importing does.
Does not know models.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from mindset.errors import DataError, MissingError, UsageError
from mindset.llm.tools import Tool, ToolSet

__all__ = ["load_tools"]


def load_tools(names: Iterable[str]) -> ToolSet:
    """The tools that these name."""
    return ToolSet([tool for name in names for tool in _named(name)])


def _named(given: str) -> list[Tool | Callable[..., Any]]:
    place, colon, name = given.rpartition(":") if _has_name(given) else (given, "", "")
    module = _module(place)
    if colon:
        found = getattr(module, name, None)
        if found is None:
            raise MissingError(f"{place} has no {name}; it has {', '.join(_own(module)) or 'no functions'}")
        if not callable(found):
            raise UsageError(f"{given} is no function but {type(found).__name__}")
        return [found]
    own = _own(module)
    if not own:
        raise MissingError(f"{place} defines no functions")
    return list(own.values())


def _has_name(given: str) -> bool:
    """A drive's letter is no module."""
    place, colon, name = given.rpartition(":")
    return bool(colon) and name.isidentifier() and len(place) > 1


def _module(place: str) -> ModuleType:
    try:
        return _from_file(Path(place).expanduser()) if place.endswith(".py") else import_module(place)
    except ModuleNotFoundError as error:
        raise MissingError(f"{place}: {error}; name a FILE.py or an installed module") from error
    except MissingError:
        raise
    except Exception as error:
        raise DataError(f"{place} cannot be loaded: {type(error).__name__}: {error}") from error


def _from_file(path: Path) -> ModuleType:
    spec = spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise MissingError(f"no such file: {path}")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _own(module: ModuleType) -> dict[str, Tool | Callable[..., Any]]:
    return {
        name: one
        for name, one in vars(module).items()
        if not name.startswith("_")
        and (isinstance(one, Tool) or (inspect.isfunction(one) and one.__module__ == module.__name__))
    }
