"""Versions that are told once for what is alike are those put in one by one."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindset.database.engine import open_engine, sqlite_url, writing
from mindset.store import bulk
from mindset.store.bulk import VERSION_COLUMNS, Column, Same, put_versions
from mindset.store.schema import SCHEMA

WORDS = ("", "oak", "elm\0ash", 'it"s', "Ünïcode \U0001f600", "[]")
WHOLE = st.integers(-(2**63), 2**63 - 1)


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, dict[str, Column]]:
    count = draw(st.integers(1, 7))

    def column(of: st.SearchStrategy[Any]) -> Column:
        return draw(st.one_of(of.map(Same), st.lists(of, min_size=count, max_size=count)))

    start = draw(st.integers(0, 50))
    row = draw(
        st.one_of(st.just(range(start, start + count)), st.lists(WHOLE, min_size=count, max_size=count))
    )
    return count, {
        "slot": range(start + 1, start + 1 + count), "shard": Same(1), "head": column(st.integers(0, 3)), "row": row,
        "alive": column(st.integers(0, 1)), "born": Same(1), "died": column(st.sampled_from([None, 1])),
        "crc": column(WHOLE), "source": column(st.sampled_from([None, 1])), "start": column(st.none() | WHOLE),
        "stop": column(st.none() | WHOLE), "created": column(st.sampled_from(["now", "then"])),
        "label": column(st.sampled_from(WORDS)), "tags": column(st.sampled_from(["[]", '["a","b"]'])),
        "pinned": column(st.integers(0, 1)), "weight": column(st.floats(allow_nan=False)),
    }  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> sa.Engine:
    made = open_engine(sqlite_url(Path(tmp_path_factory.mktemp("bulk")) / "slots.sqlite"))
    SCHEMA.migrate(made)
    with writing(made) as connection:
        connection.exec_driver_sql(
            "INSERT INTO shards VALUES (1, 0, 'base', 'plain', 1, 'silu', 1, '{}', 0, 9, 1)"
        )
        connection.exec_driver_sql("INSERT INTO edits VALUES (1, 'make', 'now', 1, 1)")
        connection.exec_driver_sql("INSERT INTO sources VALUES (1, 'x', 'a', 'b', 'now')")
    return made


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=batches(), chunk=st.sampled_from([1, 3, 20_000]))
def test_a_batch_is_what_its_rows_are_one_by_one(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, batch: tuple[int, dict[str, Column]], chunk: int
) -> None:
    count, columns = batch
    monkeypatch.setattr(bulk, "_CHUNK", chunk)
    expected = [*zip(*(_listed(({"version": range(1, count + 1)} | columns)[name], count) for name in VERSION_COLUMNS),
                     strict=True)]  # fmt: skip
    with writing(engine) as connection:
        connection.exec_driver_sql("DELETE FROM slots")
        put_versions(connection, range(1, count + 1), columns)
        found = connection.exec_driver_sql("SELECT * FROM slots ORDER BY version").all()
        assert [tuple(row) for row in found] == expected
        assert [list(map(type, row)) for row in found] == [list(map(type, row)) for row in expected]
        connection.exec_driver_sql("INSERT INTO slots_text(slots_text, rank) VALUES ('integrity-check', 1)")
        wanted = {row[1] for row in expected if row[5] == 1 and "oak" in row[13]}
        matches = connection.exec_driver_sql(
            "SELECT rowid FROM slots_text WHERE slots_text MATCH 'label: oak'"
        )
        assert set(matches.scalars()) == wanted


def test_nothing_at_all(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        connection.exec_driver_sql("DELETE FROM slots")
        put_versions(connection, range(1, 1), {name: [] for name in VERSION_COLUMNS if name != "version"})
        assert connection.exec_driver_sql("SELECT count(*) FROM slots").scalar() == 0


def _listed(column: Column, count: int) -> list[Any]:
    return [*itertools.repeat(column.value, count)] if isinstance(column, Same) else [*column]
