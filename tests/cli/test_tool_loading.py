from __future__ import annotations

from pathlib import Path

import pytest

from mindset.cli.tool_loading import load_tools
from mindset.errors import DataError, MindsetError, MissingError, UsageError

SOURCE = '''
from os.path import join
from mindset.llm.tools import tool

LIMIT = 3

def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b

@tool(name="shout", description="Say it louder.")
def _upper(text: str) -> str:
    return text.upper()

loud = _upper

def _helper(x: int) -> int:
    return x
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tools.py"
    path.write_text(SOURCE)
    return path


def test_a_file_offers_what_it_defines(file: Path) -> None:
    assert set(load_tools([str(file)])) == {"add", "shout"}
    assert set(load_tools([f"{file}:_helper"])) == {"_helper"}


def test_an_installed_module_does_too() -> None:
    assert set(load_tools(["mindset.cli.spending:seconds"])) == {"seconds"}
    assert {"money", "seconds"} <= set(
        load_tools(["mindset.cli.spending:seconds", "mindset.cli.spending:money"])
    )


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ("{file}:gone", MissingError, "has no gone; it has add, loud"),
        ("{file}:LIMIT", UsageError, "is no function but int"),
        ("gone.py", MissingError, "no such file"),
        ("no_such_module_at_all", MissingError, "No module named"),
        ("{broken}", DataError, "cannot be loaded: ZeroDivisionError"),
        ("{empty}", MissingError, "defines no functions"),
        ("{untyped}", UsageError, "annotate it"),
    ],
)
def test_what_cannot_be_loaded_is_told(
    file: Path, tmp_path: Path, given: str, error: type[MindsetError], sentence: str
) -> None:
    broken, empty, untyped = (tmp_path / f"{name}.py" for name in ("broken", "empty", "untyped"))
    broken.write_text("1 / 0\n")
    empty.write_text("x = 1\n")
    untyped.write_text("def f(x):\n    return x\n")
    with pytest.raises(error, match=sentence):
        load_tools([given.format(file=file, broken=broken, empty=empty, untyped=untyped)])
