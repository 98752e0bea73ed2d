"""What differs between two states, against both states looked through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store.test_slab_store import arrays, make_memory

from mindset.store.memory import Memory
from mindset.store.scan import Where, scan
from mindset.store.slots import Change, NewSlot, SlotRecord

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.integers(1, 3)),
        st.tuples(st.sampled_from(["delete", "update", "label", "pin"]), st.integers(0, 9)),
        st.tuples(st.sampled_from(["undo", "redo"]), st.integers(1, 3)),
        st.tuples(st.just("snapshot"), st.just(0)),
    ),
    max_size=14,
)


def state(memory: Memory) -> dict[int, SlotRecord]:
    return {record.id: record for record in scan(memory.store.ledger, Where(), limit=1000)}


def act(memory: Memory, verb: str, number: int, taken: dict[str, Any]) -> None:
    ids = memory.store.live(0, "base").ids
    if verb == "insert":
        memory.insert(0, "base", [NewSlot(label=str(number))] * number, arrays(number))
    elif verb == "snapshot":
        name = f"s{len(taken)}"
        memory.journal.snapshot(name)
        taken[name] = state(memory)
    elif verb == "undo" and len(memory.journal.done) >= number:
        memory.undo(number)
    elif verb == "redo" and len(memory.journal.undone) >= number:
        memory.redo(number)
    elif len(ids) and verb not in ("undo", "redo"):
        some = [int(ids[number % len(ids)])]
        if verb == "delete":
            memory.delete(some)
        elif verb == "update":
            memory.update(some, {"value": np.full((1, 3), number, np.float32)})
        else:
            memory.change(
                some, Change(label=f"n{number}") if verb == "label" else Change(pinned=number % 2 == 0)
            )


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_it_is_what_the_two_states_say(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("d")
    make_memory(folder / "memory")
    with Memory(folder) as memory:
        taken: dict[str, dict[int, SlotRecord]] = {}
        start = state(memory)
        for verb, number in steps:
            act(memory, verb, number, taken)
        there = {name: taken[name] for name in memory.journal.snapshots}
        states: list[tuple[str | None, dict[int, SlotRecord]]] = [(None, start), *there.items()]
        ends: list[tuple[str | None, dict[int, SlotRecord]]] = [(None, state(memory)), *there.items()]
        for before, then in states:
            for after, now in ends:
                found = memory.diff(before, after)
                assert {one.id for one in found.put_in} == now.keys() - then.keys()
                assert {one.id for one in found.taken_out} == then.keys() - now.keys()
                assert {one.after.id: (one.before, one.after) for one in found.changed} == {
                    slot: (then[slot], now[slot])
                    for slot in then.keys() & now.keys()
                    if then[slot] != now[slot]
                }
        for name, then in there.items():
            memory.restore(name)
            assert state(memory) == then


def test_it_names_what_changed(tmp_path: Any) -> None:
    make_memory(tmp_path / "memory")
    with Memory(tmp_path) as memory:
        memory.change([2], Change(label="x", weight=0.0))
        memory.update([3], {"value": np.zeros((1, 3), np.float32)})
        assert [one.what for one in memory.diff().changed] == [("label", "weight"), ("vectors",)]
