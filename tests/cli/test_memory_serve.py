"""Commands on a memory that a daemon serves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from store.test_slab_store import arrays, make_memory

from mindset.cli.app import app
from mindset.store.memory import Memory
from mindset.store.slots import NewSlot

pytest.importorskip("grpc", reason="the extra `serve` (grpcio) is missing")
from mindset.store.daemon.server import serving


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def ask(*arguments: object, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code).stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_memory(tmp_path / "memory")
    with Memory(tmp_path) as memory:
        memory.insert(0, "base", [NewSlot(label="Eiffel tower")], arrays(1))
    return tmp_path


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with serving(folder) as url:
        yield url


def uncounted(slots: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Slots as a daemon tells them, which counts no reads."""
    return [{k: v for k, v in slot.items() if k not in ("hits", "last", "influence")} for slot in slots]


def test_looking_says_what_the_folder_says(url: str, folder: Path, tmp_path: Path) -> None:
    for command in (
        ("memory", "verify"), ("history",), ("snapshot",), ("diff",),
    ):  # fmt: skip
        assert ask(*command, url) == ask(*command, folder)
    counted = ask("memory", "stats", folder)
    for shard in counted["shards"]:  # a daemon counts no reads
        del shard["hits"], shard["unread"], shard["influence"], shard["search"]
    assert ask("memory", "stats", url) == counted
    found = ask("memory", "search", url, "eiffel", "--layer", 0)
    assert found["slots"] == uncounted(ask("memory", "search", folder, "eiffel")["slots"])
    assert ask("memory", "show", url, 17, 1) == uncounted(ask("memory", "show", folder, 17, 1))
    assert ask("memory", "export", url, "--out", tmp_path / "out", "--shard", "base")["slots"] == 17
    assert "give the folder that it serves" in run("memory", "sql", url, "select 1", code=2).stderr
    assert "there is no slot 99" in run("memory", "show", url, 99, code=1).stderr


def test_changes_go_back_and_forth_through_it(url: str, folder: Path) -> None:
    assert f"back with: mindset undo {url}" in run("memory", "rm", url, 1, 2).stdout
    run("memory", "edit", url, 3, "--label", "a slot", "--weight", 0)
    run("memory", "pin", url, 4)
    run("memory", "tag", url, 4, "--set", "seen")
    assert ask("memory", "search", url, "--pinned", "--tag", "seen")["total"] == 1
    run("snapshot", url, "here")
    assert "undone: tags of 4" in run("undo", url, 2).stdout
    assert "done again: pinned of 4" in run("restore", url, "here").stdout
    assert [entry["state"] for entry in ask("history", folder)] == ["done"] * 5
    run("undo", url, 5)
    assert "done again: 1 slot in" in run("redo", url).stdout
    assert "back to it with" not in run("snapshot", url, "here", "--drop").stdout


def test_check_says_who_answers(url: str, tmp_path: Path) -> None:
    assert ask("memory", "check", url)["fits"]
    assert "it fits" in run("memory", "check", url).stdout
    nobody = f"unix:{tmp_path}/none"
    assert "no daemon answers there" in run("memory", "check", nobody, code=1).stdout
    assert ask("memory", "check", nobody, code=1)["answers"] is False
    assert "write unix:PATH" in run("memory", "check", "http://x:1", code=2).stderr
    assert "no daemon answers there" in run("memory", "stats", nobody, code=1).stderr


def test_serve_refuses_in_one_sentence(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not both" in run("memory", "serve", folder, "--port", 0, "--socket", "x", code=2).stderr
    assert "holds no memory" in run("memory", "serve", tmp_path / "none", code=1).stderr
    monkeypatch.setattr("mindset.store.daemon.extra.find_spec", lambda _: None)
    for command in (("serve", folder), ("check", "unix:x"), ("stats", "unix:x")):
        assert "pip install 'mindset-lm[serve]'" in run("memory", *command, code=1).stderr
