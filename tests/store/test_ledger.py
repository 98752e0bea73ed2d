"""Records on both databases against a plain dictionary that is copied at every edit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindset.errors import MissingError, UsageError
from mindset.store.edit import NewShard
from mindset.store.ledger import Ledger
from mindset.store.slots import Change, Citation, NewSlot, SlotRecord

SHARD = NewShard(3, "new", "mirror", 1, "relu", False, {"key": {"dtype": "float32", "d": 4}})


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def add(ledger: Ledger, shard: int, count: int, **given: Any) -> tuple[int, list[int]]:
    with ledger.editing("insert") as edit:
        where = edit.take_rows(shard, count)
        ids = edit.insert(shard, [NewSlot(**given)] * count, where, where * 7)
    return edit.id, [int(i) for i in ids]


@pytest.fixture
def ledger(engine: sa.Engine) -> Ledger:
    return Ledger(engine)


@pytest.fixture
def shard(ledger: Ledger) -> int:
    with ledger.editing("shard") as edit:
        return edit.add_shard(SHARD)


def test_a_slot_has_its_record(ledger: Ledger, shard: int) -> None:
    with ledger.editing("learn") as edit:
        source = edit.add_source("paris.txt", "The capital of France is Paris.")
        assert edit.add_source("paris.txt", "The capital of France is Paris.") == source
        new = NewSlot(0, Citation(source, 4, 11), "a capital", ("geo", "fact"), True, 0.5)
        ids = edit.insert(shard, [new], edit.take_rows(shard, 1), rows(9))
    (record,) = ledger.records(ids)
    wanted = SlotRecord(
        1, 3, "new", 0, 0, record.created, Citation(1, 4, 11), "a capital", ("geo", "fact"), True, 0.5
    )
    assert record == wanted
    assert ledger.source(source).text[4:11] == "capital"
    assert ledger.live(shard).crcs.tolist() == [9]
    assert ledger.count() == 1


def test_what_is_not_there_and_what_is_there_twice(ledger: Ledger, shard: int) -> None:
    _, ids = add(ledger, shard, 2)
    with pytest.raises(MissingError, match="no slot 77, nor 1 of the others"):
        ledger.records([ids[0], 77, 78])
    with pytest.raises(UsageError, match="named twice"), ledger.editing("x") as edit:
        edit.delete([ids[0], ids[0]])
    with pytest.raises(MissingError, match="no slot 99"), ledger.editing("x") as edit:
        edit.delete([ids[0], 99])
    with pytest.raises(UsageError, match="has a shard 'new' already"), ledger.editing("x") as edit:
        edit.add_shard(SHARD)
    assert ledger.count() == 2
    for missing in (ledger.source, lambda n: ledger.turn(n, False)):
        with pytest.raises(MissingError):
            missing(99)


def test_an_edit_that_fails_leaves_no_slot_no_row_no_number(ledger: Ledger, shard: int) -> None:
    add(ledger, shard, 2)
    generation = ledger.generation()
    with pytest.raises(RuntimeError), ledger.editing("insert") as edit:  # noqa: PT012
        edit.insert(shard, [NewSlot()], edit.take_rows(shard, 1), rows(0))
        raise RuntimeError
    assert (ledger.count(), ledger.generation()) == (2, generation)
    assert ledger.shards()[0].top == 2


def test_ids_are_never_used_again_rows_are(ledger: Ledger, shard: int) -> None:
    edit, ids = add(ledger, shard, 3)
    with ledger.editing("delete") as ending:
        ending.delete(ids[1:])
    assert ledger.live(shard).rows.tolist() == [0]
    _, more = add(ledger, shard, 1)
    assert ledger.records(more)[0].row == 3  # rows of what may come back are not free
    assert ledger.forget(ending.id) == 2
    assert ledger.forget(ending.id) == 0
    _, others = add(ledger, shard, 3)
    assert sorted(record.row for record in ledger.records(others)) == [1, 2, 4]
    assert min(others) > max(ids)
    assert ledger.holds(edit)


def test_sealed_rows_are_never_handed_out(ledger: Ledger) -> None:
    with ledger.editing("convert") as edit:
        shard = edit.add_shard(replace(SHARD, name="base", sealed=2))
        ids = edit.insert(shard, [NewSlot()] * 2, rows(0, 1), rows(5, 6))
    with ledger.editing("delete") as ending:
        ending.delete([int(i) for i in ids])
    assert ledger.forget(ending.id) == 0
    _, new = add(ledger, shard, 1)
    assert ledger.records(new)[0].row == 2


def test_overlays_are_mounted_and_taken_off(ledger: Ledger, shard: int) -> None:
    assert ledger.set_mounted("new", False) == 1
    assert [one.mounted for one in ledger.shards()] == [False]
    with pytest.raises(MissingError, match="no overlay 'facts'"):
        ledger.set_mounted("facts", True)


def test_reading_only_needs_a_database_of_this_version(engine: sa.Engine, ledger: Ledger, shard: int) -> None:
    assert Ledger(engine, read_only=True).shards() == ledger.shards()


@dataclass
class Model:
    """What should live: by id, row and attributes; and a copy of it before every edit."""

    live: dict[int, tuple[int, str]] = field(default_factory=dict)
    past: list[tuple[int, dict[int, tuple[int, str]]]] = field(default_factory=list)
    future: list[tuple[int, dict[int, tuple[int, str]]]] = field(default_factory=list)


STEP = st.one_of(
    st.tuples(st.just("insert"), st.integers(1, 3)),
    st.tuples(st.sampled_from(["delete", "move", "change", "twice"]), st.integers(0, 20)),
    st.tuples(st.sampled_from(["undo", "redo", "forget"]), st.just(0)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, min_size=1, max_size=14))
def test_any_history_is_that_of_a_dictionary(engine: sa.Engine, steps: list[tuple[str, int]]) -> None:
    ledger, model = Ledger(engine), Model()
    with ledger.editing("shard") as edit:
        shard = edit.add_shard(replace(SHARD, layer=len(ledger.shards())))
    for verb, number in steps:
        go(ledger, shard, model, verb, number)
        live = ledger.live(shard)
        seen = {
            int(i): (int(row), record.label)
            for i, row, record in zip(live.ids, live.rows, ledger.records(live.ids.tolist()), strict=True)
        }
        assert seen == model.live
        assert len(set(live.rows.tolist())) == len(live.rows)
        named = set(ledger.named_rows(shard).tolist())
        assert set(live.rows.tolist()) <= named


def go(ledger: Ledger, shard: int, model: Model, verb: str, number: int) -> None:
    """One step, in the ledger and in the model."""
    if verb in ("undo", "redo"):
        source, target = (model.past, model.future) if verb == "undo" else (model.future, model.past)
        if source:
            edit, state = source.pop()
            target.append((edit, model.live))
            ledger.turn(edit, verb == "redo")
            model.live = state
        return
    if verb == "forget":
        if model.past:
            ledger.forget(model.past.pop(0)[0])
        return
    live = dict(model.live)
    some = list(live)[number % len(live) :][:2] if live else []
    with ledger.editing(verb) as edit:
        if verb == "insert":
            where = edit.take_rows(shard, number)
            assert not set(where.tolist()) & {row for row, _ in live.values()}
            ids = edit.insert(shard, [NewSlot(label="a")] * number, where, where)
            live |= {int(i): (int(row), "a") for i, row in zip(ids, where, strict=True)}
        elif verb == "delete":
            edit.delete(some)
            live = {i: what for i, what in live.items() if i not in some}
        if verb in ("move", "twice"):
            where = edit.take_rows(shard, len(some))
            edit.move(some, where, where)
            live |= {i: (int(row), live[i][1]) for i, row in zip(some, where, strict=True)}
        if verb in ("change", "twice"):
            edit.change(some, Change(label=f"b{number}"))
            live |= {i: (live[i][0], f"b{number}") for i in some}
    for overtaken, _ in reversed(model.future):
        ledger.forget(overtaken)
    model.future.clear()
    model.past.append((edit.id, model.live))
    model.live = live
