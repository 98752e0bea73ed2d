"""English that ships with Python: the docstrings of the standard library, one document per module.

There is always some of it, on every machine and without a network. It is read from the source files, nothing is
imported, so the same Python always gives the same text. `pydoc_data` is left out: its topics are what models are
scored on where there is no other held-out text. Knows nothing of tokens.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

from mindset.errors import DataError

__all__ = ["stdlib_documents"]

_LEFT_OUT_TREES = frozenset({"pydoc_data", "test", "tests", "idle_test", "__pycache__"})
_SHORTEST = 60  # characters; below are one-liners such as "Return self."


def stdlib_documents(folder: Path | None = None, *, every: int = 1) -> tuple[str, ...]:
    """Every module's documentation, or every n-th's, in the order of their paths.

    `folder` defaults to this Python's own. All of it takes some seconds to read.
    """
    root = Path(sysconfig.get_path("stdlib")) if folder is None else folder
    documents = []
    seen: set[str] = set()
    for path in _modules(root)[::every]:
        # A dict keeps the order; what an earlier module said already is not repeated.
        parts = [text for text in dict.fromkeys(_docstrings(path)) if text not in seen]
        seen.update(parts)
        if parts:
            documents.append("\n\n".join(parts) + "\n")
    if not documents:
        raise DataError(
            f"stdlib: no docstrings under {root}; this Python came without sources, give other text"
        )
    return tuple(documents)


def _modules(root: Path) -> list[Path]:
    """Source files of the standard library proper: no tests, nothing that was installed beside it."""
    found = []
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).parts
        if parts[0].removesuffix(".py") in sys.stdlib_module_names and _LEFT_OUT_TREES.isdisjoint(parts):
            found.append(path)
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _docstrings(path: Path) -> Iterator[str]:
    try:
        with tokenize.open(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the parsed sources, e.g. an invalid escape
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, UnicodeDecodeError):
        return  # lib2to3 and the like keep files for other Pythons
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = (ast.get_docstring(node) or "").strip()
            if len(text) >= _SHORTEST:
                yield text
