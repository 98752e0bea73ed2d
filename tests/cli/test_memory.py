"""`mindset memory`, `history`, `undo` and `redo` on a folder made by `convert`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mindset.cli.app import app


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def ask(*arguments: object, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code).stdout)


@pytest.fixture
def student(teacher: Path, tmp_path: Path) -> Path:
    run("convert", teacher, "--out", tmp_path / "student", "--k", 4)
    return tmp_path / "student"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_looking_writes_nothing(student: Path) -> None:
    before = contents(student)
    stats = ask("memory", "stats", student)
    total = sum(one["slots"] for one in stats["shards"])
    assert total > 0
    assert stats["edits"] == 0
    page = ask("memory", "search", student, "--layer", 1, "--limit", 3)
    assert [slot["layer"] for slot in page["slots"]] == [1, 1, 1]
    assert page["total"] == stats["shards"][1]["slots"]
    assert ask("memory", "show", student, 1)[0]["row"] == 0
    assert ask("memory", "verify", student) == {"slots": total, "files": [], "wrong": []}
    assert ask("memory", "sql", student, "select count(*) as n from slots") == [{"n": total}]
    assert "nothing was done" in run("history", student).stdout
    assert contents(student) == before


def test_a_change_goes_back_and_forth(student: Path) -> None:
    text = "Once upon a time"
    before = run("generate", student, text, "--max-tokens", 8).stdout
    some = [slot["id"] for slot in ask("memory", "search", student, "--limit", 40)["slots"]]
    assert "back with: mindset undo" in run("memory", "rm", student, *some).stdout
    run("memory", "edit", student, some[-1] + 1, "--label", "a slot", "--weight", 0)
    run("memory", "pin", student, some[-1] + 2)
    run("memory", "tag", student, some[-1] + 2, "--set", "seen")
    assert [slot["id"] for slot in ask("memory", "search", student, "slot")["slots"]] == [some[-1] + 1]
    assert ask("memory", "search", student, "--pinned", "--tag", "seen")["total"] == 1
    assert [entry["state"] for entry in ask("history", student)] == ["done"] * 4
    assert "undone: tags of" in run("undo", student).stdout
    assert len(ask("undo", student, 3)) == 3
    assert run("generate", student, text, "--max-tokens", 8).stdout == before
    assert "done again: 40 slots out" in run("redo", student).stdout
    assert "there is no slot" in run("memory", "show", student, some[0], code=1).stderr


def test_planted_damage_is_found(student: Path) -> None:
    slab = next((student / "memory").glob("*.value.*.slab"))
    content = bytearray(slab.read_bytes())
    content[4100] ^= 1
    slab.write_bytes(content)
    found = ask("memory", "verify", student, code=1)
    assert len(found["files"]) == 1
    assert "wrong" in run("memory", "verify", student, code=1).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["memory", "show", "{}", 999999], 1, "there is no slot 999999"),
        (["memory", "rm", "{}", 0], 2, "0 is not in the range"),
        (["memory", "rm", "{}"], 2, "Missing argument"),
        (["memory", "edit", "{}", 1], 2, "nothing to change"),
        (["memory", "tag", "{}", 1, "--set", "two words"], 2, "without spaces"),
        (["memory", "sql", "{}", "delete from slots"], 1, "reading"),
        (["memory", "search", "{}", "--", "-word"], 2, "names no word"),
        (["undo", "{}"], 1, "nothing to undo"),
        (["redo", "{}", 2], 1, "nothing to redo"),
        (["memory", "stats", "/no/such/folder"], 1, "holds no memory"),
    ],
)
def test_failures_are_one_sentence(student: Path, arguments: list[object], code: int, sentence: str) -> None:
    result = run(*(str(argument).format(student) for argument in arguments), code=code)
    assert sentence in result.stderr
    assert "Traceback" not in result.output


def test_slots_go_out_and_into_another_model(student: Path, tmp_path: Path) -> None:
    run("memory", "tag", student, 3, 4, "--set", "seen")
    told = ask("memory", "export", student, "--out", tmp_path / "out", "--tag", "seen")
    assert told == {"slots": 2, "out": str(tmp_path / "out")}
    run("memory", "rm", student, 3, 4)
    assert ask("memory", "search", student, "--tag", "seen")["total"] == 0
    assert "2 slots in, from out" in run("memory", "import", student, tmp_path / "out").stdout
    assert ask("memory", "search", student, "--tag", "seen")["total"] == 2
    run("generate", student, "Once", "--max-tokens", 4)
    run("undo", student)
    assert ask("memory", "search", student, "--tag", "seen")["total"] == 0
    assert "is there already" in run("memory", "export", student, "--out", tmp_path / "out", code=2).stderr
    assert "has no slots.json" in run("memory", "import", student, tmp_path, code=1).stderr


def test_a_state_is_named_left_compared_and_come_back_to(student: Path) -> None:
    assert "mindset restore" in run("snapshot", student, "clean").stdout
    run("memory", "edit", student, 5, "--label", "five")
    run("memory", "rm", student, 6)
    told = run("diff", student, "clean").stdout
    assert "~ slot 5, layer 0, base 'five': label" in told
    assert "- slot 6, layer 0, base" in told
    assert "0 slots put in, 1 taken out, 1 changed" in told
    assert ask("snapshot", student, "later") == [
        {"name": "clean", "changes": 0},
        {"name": "later", "changes": 2},
    ]
    assert "undone: 1 slot out: 6" in run("restore", student, "clean").stdout
    assert ask("diff", student) == {"put_in": [], "taken_out": [], "changed": []}
    assert [one["id"] for one in ask("diff", student, "clean", "later")["taken_out"]] == [6]
    assert "done again: 1 slot out: 6" in run("restore", student, "later").stdout
    assert "is at later already" in run("restore", student, "later").stdout
    run("snapshot", student, "later", "--drop")
    assert "later" not in run("snapshot", student).stdout
    assert "no snapshot 'later'" in run("restore", student, "later", code=1).stderr
    assert "say which" in run("snapshot", student, "--drop", code=2).stderr


def test_how_shards_are_searched_is_chosen_and_told(student: Path) -> None:
    pytest.importorskip("faiss", reason="needs faiss, the extra `ann`")
    assert "exact (no index was tried)" in run("memory", "stats", student).stdout
    assert "under 10,000 every slot is looked at" in run("memory", "index", student).stdout
    chosen = ask("memory", "index", student, "--smallest", 1, "--queries", 1024)
    assert [one["engine"] for one in chosen] == ["exact"] * len(chosen)
    assert all(one["curve"] for one in chosen)
    told = ask("memory", "stats", student)["shards"]
    assert [one["search"] for one in told] == chosen
    assert "x the speed of exact search" in run("memory", "stats", student).stdout
    run("generate", student, "Once", "--max-tokens", 4)
    empty = student / "empty.txt"
    empty.write_text("")
    assert "without tokens" in run("memory", "index", student, "--text", empty, code=2).stderr
