from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from mindset.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def generate_docs() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        import generate_docs

        sys.modules.pop("generate_docs")
        return generate_docs


def test_what_is_generated_is_up_to_date(generate_docs: ModuleType) -> None:
    stale = [
        str(path.relative_to(ROOT))
        for path, text in generate_docs.generated().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run `make docs`"


def test_the_tree_tells_every_file_in_3_to_8_words(generate_docs: ModuleType) -> None:
    tree = README.partition(generate_docs.TREE_START)[2].partition(generate_docs.TREE_END)[0]
    words = generate_docs.tree_words(tree)
    told = {path for path in words if path.suffix == ".py"}
    silent = {"__init__.py"}
    assert {path for path in generate_docs.files_on_disk(ROOT) if path.name not in silent} <= told
    wrong = {str(path): text for path, text in words.items() if not 3 <= len(text.split()) <= 8}
    assert wrong == {}, "write 3 to 8 words on each of these in README.md"


def test_a_new_file_gets_a_line_to_be_written(generate_docs: ModuleType, tmp_path: Path) -> None:
    for file in ("src/mindset/__init__.py", "src/mindset/b/__init__.py", "src/mindset/b/new.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    old = "src/mindset/  the whole package\n  gone.py  is no longer there\n  b/  words to be kept\n"
    readme = generate_docs.with_tree(
        f"# x\n{generate_docs.TREE_START}{old}{generate_docs.TREE_END}\nend\n", tmp_path
    )
    lines = [line.split(maxsplit=1) for line in readme.splitlines() if line.startswith((" ", "src"))]
    assert lines == [
        ["src/mindset/", "the whole package"],
        ["__init__.py", "?"],
        ["b/", "words to be kept"],
        ["new.py", "?"],
    ]
    assert readme.startswith("# x\n")
    assert readme.endswith("\nend\n")


def marked_examples() -> list[tuple[str, str]]:
    """Each `$ command` of a block marked `<!-- run -->` with what the README says it prints."""
    blocks = re.findall(r"<!-- run -->\n```console\n(.*?)```", README, flags=re.DOTALL)
    return [
        (command, said)
        for block in blocks
        for command, said in re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", block, re.M)
    ]


def test_there_are_marked_examples() -> None:
    assert marked_examples()


@pytest.mark.parametrize(("command", "said"), marked_examples())
def test_the_examples_of_the_readme_print_what_it_says(command: str, said: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "mindset"
    result = CliRunner().invoke(app, arguments, prog_name=program)
    assert result.output == said


def test_the_example_of_clients_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(import asyncio\n.*?)```", README, flags=re.DOTALL)
    script = tmp_path / "script.jsonl"
    lines = [
        {"text": "Bram Stoker."},
        {"tool_calls": [{"id": "1", "name": "add", "arguments": '{"a": 3, "b": 4}'}]},
        {"text": "It is 7."},
    ]
    script.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    monkeypatch.setenv("MINDSET_HOME", str(tmp_path / "home"))
    program = tmp_path / "example.py"
    program.write_text(code.replace('"smollm2"', repr(f"script:{script}")), encoding="utf-8")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Bram Stoker.", "It is 7."]
