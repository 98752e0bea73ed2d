"""Plain data is the same after the wire."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindset.errors import FormatError, UsageError
from mindset.journal.journal import Entry
from mindset.store.edit import NewShard
from mindset.store.memory_dir import Damage
from mindset.store.scan import ShardCount, Where
from mindset.store.shard_info import ShardInfo
from mindset.store.slots import Change, Citation, NewSlot, SlotRecord

pytest.importorskip("grpc", reason="the extra `serve` (grpcio) is missing")
from mindset.store.daemon import memory_pb2 as pb
from mindset.store.daemon import messages

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBER = st.integers(0, 2**62)
TAGS = st.lists(st.sampled_from(["a", "ß", "x-y"]), max_size=3).map(tuple)
PLACE = st.none() | st.tuples(NUMBER) | st.tuples(NUMBER, st.just(0), NUMBER)
WEIGHT = st.floats(allow_nan=False, allow_infinity=False)
SHARD = ShardInfo(
    3, 1, "base", "featural", 2, "relu", True, {"key": {"dtype": "float32", "d": 4}}, 5, 9, True
)


def sent(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


# Ours are built in the tests: their checks draw at random, which a strategy may not.
def cites(place: tuple[int, ...] | None) -> Citation | None:
    return None if place is None else Citation(*place)


@settings(max_examples=30)
@given(st.tuples(NUMBER, NUMBER, TEXT, NUMBER, NUMBER, TEXT), PLACE, TEXT, TAGS, st.booleans(), WEIGHT)
def test_records(head: Any, place: Any, label: str, tags: Any, pinned: bool, weight: float) -> None:
    record = SlotRecord(*head, cites(place), label, tags, pinned, weight)
    assert messages.read_record(sent(messages.record_message(record))) == record


@settings(max_examples=30)
@given(st.integers(0, 1), PLACE, TEXT, TAGS, st.booleans(), WEIGHT, st.none() | st.just("2026-01-01"))
def test_new_slots(
    head: int, place: Any, label: str, tags: Any, pinned: bool, weight: float, made: Any
) -> None:
    new = NewSlot(head, cites(place), label, tags, pinned, weight, made)
    assert messages.read_new_slot(sent(messages.new_slot_message(new)), SHARD) == new


@settings(max_examples=30)
@given(st.none() | TEXT, st.none() | TAGS, st.none() | st.booleans(), st.none() | WEIGHT, PLACE)
def test_changes(label: Any, tags: Any, pinned: Any, weight: Any, place: Any) -> None:
    change = Change(label, tags, pinned, weight, cites(place))
    if change.given():
        assert messages.read_change(sent(messages.change_message(change))) == change


@pytest.mark.parametrize(
    "where", [Where(), Where(0, "", 0, "", False, "", False), Where(3, "base", text="x", suppressed=True)]
)
def test_filters_tell_nothing_from_none(where: Where) -> None:
    assert messages.read_where(sent(messages.where_message(where))) == where


def test_shards() -> None:
    assert messages.read_shard(sent(messages.shard_message(SHARD))) == SHARD
    count = ShardCount(SHARD, 7, 2)
    assert messages.read_count(sent(messages.count_message(count))) == count
    new = NewShard(
        0, "facts", "mirror", 1, "radius", False, {"key": {"dtype": "float16", "d": 4}}, mounted=False
    )
    assert messages.read_new_shard(sent(messages.new_shard_message(new))) == new


@pytest.mark.parametrize("rows", [None, range(5)])
def test_damage(rows: range | None) -> None:
    damage = Damage("x.slab", rows, "torn")
    assert messages.read_damage(sent(messages.damage_message(damage))) == damage


def test_history() -> None:
    entry = Entry("ab", "memory", "one out", "2026", "me", {"edit": 3, "more": [1, None]}, "undone")
    assert messages.read_entry(sent(messages.entry_message(entry))) == entry
    with pytest.raises(FormatError, match="state 'odd'"):
        messages.read_entry(pb.Entry(state="odd", payload="{}"))


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda: messages.read_new_slot(pb.Slot(head=2), SHARD), "head 2"),
        (lambda: messages.read_new_slot(pb.Slot(head=-1), SHARD), "head -1"),
        (lambda: messages.read_new_slot(pb.Slot(weight=float("nan")), SHARD), "finite"),
        (lambda: messages.read_new_slot(pb.Slot(tags=["a b"]), SHARD), "without spaces"),
        (lambda: messages.read_new_slot(pb.Slot(cites=pb.Citation(source=1, start=3)), SHARD), "neither"),
        (lambda: messages.read_change(pb.ChangeRequest(ids=[1])), "nothing to change"),
        (lambda: messages.read_change(pb.ChangeRequest(weight=float("inf"))), "finite"),
        (lambda: messages.read_new_shard(pb.Shard(name="../x", heads=1)), "shard name"),
        (lambda: messages.read_new_shard(pb.Shard(name="x", heads=0)), "heads from 1"),
        (lambda: messages.read_new_shard(pb.Shard(name="x", heads=1, sealed=4)), "sealed"),
        (
            lambda: messages.read_new_shard(
                pb.Shard(name="x", heads=1, fields={"key": pb.Field(dtype="object", d=1)})
            ),
            "'object'",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(read: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read()
