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
