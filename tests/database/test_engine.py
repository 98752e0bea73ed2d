"""The same transactions on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from mindset.database.engine import dialect_of, open_engine, reading, sqlite_url, writing
from mindset.errors import BusyError, FormatError, MissingError, ReadOnlyError, UsageError


def make_table(engine: sa.Engine, rows: int = 0) -> None:
    with writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE things (id INTEGER PRIMARY KEY)")
        for i in range(rows):
            connection.execute(sa.text("INSERT INTO things VALUES (:i)"), {"i": i})


def count(connection: sa.Connection) -> int:
    return int(connection.execute(sa.text("SELECT count(*) FROM things")).scalar_one())


def test_what_was_written_is_read(engine: sa.Engine) -> None:
    make_table(engine, 3)
    with reading(engine) as connection:
        assert count(connection) == 3


def test_a_failed_transaction_leaves_nothing_tables_included(engine: sa.Engine) -> None:
    with pytest.raises(RuntimeError), writing(engine) as connection:  # noqa: PT012
        connection.exec_driver_sql("CREATE TABLE things (id INTEGER PRIMARY KEY)")
        raise RuntimeError
    make_table(engine)  # the name is free


def test_a_reader_sees_one_state(engine: sa.Engine) -> None:
    make_table(engine, 1)
    with reading(engine) as reader:
        assert count(reader) == 1
        with writing(engine) as writer:
            writer.exec_driver_sql("INSERT INTO things VALUES (7)")
        assert count(reader) == 1
    with reading(engine) as reader:
        assert count(reader) == 2


def test_reading_refuses_to_write(url: sa.URL, engine: sa.Engine) -> None:
    make_table(engine)
    opened = open_engine(url, read_only=True)
    with pytest.raises(ReadOnlyError), writing(opened) as connection:
        connection.exec_driver_sql("INSERT INTO things VALUES (7)")
    opened.dispose()


def test_a_mistake_in_a_statement_stays_what_it_is(engine: sa.Engine) -> None:
    with pytest.raises(sa.exc.DBAPIError), writing(engine) as connection:
        connection.exec_driver_sql("SELEC 1")


def test_the_second_writer_waits_then_says_who_is_in_its_way(url: sa.URL, engine: sa.Engine) -> None:
    make_table(engine)
    other = open_engine(url, busy_seconds=0.2)
    with writing(engine) as first:
        first.exec_driver_sql("INSERT INTO things VALUES (1)")
        if dialect_of(engine) == "postgresql":
            first.exec_driver_sql("LOCK TABLE things")
        with pytest.raises(BusyError, match="another process is writing"), writing(other) as second:
            second.exec_driver_sql("INSERT INTO things VALUES (2)")
    other.dispose()


# ---- SQLite's files --------------------------------------------------------------------------------------------


def test_opening_for_reading_writes_nothing_in_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "a folder with 100% of ?s"
    folder.mkdir()
    engine = open_engine(sqlite_url(folder / "x.sqlite"))
    make_table(engine, 2)
    engine.dispose()
    assert [file.name for file in folder.iterdir()] == ["x.sqlite"]
    before = (folder / "x.sqlite").read_bytes()
    (folder / "x.sqlite").chmod(0o444)
    folder.chmod(0o555)
    try:
        reader = open_engine(sqlite_url(folder / "x.sqlite"), read_only=True)
        with reading(reader) as connection:
            assert count(connection) == 2
        reader.dispose()
    finally:
        folder.chmod(0o755)
    assert (folder / "x.sqlite").read_bytes() == before


@pytest.mark.parametrize("damage", ["no database", "a page lost"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.sqlite"
    engine = open_engine(sqlite_url(path))
    make_table(engine, 2000)
    engine.dispose()
    whole = path.read_bytes()
    path.write_bytes(
        b"hello" * 4000 if damage == "no database" else whole[:4096] + b"\xff" * (len(whole) - 4096)
    )
    with pytest.raises(FormatError, match="damaged") as caught:  # noqa: PT012
        engine = open_engine(sqlite_url(path), read_only=True)
        with reading(engine) as connection:
            count(connection)
    assert str(path) in str(caught.value)


def test_what_is_not_there_and_what_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such database"):
        open_engine(sqlite_url(tmp_path / "no.sqlite"), read_only=True)
    with pytest.raises(MissingError, match="no such folder"):
        open_engine(sqlite_url(tmp_path / "no" / "no.sqlite"))
    for wrong in ("x.sqlite", "mysql://localhost/x", "sqlite://"):
        with pytest.raises(UsageError):
            open_engine(wrong)


def test_no_password_in_a_message() -> None:
    engine = open_engine("postgresql://me:secret@127.0.0.1:1/x")
    with pytest.raises(MissingError, match="no server answers") as caught, reading(engine):
        pass
    assert "secret" not in str(caught.value)


def test_committed_survives_kill_9(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "x.sqlite")
    script = """
import os, signal, sys
from mindset.database.engine import open_engine, writing
engine = open_engine(sys.argv[1])
with writing(engine) as c: c.exec_driver_sql("CREATE TABLE things (id INTEGER PRIMARY KEY)")
with writing(engine) as c: c.exec_driver_sql("INSERT INTO things VALUES (1)")
with writing(engine) as c:
    c.exec_driver_sql("INSERT INTO things VALUES (2)")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, f"sqlite:///{tmp_path}/x.sqlite"], env=os.environ, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    engine = open_engine(url)
    with reading(engine) as connection:
        assert connection.execute(sa.text("SELECT id FROM things")).scalars().all() == [1]
    engine.dispose()
