"""What a memory says when something under it is wrong: one sentence, exit code 1, and nothing is lost."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli.test_memory import ask, contents, run, student

from mindset.journal.folder_lock import writing_in

__all__ = ["student"]


def slab(student: Path) -> Path:
    return next((student / "memory").glob("*.value.*.slab"))


def cut(student: Path) -> None:
    path = slab(student)
    os.truncate(path, path.stat().st_size - 100)


def other_version(student: Path) -> None:
    content = bytearray(slab(student).read_bytes())
    content[8] = 9
    slab(student).write_bytes(content)


def other_manifest(student: Path) -> None:
    path = student / "memory" / "memory.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 9'))


def nonsense_for_records(student: Path) -> None:
    next((student / "memory").glob("slots.*.sqlite")).write_bytes(b"nonsense" * 1000)


def records_of_tomorrow(student: Path) -> None:
    run_sql(student, "INSERT INTO mindset_migrations VALUES ('store', 99, 'later', 'then')")


def run_sql(student: Path, statement: str) -> None:
    import sqlite3

    with sqlite3.connect(next((student / "memory").glob("slots.*.sqlite"))) as database:
        database.execute(statement)
    database.close()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (cut, "is cut off"),
        (other_version, "version 9"),
        (other_manifest, "version 9"),
        (nonsense_for_records, "damaged"),
        (records_of_tomorrow, "update mindset"),
    ],
)
def test_a_damaged_memory_is_one_sentence(
    student: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    run("memory", "edit", student, 1, "--label", "one")
    damage(student)
    before = contents(student)
    for command in (["stats", student], ["rm", student, 1], ["search", student, "one"]):
        result = run("memory", *command, code=1)
        assert sentence in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
        assert "Traceback" not in result.output
    after = contents(student)
    assert {name: after[name] for name in before if not name.endswith((".lock", "-wal", "-shm"))} == {
        name: content for name, content in before.items() if not name.endswith((".lock", "-wal", "-shm"))
    }


def test_a_slot_that_was_edited_and_then_damaged_is_named(student: Path) -> None:
    run("memory", "tag", student, 3, "--set", "seen")
    run("memory", "export", student, "--out", student.parent / "out", "--tag", "seen")
    run("memory", "import", student, student.parent / "out")
    newest = ask("memory", "search", student, "--newest", "--limit", 1)["slots"][0]["id"]
    grown = next((student / "memory").glob("*.value.*.grown"))
    content = bytearray(grown.read_bytes())
    content[4096] ^= 1
    grown.write_bytes(content)
    assert [wrong["id"] for wrong in ask("memory", "verify", student, code=1)["wrong"]] == [newest]


def test_a_second_writer_is_told_and_readers_go_on(student: Path) -> None:
    run("memory", "pin", student, 2)
    before = contents(student / "memory")
    with writing_in(student):
        result = subprocess.run(
            [sys.executable, "-m", "mindset", "memory", "rm", student, "1"], capture_output=True, text=True
        )
        assert ask("memory", "search", student, "--pinned")["total"] == 1
    assert result.returncode == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert contents(student / "memory") == before
    run("memory", "rm", student, 1)


def test_a_full_disk_loses_nothing(student: Path) -> None:
    run("memory", "tag", student, *range(1, 30), "--set", "seen")
    run("memory", "export", student, "--out", student.parent / "out", "--tag", "seen")
    stats = ask("memory", "stats", student)
    limit = 8192  # the file of grown rows starts at 1 MiB

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    result = subprocess.run(
        [sys.executable, "-m", "mindset", "memory", "import", student, student.parent / "out"],
        capture_output=True, text=True, preexec_fn=full,
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr
    assert ask("memory", "stats", student) == stats
    assert ask("memory", "verify", student)["wrong"] == []
    run("memory", "import", student, student.parent / "out")


def test_a_folder_that_nobody_can_write_to_is_read_and_says_no_to_changes(
    student: Path, read_only_mount: Callable[[Path], Path]
) -> None:
    run("memory", "pin", student, 2)
    there = read_only_mount(student)
    before = contents(there)
    assert ask("memory", "search", there, "--pinned")["total"] == 1
    assert ask("memory", "verify", there)["wrong"] == []
    result = run("memory", "rm", there, 1, code=1)
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.output
    assert contents(there) == before


@pytest.fixture
def read_only_mount(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    import shutil

    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("needs root and `mount` for a folder that root cannot write to")
    made: list[Path] = []

    def bind(folder: Path) -> Path:
        there = tmp_path / "read-only"
        there.mkdir()
        for options in ("bind", "remount,bind,ro"):
            done = subprocess.run([mount, "-o", options, folder, there], capture_output=True)
            if done.returncode != 0:
                pytest.skip(f"this machine forbids mounting: {done.stderr.decode().strip()}")
            if not made:
                made.append(there)
        return there

    yield bind
    for there in made:
        subprocess.run(["umount", "-l", there], check=True)
