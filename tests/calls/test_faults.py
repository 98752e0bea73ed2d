"""Processes that are killed, writers that meet, disks that are full: nothing acknowledged is lost, one clear error."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from calls import noting
from calls.said import asked, call, ok, pieces

from mindset.calls import log as log_module
from mindset.calls.log import CallLog
from mindset.calls.process import Process, is_alive, this_process
from mindset.calls.schema import CALLS, PROCESSES
from mindset.database.engine import open_engine, reading, writing
from mindset.errors import BusyError, DiskFullError, FormatError, MindsetError, MissingError, ReadOnlyError

KILLS = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL, which Windows lacks")


def address(url: sa.URL) -> str:
    return url.render_as_string(hide_password=False)


def start(url: sa.URL, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(noting.__file__), address(url), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def killed(writer: subprocess.Popen[str], lines: int, seconds: float) -> list[str]:
    """What a writer said until it was killed, some time after so many lines."""
    assert writer.stdout is not None
    said = "".join(writer.stdout.readline() for _ in range(lines))
    time.sleep(seconds)
    writer.send_signal(signal.SIGKILL)
    rest, _ = writer.communicate()
    return (said + rest).splitlines(keepends=False)


def check(log: CallLog, said: list[str], name: str) -> None:
    """Everything acknowledged is there, and what was cut off says so, with all that was noted."""
    noted, finished = defaultdict(list), set()
    for line in said:
        kind, number, *word = line.split(" ", 2)
        if kind == "begun":
            noted[int(number)] = []
        elif kind == "noted":
            noted[int(number)] += word
        elif kind == "finished":
            finished.add(int(number))
    assert noted
    for made, words in noted.items():
        found = log.call(made)
        told = "".join(str(piece.event["text"]) for piece in found.pieces)
        assert told.startswith("".join(words)), (words, told)
        assert [node.content["role"] for node in found.asked.nodes] == ["user"]
        if made in finished or found.outcome.status == "ok":
            assert found.outcome.status == "ok"
            continue
        assert (found.outcome.status, found.outcome.error) == ("failed", "the process ended")
        answer = found.outcome.answer
        assert (answer[0].content["parts"][0]["text"] if answer else "") == told
    assert log.tree.verify().problems == ()
    with reading(log.engine) as connection:
        texts = connection.execute(sa.text("SELECT count(*) FROM texts")).scalar()
        calls = connection.execute(sa.text("SELECT count(*) FROM calls WHERE status <> 'running'")).scalar()
    assert texts == calls


@KILLS
@pytest.mark.parametrize("seed", range(2))
def test_kill_in_the_middle_of_anything(url: sa.URL, seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311  when to kill, not a secret
    for turn in range(3):
        said = killed(start(url, f"run {turn}"), draw.randrange(1, 12), draw.uniform(0, 0.03))
        log = CallLog.open(address(url))
        check(log, said, f"run {turn}")
        log.close()


@KILLS
def test_two_processes_write_at_once_and_one_dies(url: sa.URL) -> None:
    CallLog.open(address(url)).close()
    first, second = start(url, "first"), start(url, "second")
    said = killed(first, 40, 0)
    log = CallLog.open(address(url))  # while the second goes on
    check(log, said, "first")
    with reading(log.engine) as connection:
        lost = connection.execute(sa.select(CALLS.c.run).where(CALLS.c.status == "failed")).scalars().all()
        names = dict(connection.execute(sa.text("SELECT id, name FROM runs")).all())
    assert {names[run] for run in lost} <= {"first"}
    log.close()
    said = killed(second, 40, 0)
    check(CallLog.open(address(url)), said, "second")


def test_calls_of_this_process_and_of_other_machines_are_left_alone(log: CallLog, url: sa.URL) -> None:
    here, there = log.begin(asked("here")), log.begin(asked("there"))
    with writing(log.engine) as connection:
        other = {
            "host": "another machine",
            "boot": "x",
            "pid": 1,
            "began": "1",
            "command": "[]",
            "entered": "",
        }
        number = connection.execute(sa.insert(PROCESSES).values(other).returning(PROCESSES.c.id)).scalar_one()
        connection.execute(sa.update(CALLS).where(CALLS.c.id == there).values(process=number))
    log.close()
    with reading(CallLog.open(address(url)).engine) as connection:
        assert set(connection.execute(sa.select(CALLS.c.status)).scalars()) == {"running"}
    CallLog.open(address(url)).finish(here, ok("back"))
    assert CallLog.open(address(url)).call(here).outcome == ok("back")


def test_a_process_that_was_thought_dead_may_still_say_how_it_went(log: CallLog, url: sa.URL) -> None:
    made = log.begin(asked("a"))
    log.note(made, pieces("b "))
    with writing(log.engine) as connection:
        connection.execute(sa.update(PROCESSES).values(began="long ago"))
    again = CallLog(log.engine)
    assert again.call(made).outcome.error == "the process ended"
    log.finish(made, ok("b c"), pieces("c", begin=1))
    assert again.call(made).outcome == ok("b c")
    assert log.tree.verify().problems == ()


def test_processes_are_told_apart() -> None:
    here = this_process()
    assert is_alive(here) is True
    assert is_alive(Process(here.host, here.boot, here.pid, "another time")) is False
    assert is_alive(Process("elsewhere", here.boot, here.pid, here.began)) is None
    if here.boot:
        assert is_alive(Process(here.host, "an earlier start/1", here.pid, here.began)) is False
        assert (
            is_alive(Process(here.host, here.boot.partition("/")[0] + "/other", here.pid, here.began)) is None
        )
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert is_alive(Process(here.host, here.boot, done.pid, "1")) is False


def test_the_default_place_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "new" / "home"
    monkeypatch.setenv("MINDSET_HOME", str(home))
    call(CallLog.open(), "a", "b")
    assert home.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in home.iterdir()} == {
        "calls.sqlite": 0o600, "calls.sqlite-wal": 0o600, "calls.sqlite-shm": 0o600
    }  # fmt: skip
    monkeypatch.setenv("MINDSET_CALLS", f"sqlite:///{tmp_path}/other.sqlite")
    assert CallLog.open().engine.url.database == str(tmp_path / "other.sqlite")
    assert (tmp_path / "other.sqlite").stat().st_mode & 0o777 == 0o600
    with pytest.raises(MissingError, match="no such folder for a database"):
        CallLog.open(f"sqlite:///{tmp_path}/nowhere/x.sqlite")
    with pytest.raises(MissingError, match="there is no such database"):
        CallLog.open(f"sqlite:///{tmp_path}/nothing.sqlite", read_only=True)
    with pytest.raises(MindsetError, match="is no database URL"):
        CallLog.open("calls.sqlite")


def test_a_file_that_was_taken_away_is_made_anew(tmp_path: Path) -> None:
    place = tmp_path / "c.sqlite"
    log = CallLog.open(f"sqlite:///{place}")
    call(log, "a", "b")
    for path in tmp_path.iterdir():
        path.unlink()
    again = CallLog.open(f"sqlite:///{place}")
    assert again is not log
    call(again, "a", "b")
    assert place.is_file()


def zeros(path: Path) -> None:
    path.write_bytes(b"\0" * 5000)


def nonsense(path: Path) -> None:
    path.write_bytes(b"nonsense" * 1000)


def later(path: Path) -> None:
    engine = open_engine(f"sqlite:///{path}")
    with writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO mindset_migrations VALUES ('calls', 99, 'later', 'then')")
    engine.dispose()


def torn(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [(zeros, "damaged"), (nonsense, "damaged"), (later, "update mindset"), (torn, "damaged")],
)
@pytest.mark.parametrize("read_only", [False, True])
def test_a_damaged_file_is_one_sentence(
    tmp_path: Path, damage: Callable[[Path], None], sentence: str, read_only: bool
) -> None:
    place = tmp_path / "c.sqlite"
    log = CallLog.open(f"sqlite:///{place}")
    call(log, "a", "b")
    log.close()
    damage(place)
    with pytest.raises(FormatError, match=sentence) as failed:
        CallLog.open(f"sqlite:///{place}", read_only=read_only).call(1)
    assert str(place) in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_damaged_row_of_pieces_keeps_nobody_out(log: CallLog, url: sa.URL) -> None:
    made = log.begin(asked("a"))
    log.note(made, pieces("b "))
    log.note(made, pieces("c "))
    with writing(log.engine) as connection:
        connection.execute(sa.text("UPDATE pieces SET events = :x WHERE number = 0"), {"x": b"x\x9c damaged"})
        connection.execute(sa.update(PROCESSES).values(began="long ago"))
    log.close()
    again = CallLog.open(address(url))
    with pytest.raises(FormatError, match="pieces is damaged"):
        again.call(made)
    with reading(again.engine) as connection:
        assert connection.execute(sa.text("SELECT answer FROM texts")).scalar() == "c "


def test_a_full_disk_is_one_sentence_and_nothing_half(small_disk: Path) -> None:
    url = f"sqlite:///{small_disk}/c.sqlite"
    log = CallLog.open(url)
    first = call(log, "a", "b")

    def fill() -> None:
        for n in range(400):
            call(log, f"{n} " + os.urandom(4000).hex(), os.urandom(4000).hex())

    with pytest.raises(DiskFullError, match="nothing of this change was kept"):
        fill()
    assert log.call(first).outcome == ok("b")
    assert log.tree.verify().problems == ()
    log.close()
    assert CallLog.open(url, read_only=True).call(first).outcome == ok("b")


AS_NOBODY = """
import os, sys, tempfile
from mindset.calls.log import CallLog
from mindset.errors import MindsetError
CallLog.open(f"sqlite:///{tempfile.mkdtemp()}/first.sqlite").close()  # what is imported later could not be read later
os.setgid(65534)
os.setuid(65534)
try:
    CallLog.open(sys.argv[1])
