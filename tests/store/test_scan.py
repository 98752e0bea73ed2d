"""Looking through records, on both databases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from mindset.errors import MindsetError, UsageError
from mindset.store.edit import NewShard
from mindset.store.ledger import Ledger
from mindset.store.scan import Where, ask, count, counts, scan
from mindset.store.slots import Change, Citation, NewSlot


@pytest.fixture
def ledger(engine: sa.Engine) -> Ledger:
    ledger = Ledger(engine)
    fields = {"key": {"dtype": "float32", "d": 4}}
    with ledger.editing("make") as edit:
        source = edit.add_source("towers.txt", "The Eiffel Tower is in Paris.")
        for layer in range(3):
            shard = edit.add_shard(NewShard(layer, "base", "mirror", 1, "silu", True, fields))
            new = [
                NewSlot(label=f"slot {i}", tags=("even",) if i % 2 == 0 else ("odd", "even-not"), pinned=i == 3,
                        cites=Citation(source, 4, 10) if i == 4 else None, weight=float(i != 5))
                for i in range(6)
            ]  # fmt: skip
            rows = edit.take_rows(shard, 6)
            edit.insert(shard, new, rows, rows)
    with ledger.editing("end") as edit:
        edit.delete([1])
    return ledger


def ids(ledger: Ledger, **where: Any) -> list[int]:
    found = [record.id for record in scan(ledger, Where(**where))]
    assert count(ledger, Where(**where)) == len(found)
    return found


def test_filters(ledger: Ledger) -> None:
    assert ids(ledger) == list(range(2, 19))
    assert ids(ledger, layer=1) == list(range(7, 13))
    assert ids(ledger, tag="even") == [3, 5, 7, 9, 11, 13, 15, 17]
    assert ids(ledger, pinned=True) == [4, 10, 16]
    assert ids(ledger, pinned=False, layer=0) == [2, 3, 5, 6]
    assert ids(ledger, suppressed=True) == [6, 12, 18]
    assert ids(ledger, text="eiffel") == [5, 11, 17]
    assert ids(ledger, text='"slot 2"', layer=2) == [15]
    assert ids(ledger, text="towers OR odd", layer=1) == [8, 10, 11, 12]
    assert ids(ledger, shard="new") == []


def test_pages_are_the_whole_in_order(ledger: Ledger) -> None:
    for newest in (False, True):
        after, seen = 0, []
        while page := scan(ledger, Where(), limit=4, after=after, newest=newest):
            seen += [record.id for record in page]
            after = seen[-1]
        assert seen == sorted(range(2, 19), reverse=newest)
    with pytest.raises(UsageError):
        scan(ledger, Where(), limit=0)


@pytest.mark.parametrize("where", [{"text": "slot"}, {"text": "odd", "layer": 1}, {"text": "paris OR 2"}])
def test_pages_of_a_text_are_the_whole_in_order(ledger: Ledger, where: dict[str, Any]) -> None:
    whole = ids(ledger, **where)
    assert len(whole) >= 3
    for newest in (False, True):
        after, seen = 0, []
        while page := scan(ledger, Where(**where), limit=2, after=after, newest=newest):
            seen += [record.id for record in page]
            after = seen[-1]
        assert seen == (whole[::-1] if newest else whole)
    assert count(ledger, Where(**where), at_most=2) == 2


def test_a_slot_that_was_edited_is_counted_once(ledger: Ledger) -> None:
    with ledger.editing("label") as edit:
        edit.change([5], Change(label="slot and tower"))
    assert ids(ledger, text="tower OR towers") == [5, 11, 17]
    assert ids(ledger, text="slot", layer=0) == [2, 3, 4, 5, 6]


def test_counts_of_shards(ledger: Ledger) -> None:
    assert [(one.shard.layer, one.slots, one.pinned) for one in counts(ledger)] == [
        (0, 5, 1),
        (1, 6, 1),
        (2, 6, 1),
    ]


def test_questions_in_sql(ledger: Ledger) -> None:
    answer = ask(ledger, "SELECT layer, count(*) AS n FROM shards JOIN slots ON shard = shards.id WHERE alive = 1 "
                         "GROUP BY layer ORDER BY layer")  # fmt: skip
    assert answer.columns == ("layer", "n")
    assert answer.rows == [(0, 5), (1, 6), (2, 6)]


@pytest.mark.parametrize("statement", ["DELETE FROM slots", "CREATE TABLE x (a int)"])
def test_what_would_change_something_is_refused_and_changes_nothing(
    url: sa.URL, ledger: Ledger, statement: str
) -> None:
    from mindset.database.engine import open_engine

    reader = Ledger(open_engine(url, read_only=True), read_only=True)
    with pytest.raises(MindsetError):
        ask(reader, statement)
    reader.engine.dispose()
    assert ledger.count() == 17
    assert np.array_equal(ids(ledger, layer=0), [2, 3, 4, 5, 6])


def test_counting_stops_where_it_is_told_to(ledger: Ledger) -> None:
    total = count(ledger, Where())
    assert total > 2
    assert count(ledger, Where(), at_most=2) == 2
    assert count(ledger, Where(), at_most=total + 5) == total


@pytest.mark.parametrize("seed", range(5))
def test_words_follow_edits_deletions_and_undoing(ledger: Ledger, seed: int) -> None:
    """After any of them a page by words is what looking at every living label finds."""
    rng = np.random.default_rng(seed)
    done: list[int] = []
    for _ in range(12):
        living = [one.id for one in scan(ledger, Where(), limit=100)]
        some = sorted(int(i) for i in rng.choice(living, size=min(3, len(living)), replace=False))
        what = rng.choice(["label", "delete", "undo", "redo"], p=[0.5, 0.1, 0.25, 0.15])
        if what == "undo" and done and ledger.holds(done[-1]):
            ledger.turn(done[-1], False)
        elif what == "redo" and done and not ledger.holds(done[-1]):
            ledger.turn(done[-1], True)
        else:
            if done and not ledger.holds(done[-1]):
                ledger.forget(done.pop())
            with ledger.editing(str(what)) as edit:
                label = " ".join(rng.choice(["oak", "elm", "ash"], size=2))
                edit.delete(some) if what == "delete" else edit.change(some, Change(label=label))
                done.append(edit.id)
        for word in ("oak", "elm", "ash", "slot"):
            every = scan(ledger, Where(), limit=100)
            assert ids(ledger, text=word) == [one.id for one in every if word in one.label.split()]
            assert ids(ledger, text=word, layer=1) == [
                one.id for one in every if one.layer == 1 and word in one.label.split()
            ]


def test_a_memory_of_before_has_its_words_again(url: sa.URL) -> None:
    """Step 3 makes the full text anew, of the living alone."""
    from mindset.database.engine import open_engine, writing
    from mindset.database.migrations import Schema
    from mindset.store.schema import SCHEMA

    engine = open_engine(url)
    Schema("store", SCHEMA.migrations[:2]).migrate(engine)
    with writing(engine) as connection:
        connection.exec_driver_sql(
            "INSERT INTO shards VALUES (1, 0, 'base', 'mirror', 1, 'silu', 1, '{}', 0, 3, 1)"
        )
        connection.exec_driver_sql("INSERT INTO edits VALUES (1, 'make', 'now', 1, 1)")
        for version, slot, alive, label in ((1, 1, 0, "oak"), (2, 2, 1, "oak"), (3, 1, 1, "elm")):
            connection.execute(
                sa.text("INSERT INTO slots VALUES (:version, :slot, 1, 0, :version, :alive, 1, NULL, 0, NULL, NULL, "
                        "NULL, 'now', :label, '[]', 0, 1.0)"),
                {"version": version, "slot": slot, "alive": alive, "label": label},
            )  # fmt: skip
    assert SCHEMA.migrate(engine) == 2
    ledger = Ledger(engine)
    assert ids(ledger, text="oak") == [2]
    assert ids(ledger, text="elm") == [1]
    engine.dispose()
