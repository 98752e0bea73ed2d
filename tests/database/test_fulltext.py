"""A search means the same on both databases, and what a naive search over the words means."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindset.database.engine import dialect_of, reading, writing
from mindset.database.fulltext import FullText, Term, parse_query
from mindset.database.migrations import Migration, Schema
from mindset.errors import UsageError

INDEX = FullText("notes", ("title", "body"))
SCHEMA = Schema(
    "test",
    (
        Migration(
            1, "notes", ("CREATE TABLE notes (id {id}, title TEXT, body TEXT)",),
            sqlite=INDEX.statements("sqlite"), postgresql=INDEX.statements("postgresql"),
        ),
    ),
)  # fmt: skip
WORDS = ["paris", "France", "the", "capital", "Zürich", "cat", "cats", "x9"]


def fill(engine: sa.Engine, notes: list[tuple[str, str | None]]) -> None:
    SCHEMA.migrate(engine)
    with writing(engine) as connection:
        connection.exec_driver_sql("DELETE FROM notes")
        for i, (title, body) in enumerate(notes):
            row = {"id": i, "title": title, "body": body}
            connection.execute(
                sa.text("INSERT INTO notes (id, title, body) VALUES (:id, :title, :body)"), row
            )


def search(engine: sa.Engine, query: str) -> list[int]:
    with reading(engine) as connection:
        found = (
            sa.select(sa.column("id"))
            .select_from(sa.table("notes"))
            .where(INDEX.condition(connection, query))
        )
        return sorted(connection.execute(found).scalars().all())


def newest(engine: sa.Engine, query: str, count: int) -> list[int]:
    notes = sa.table("notes", sa.column("id"))
    with reading(engine) as connection:
        rows, key, condition = INDEX.found_in(connection, query, notes, notes.c.id)
        found = sa.select(notes.c.id).select_from(rows).where(condition).order_by(key.desc()).limit(count)
        return list(connection.execute(found).scalars())


def naive(notes: list[tuple[str, str | None]], query: str) -> list[int]:
    def has(columns: tuple[str, str | None], term: Term) -> bool:
        ends = r"[^\W_]*" if term.beginning else ""
        gap, edge = r"[\W_]+", r"(?:^|$|[\W_])"
        pattern = edge + gap.join(map(re.escape, term.words)) + ends + edge
        return any(re.search(pattern, (text or "").lower()) for text in columns)

    def holds(note: tuple[str, str | None]) -> bool:
        return all(
            not has(note, terms[0]) if terms[0].without else any(has(note, term) for term in terms)
            for terms in parse_query(query)
        )

    return [i for i, note in enumerate(notes) if holds(note)]


NOTES = [
    ("Paris", "The capital of France is Paris."), ("Zürich", "no capital"), ("cats", None), ("", "cat, capital"),
    ("towers.txt", "see www.example.org/a_b-c, me@there"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("capital", [0, 1, 3]),
        ("CAPITAL france", [0]),
        ('"capital of france"', [0]),
        ('"france capital"', []),
        ("capital -france", [1, 3]),
        ("cat", [3]),
        ("cat*", [2, 3]),
        ("cats OR zürich", [1, 2]),
        ("capital paris OR cat", [0, 3]),
        ('-"no capital" capital', [0, 3]),
        ("it's; DROP TABLE notes --", []),
        ('"capital', [0, 1, 3]),
        ("NOT (capital)", []),
        ("towers", [4]),
        ("txt example there", [4]),
        ("a_b", [4]),
    ],
)
def test_a_search_box(engine: sa.Engine, query: str, found: list[int]) -> None:
    fill(engine, NOTES)
    assert search(engine, query) == found == naive(NOTES, query)
    assert newest(engine, query, 2) == found[::-1][:2]


@pytest.mark.parametrize("query", ["", "  ", "-paris", "!?"])
def test_a_query_without_a_word_is_refused(engine: sa.Engine, query: str) -> None:
    fill(engine, NOTES)
    with pytest.raises(UsageError, match="names no word"):
        search(engine, query)


def test_the_index_follows_updates_and_deletes(engine: sa.Engine) -> None:
    fill(engine, NOTES)
    with writing(engine) as connection:
        connection.exec_driver_sql("UPDATE notes SET body = 'a dog' WHERE id = 0")
        connection.exec_driver_sql("DELETE FROM notes WHERE id = 1")
    assert search(engine, "dog") == [0]
    assert search(engine, "capital") == [3]
    with pytest.raises(RuntimeError), writing(engine) as connection:  # noqa: PT012
        connection.exec_driver_sql("UPDATE notes SET body = 'whale' WHERE id = 0")
        raise RuntimeError
    assert search(engine, "whale") == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_random_queries_are_the_naive_search(engine: sa.Engine, data: st.DataObject) -> None:
    text = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
    notes = data.draw(st.lists(st.tuples(text, text), max_size=5))
    piece = st.one_of(
        st.sampled_from(WORDS),
        st.sampled_from(WORDS).map(lambda w: f"-{w}"),
        st.sampled_from(WORDS).map(lambda w: f"{w[:2]}*"),
        st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS)).map(lambda two: f'"{two[0]} {two[1]}"'),
        st.just("OR"),
    )
    query = " ".join([data.draw(st.sampled_from(WORDS)), *data.draw(st.lists(piece, max_size=4))])
    fill(engine, notes)
    if dialect_of(engine) == "postgresql":  # its phrases may run from one column into the next
        notes = [(f"{title} {body}", None) for title, body in notes]
    assert search(engine, query) == naive(notes, query)
    assert newest(engine, query, 3) == naive(notes, query)[::-1][:3]
