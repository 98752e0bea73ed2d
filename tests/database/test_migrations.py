"""Steps are taken once, whole, in order, by whoever comes first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from mindset.database.engine import open_engine, reading, writing
from mindset.database.migrations import Migration, Schema
from mindset.errors import FormatError

ONE = Migration(1, "things", ("CREATE TABLE things (id {id}, size {real}, data {bytes}, n {int})",))
TWO = Migration(
    2, "names", ("ALTER TABLE things ADD COLUMN name TEXT",),
    sqlite=("CREATE TABLE only_sqlite (id {id})",), postgresql=("CREATE TABLE only_postgresql (id {id})",),
)  # fmt: skip


def columns(engine: sa.Engine) -> list[str]:
    return [column["name"] for column in sa.inspect(engine).get_columns("things")]


def test_steps_are_taken_once_and_the_rest_later(engine: sa.Engine) -> None:
    assert Schema("store", (ONE,)).migrate(engine) == 1
    assert columns(engine) == ["id", "size", "data", "n"]
    both = Schema("store", (ONE, TWO))
    with pytest.raises(FormatError, match="has version 1 of store, this release reads 2"):
        both.check(engine)
    assert both.migrate(engine) == 1
    assert both.migrate(engine) == 0
    both.check(engine)
    assert columns(engine)[-1] == "name"
    assert sa.inspect(engine).has_table(f"only_{engine.dialect.name}")


def test_types_hold_what_they_should(engine: sa.Engine) -> None:
    Schema("store", (ONE,)).migrate(engine)
    row = {"id": 2**40, "size": 0.1 + 0.2, "data": bytes(range(256)), "n": -(2**62)}
    with writing(engine) as connection:
        connection.execute(sa.text("INSERT INTO things VALUES (:id, :size, :data, :n)"), row)
    with reading(engine) as connection:
        assert dict(connection.execute(sa.text("SELECT * FROM things")).mappings().one()) == row


def test_packages_share_a_database(engine: sa.Engine) -> None:
    Schema("store", (ONE,)).migrate(engine)
    Schema("calls", (Migration(1, "calls", ("CREATE TABLE calls (id {id})",)),)).migrate(engine)
    Schema("store", (ONE,)).check(engine)


def test_a_step_that_fails_is_not_taken_in_part(engine: sa.Engine) -> None:
    broken = Migration(2, "broken", ("ALTER TABLE things ADD COLUMN name TEXT", "SELEC 1"))
    with pytest.raises(sa.exc.DBAPIError):
        Schema("store", (ONE, broken)).migrate(engine)
    assert "name" not in columns(engine)
    assert Schema("store", (ONE, TWO)).migrate(engine) == 1


def test_a_newer_database_and_another_history_are_refused(engine: sa.Engine) -> None:
    Schema("store", (ONE, TWO)).migrate(engine)
    for old in (Schema("store", (ONE,)).check, Schema("store", (ONE,)).migrate):
        with pytest.raises(FormatError, match="update mindset"):
            old(engine)
    with pytest.raises(FormatError, match="step 2 of store is 'names', not 'sizes'"):
        Schema("store", (ONE, Migration(2, "sizes", ()))).check(engine)


def test_checking_writes_nothing(engine: sa.Engine) -> None:
    with pytest.raises(FormatError, match="has version 0"):
        Schema("store", (ONE,)).check(engine)
    assert sa.inspect(engine).get_table_names() == []


def test_many_at_once_take_each_step_once(url: sa.URL, engine: sa.Engine) -> None:
    schema = Schema("store", (ONE, TWO))

    def go(_: int) -> int:
        mine = open_engine(url)
        try:
            return schema.migrate(mine)
        finally:
            mine.dispose()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(go, range(4))) == 2
    schema.check(engine)


def test_numbers_without_gaps() -> None:
    with pytest.raises(ValueError, match="not numbered"):
        Schema("store", (TWO,))


def test_a_serial_counts_up_and_never_gives_a_number_again(engine: sa.Engine) -> None:
    Schema("calls", (Migration(1, "rows", ("CREATE TABLE rows (id {serial}, name TEXT)",)),)).migrate(engine)
    insert = sa.text("INSERT INTO rows (name) VALUES ('x') RETURNING id")
    with writing(engine) as connection:
        assert [connection.execute(insert).scalar_one() for _ in range(3)] == [1, 2, 3]
        connection.execute(sa.text("DELETE FROM rows WHERE id > 1"))
        assert connection.execute(insert).scalar_one() == 4