except MindsetError as error:
    print(type(error).__name__, error)
"""


def as_nobody(url: str) -> str:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("needs root, to become somebody who may not")
    done = subprocess.run([sys.executable, "-c", AS_NOBODY, url], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(0o755)
    return tmp_path


def test_a_place_that_may_not_be_written_is_one_sentence(open_folder: Path) -> None:
    said = as_nobody(f"sqlite:///{open_folder}/c.sqlite")
    assert said.startswith("ReadOnlyError ")
    assert "cannot be made there (permission denied); MINDSET_CALLS=" in said


def test_a_file_that_may_not_be_written_is_one_sentence(open_folder: Path) -> None:
    CallLog.open(f"sqlite:///{open_folder}/c.sqlite").close()
    assert as_nobody(f"sqlite:///{open_folder}/c.sqlite").startswith("MissingError ")
    (open_folder / "c.sqlite").chmod(0o644)
    assert as_nobody(f"sqlite:///{open_folder}/c.sqlite").startswith("ReadOnlyError ")


def test_a_writer_that_does_not_let_go_is_one_sentence(url: sa.URL) -> None:
    engine, other = open_engine(url, busy_seconds=0.2), open_engine(url)
    log = CallLog(engine)
    made = log.begin(asked("a"))
    with writing(other) as connection:
        connection.execute(sa.text("UPDATE calls SET error = 'mine'"))
        with pytest.raises(BusyError, match="another process is writing"):
            log.finish(made, ok("b"), pieces("b"))
    log.finish(made, ok("b"))
    assert [piece.event["text"] for piece in log.call(made).pieces] == ["b"]
    engine.dispose()
    other.dispose()


def test_a_read_only_log_writes_nothing(tmp_path: Path) -> None:
    place = tmp_path / "c.sqlite"
    log = CallLog.open(f"sqlite:///{place}")
    made = log.begin(asked("a"))
    log.close()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    reader = CallLog.open(f"sqlite:///{place}", read_only=True)
    with pytest.raises(ReadOnlyError, match="opened for reading only"):
        reader.begin(asked("a"))
    with pytest.raises(ReadOnlyError):
        reader.tree.add("message", {})
    assert reader.nearest(reader.run_id(reader.call(made).run), asked("a")) is None
    reader.close()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_logs_are_closed_as_the_process_ends(tmp_path: Path) -> None:
    code = "import sys; sys.path.insert(0, 'tests'); from calls.said import call; "
    code += "from mindset.calls.log import CallLog; "
    code += f"call(CallLog.open('sqlite:///{tmp_path}/c.sqlite'), 'a', 'b')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert [path.name for path in tmp_path.iterdir()] == ["c.sqlite"]
    assert log_module.CallLog.open(f"sqlite:///{tmp_path}/c.sqlite").call(1).outcome == ok("b")
