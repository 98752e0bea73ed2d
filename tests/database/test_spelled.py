from __future__ import annotations

import pytest
import sqlalchemy as sa

from mindset.database.engine import reading, writing
from mindset.database.spelled import Spelled


def test_one_spelling_for_both(engine: sa.Engine) -> None:
    put = Spelled(
        "INSERT INTO notes (id, text) VALUES (:id, :text) ON CONFLICT (id) DO UPDATE SET text = :text"
    )
    get = Spelled("SELECT text FROM notes WHERE id = :id")
    with writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
        put.run(connection, [{"id": 1, "text": "one :id %s"}, {"id": 2, "text": "zwei ü"}])
        put.run(connection, {"id": 2, "text": "two"})
    with reading(engine) as connection:
        assert [get.run(connection, {"id": id_}).scalar() for id_ in (1, 2, 3)] == ["one :id %s", "two", None]


def test_an_error_is_the_databases_own(engine: sa.Engine) -> None:
    with pytest.raises(sa.exc.DBAPIError), reading(engine) as connection:
        Spelled("SELECT :x FROM nothing").run(connection, {"x": 1})
