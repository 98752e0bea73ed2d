from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import mindset

PACKAGE = Path(mindset.__file__).parent


def test_the_layer_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], capture_output=True, text=True, cwd=PACKAGE.parent.parent)
    assert done.returncode == 0, done.stdout + done.stderr


def test_errors_import_nothing() -> None:
    tree = ast.parse((PACKAGE / "errors.py").read_text(encoding="utf-8"))
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imported] == ["from __future__ import annotations"]


def test_every_name_of_the_public_face_is_where_the_table_says() -> None:
    assert sorted([*mindset.FACE, "__version__"]) == sorted(mindset.__all__)
    for name in mindset.FACE:
        assert getattr(mindset, name) is not None
    assert dir(mindset) == sorted(mindset.__all__)
