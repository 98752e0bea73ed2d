"""`mindset memory`, `history`, `undo` and `redo` on a folder made by `convert`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mindset.cli.app import app
from mindset.store.memory_dir import MemoryDir
from mindset.store.usage import Usage


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


def test_reads_are_counted_with_the_lambda_that_is_given(student: Path) -> None:
    def counted(*more: object, code: int = 0) -> Result:
        return run("generate", student, "Once upon a time", "--max-tokens", 8, *more, code=code)

    assert "give --count too" in counted("--decay", 1, code=2).stderr
    counted("--count", "--decay", 1)
    stamp = Usage(MemoryDir.open(student / "memory"), read_only=True).stamp
    assert stamp is not None
    assert stamp[1] == 1.0
    refused = counted("--count", "--decay", 0.5, code=2)
    assert "counts with lambda 1, not 0.5" in " ".join(refused.stderr.split())
    assert refused.stdout.strip() == "Once upon a time"  # nothing was read yet
    counted("--count")  # with the memory's own


def test_what_is_read_is_counted_when_asked_for(student: Path) -> None:
    run("generate", student, "Once upon a time", "--max-tokens", 8)
    assert ask("memory", "stats", student)["counted_tokens"] == 0
    run("generate", student, "Once upon a time", "--max-tokens", 8, "--count")
    stats = ask("memory", "stats", student)
    assert stats["counted_tokens"] == 16 + 7
    assert sum(shard["hits"] for shard in stats["shards"]) == 2 * 4 * (16 + 7)
    order = ask("memory", "search", student, "--sort", "hits", "--limit", 5)["slots"]
    assert [slot["hits"] for slot in order] == sorted((slot["hits"] for slot in order), reverse=True)
    rest = ask("memory", "search", student, "--sort", "hits", "--limit", 100, "--after", order[2]["id"])[
        "slots"
    ]
    assert [slot["id"] for slot in rest[:2]] == [slot["id"] for slot in order[3:]]
    assert len(rest) == 48 - 3
    best = ask("memory", "search", student, "--sort", "influence", "--layer", 1, "--limit", 3)["slots"]
    assert {slot["layer"] for slot in best} == {1}
    assert ask("memory", "show", student, best[0]["id"])[0]["influence"] == best[0]["influence"]
    newest = ask("memory", "search", student, "--sort", "created", "--limit", 30)["slots"]
    more = ask("memory", "search", student, "--sort", "created", "--after", newest[-1]["id"])["slots"]
    assert [slot["id"] for slot in [*newest, *more]] == [*range(48, 0, -1)][: 30 + len(more)]
    assert "influence" in run("memory", "search", student, "--sort", "last").stdout


def test_the_least_used_go_and_come_back(student: Path, teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("There was a fox who lived in a wood. " * 20)
    message = run("memory", "evict", student, "--keep", 20, code=2).stderr
    assert "nothing was counted" in message
    run("eval", student, "--against", teacher, "--text", tmp_path / "text", "--count")
    text = run("generate", student, "A fox", "--max-tokens", 8).stdout
    shown = ask("memory", "evict", student, "--keep", 20, "--policy", "influence", "--dry-run")
    assert shown["evicted"] == 8
    assert [head["evicted"] for head in shown["heads"]] == [4, 4]
    assert all(0 <= head["influence_share"] < 0.2 for head in shown["heads"])
    assert "first to go" in run("memory", "evict", student, "--keep", 20, "--dry-run").stdout
    assert ask("history", student) == []
    run("memory", "pin", student, shown["first"][0]["id"])
    assert (
        "8 slots evicted by influence"
        in run("memory", "evict", student, "--keep", 20, "--policy", "influence").stdout
    )
    assert ask("memory", "show", student, shown["first"][0]["id"])[0]["pinned"]
    assert "nothing has to go" in run("memory", "evict", student, "--keep", 20).stdout
    assert ask("memory", "evict", student, "--keep", 20) is None
    run("memory", "evict", student, "--budget", "3kB", "--policy", "random", "--young", "7d")
    run("undo", student, 3)
    assert run("generate", student, "A fox", "--max-tokens", 8).stdout == text
    assert ask("memory", "verify", student)["wrong"] == []


def test_slots_that_are_near_become_one(student: Path) -> None:
    shown = ask("memory", "merge", student, "--within", 1, "--most", 3, "--dry-run")
    assert len(shown["groups"]) == 3
    assert not shown["counted"]
    assert "would become 3" in run("memory", "merge", student, "--within", 1, "--most", 3, "--dry-run").stdout
    assert "merged into 3" in run("memory", "merge", student, "--within", 1, "--most", 3).stdout
    assert ask("memory", "search", student, "merged")["total"] == 3
    assert "nothing is to be merged" in run("memory", "merge", student, "--within", 0).stdout
    assert ask("memory", "merge", student, "--within", 0) is None
    run("undo", student)
    assert "nothing was counted" in run("memory", "merge", student, "--co-read", code=2).stderr
    run("generate", student, "Once upon a time", "--count")
    run("memory", "merge", student, "--co-read", "--often", 0.01, "--dry-run")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["memory", "evict", "{}"], "how much is to go"),
        (["memory", "evict", "{}", "--keep", 1, "--remove", 1], "how much is to go"),
        (["memory", "evict", "{}", "--budget", "much"], "is no size"),
        (["memory", "evict", "{}", "--keep", 1, "--young", "old"], "neither a number of tokens nor a time"),
        (["generate", "TEACHER", "A fox", "--count"], "no memory whose reads"),
    ],
)
def test_what_cannot_be_meant_of_counting(
    student: Path, teacher: Path, arguments: list[object], sentence: str
) -> None:
    given = [str(one).format(student).replace("TEACHER", str(teacher)) for one in arguments]
    assert sentence in " ".join(run(*given, code=2).stderr.split())


def test_a_memory_of_an_older_release_says_what_to_do_and_keeps_everything(student: Path) -> None:
    run("memory", "pin", student, 1)
    before = ask("memory", "search", student, "--limit", 1000)
    make_older(student)
    told = run("memory", "stats", student, code=1)
    assert "`mindset memory migrate DIR`" in told.stderr
    assert "this release reads them" in run("memory", "migrate", student).stdout
    assert ask("memory", "migrate", student)["slots"] > 0
    assert ask("memory", "search", student, "--limit", 1000) == before
    assert ask("memory", "verify", student)["wrong"] == []


def make_older(student: Path) -> None:
    """Take back steps 3 and 4 of the store's tables."""
    from mindset.database.engine import open_engine, sqlite_url, writing
    from mindset.store.schema import SCHEMA

    (database,) = (student / "memory").glob("slots.*.sqlite")
    engine = open_engine(sqlite_url(database))
    with writing(engine) as connection:
        for trigger in ("delete", "update_out", "update_in"):
            connection.exec_driver_sql(f"DROP TRIGGER slots_text_{trigger}")
        for gone in ("TABLE slots_text", "VIEW slots_text_rows", "INDEX slots_cited"):
            connection.exec_driver_sql(f"DROP {gone}")
        for statement in SCHEMA.migrations[0].sqlite[:5]:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql(
            "DELETE FROM mindset_migrations WHERE schema_name = 'store' AND number >= 3"
        )
    engine.dispose()
