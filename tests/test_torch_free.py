from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mindset.cli.app import COMMANDS

HEAVY = ("torch", "transformers", "lightning", "numpy", "matplotlib", "grpc")
PROBE = """
import json, runpy, sys
sys.argv = ["mindset", *{arguments}]
try:
    {statement}
except SystemExit as end:
    assert end.code in (0, None), end.code
print()
print(json.dumps(sorted(sys.modules)))
"""


def modules_after(statement: str, *arguments: str) -> set[str]:
    code = PROBE.format(statement=statement, arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_mindset_loads_nothing_heavy() -> None:
    assert modules_after("import mindset; mindset.__version__; dir(mindset)").isdisjoint(HEAVY)


def test_the_help_page_loads_not_even_click() -> None:
    modules = modules_after('runpy.run_module("mindset", run_name="__main__")', "--help")
    assert modules.isdisjoint((*HEAVY, "click"))


@pytest.mark.parametrize(
    "arguments",
    [[name] for name in COMMANDS] + [["models", "get"], ["models", "list"], ["memory", "serve"], []],
)
def test_the_help_of_a_command_loads_nothing_heavy(arguments: list[str]) -> None:
    modules = modules_after('runpy.run_module("mindset", run_name="__main__")', *arguments, "-h")
    assert "click" in modules or not arguments
    assert modules.isdisjoint(HEAVY)
