"""Slots given out and taken in: the same to the bit, all or nothing, and damage is noticed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store.test_slab_store import arrays, make_memory

from mindset.errors import FormatError, MindsetError, MissingError, UsageError
from mindset.store import BankRecord, MemoryDir, Rows, ShardRecord
from mindset.store.memory import Memory
from mindset.store.portable import export_slots
from mindset.store.scan import Where, count
from mindset.store.slots import Change, Citation, NewSlot


def make_folder(folder: Path, slots: int = 6) -> Path:
    folder.mkdir(parents=True)
    make_memory(folder / "memory", slots)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A memory with slots of every kind."""
    folder = make_folder(tmp_path / "source")
    with Memory(folder) as memory:
        with memory.store.ledger.editing("source") as edit:
            number = edit.add_source("a book", "Ahab \u2028 was\nhere.")
        new = [
            NewSlot(
                label='whale \u2028 "x"', tags=("sea", "white"), pinned=True, cites=Citation(number, 0, 4)
            ),
            NewSlot(weight=0.0, cites=Citation(number)),
        ]
        memory.insert(0, "base", new, arrays(2, seed=1))
        memory.change([3], Change(label="third", weight=0.5))
    return folder


def exported(folder: Path, out: Path, where: Where | None = None) -> Path:
    with Memory(folder, read_only=True) as memory:
        export_slots(memory.store, where or Where(), out)
    return out


def test_what_went_out_comes_in_and_goes_out_the_same(source: Path, tmp_path: Path) -> None:
    before = contents(exported(source, tmp_path / "out"))
    target = make_folder(tmp_path / "target")
    with Memory(target) as memory:
        memory.delete(np.concatenate([memory.store.live(layer, "base").ids for layer in (0, 1)]))
        ids = memory.take_in(tmp_path / "out")
        assert len(ids) == len(set(ids.tolist())) == 6 + 10 + 2
        assert memory.store.verify() == []
    assert contents(exported(target, tmp_path / "again")) == before


def test_slots_that_a_filter_names_and_no_others(source: Path, tmp_path: Path) -> None:
    wanted = {
        "sea": Where(tag="sea"),
        "layer 0": Where(layer=0),
        "layer 1, head 1": Where(layer=1, head=1),
        "book": Where(text="ahab"),
        "nothing": Where(tag="land"),
        "other shard": Where(shard="new"),
    }
    found = {}
    with Memory(source, read_only=True) as memory:
        for name, where in wanted.items():
            found[name] = export_slots(memory.store, where, tmp_path / name)
            assert found[name] == count(memory.store.ledger, where)
    assert found == {"sea": 1, "layer 0": 8, "layer 1, head 1": 5, "book": 2, "nothing": 0, "other shard": 0}
    with Memory(make_folder(tmp_path / "target")) as memory:
        assert len(memory.take_in(tmp_path / "nothing")) == 0


def test_one_undo_takes_an_import_back_and_redo_makes_it(source: Path, tmp_path: Path) -> None:
    exported(source, tmp_path / "out", Where(tag="sea"))
    with Memory(make_folder(tmp_path / "target")) as memory:
        before = memory.store.ledger.count()
        ids = memory.take_in(tmp_path / "out")
        record = memory.store.records(ids)[0]
        assert record.pinned
        assert record.tags == ("sea", "white")
        assert record.cites is not None
        assert memory.store.ledger.source(record.cites.source).text == "Ahab \u2028 was\nhere."
        assert [entry.title for entry in memory.undo()] == ["1 slot in, from out"]
        assert memory.store.ledger.count() == before
        memory.redo()
        assert memory.store.records(ids) == [record]


def test_a_source_is_stored_once_however_often_it_comes(source: Path, tmp_path: Path) -> None:
    exported(source, tmp_path / "out", Where(text="ahab"))
    with Memory(source) as memory:
        first, second = (memory.store.records(memory.take_in(tmp_path / "out")) for _ in range(2))
        assert len({record.cites.source for record in [*first, *second] if record.cites}) == 1


def test_bfloat16_is_kept_to_the_bit(tmp_path: Path) -> None:
    bits = np.arange(24, dtype=np.uint16).reshape(6, 4) * 2731
    fields = {"key": Rows(bits, "bfloat16"), "value": Rows(bits[::-1].copy(), "bfloat16")}
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
        bank = BankRecord(2, "mirror", 1, (ShardRecord("base", "gelu", False, 6, fields),))
        MemoryDir.write(tmp_path / name / "memory", [bank])
    exported(tmp_path / "source", tmp_path / "out")
    with Memory(tmp_path / "target") as memory:
        ids = memory.take_in(tmp_path / "out")
        assert np.array_equal(memory.store.fetch(ids, ["key"])["key"], bits)


def test_a_folder_that_is_there_is_not_written_to(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        exported(source, tmp_path / "out")
    assert [*(tmp_path / "out").iterdir()] == []


def test_a_damaged_slot_is_not_given_out(source: Path, tmp_path: Path) -> None:
    with Memory(source) as memory, memory.store.ledger.engine.begin() as connection:
        connection.exec_driver_sql("update slots set crc = crc + 1 where slot = 2")
    with pytest.raises(FormatError, match=r"slot 2 .* is damaged; nothing was written"):
        exported(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rule": "relu"}, "rule 'relu', the memory 'silu'"),
        ({"heads": 4}, "heads 4, the memory 1"),
        ({"fields": {}}, "fields {}"),
    ],
)
def test_slots_of_another_shape_are_refused_by_what_differs(
    source: Path, tmp_path: Path, change: dict[str, object], told: str
) -> None:
    path = exported(source, tmp_path / "out", Where(layer=0)) / "slots.json"
    head = json.loads(path.read_text())
    head["shards"][0] |= change
    path.write_text(json.dumps(head))
    with Memory(source) as memory:
        with pytest.raises(UsageError, match=told):
            memory.take_in(tmp_path / "out")
        assert len(memory.journal.done) == 2


def test_a_shard_that_the_memory_lacks_is_named(source: Path, tmp_path: Path) -> None:
    path = exported(source, tmp_path / "out") / "slots.json"
    path.write_text(path.read_text().replace('"layer": 1', '"layer": 7'))
    with Memory(source) as memory, pytest.raises(MissingError, match="layer 7 has no shard 'base'"):
        memory.take_in(tmp_path / "out")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _line(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "slots.jsonl"
        first, *rest = path.read_text(encoding="utf-8").split("\n")
        line = json.loads(first)
        change(line)
        path.write_text("\n".join([json.dumps(line), *rest]), encoding="utf-8")

    return damage


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no head": lambda folder: (folder / "slots.json").unlink(),
    "cut head": lambda folder: _cut(folder / "slots.json"),
    "another version": lambda folder: (folder / "slots.json").write_text(
        (folder / "slots.json").read_text().replace('"version": 1', '"version": 9')
    ),
    "a list": lambda folder: (folder / "slots.json").write_text("[]"),
    "cut lines": lambda folder: _cut(folder / "slots.jsonl"),
    "a line less": lambda folder: (folder / "slots.jsonl").write_text(
        (folder / "slots.jsonl").read_text(encoding="utf-8").split("\n", 1)[1], encoding="utf-8"
    ),
    "no sources": lambda folder: (folder / "sources.jsonl").unlink(),
    "fewer sources": lambda folder: (folder / "sources.jsonl").write_text(""),
    "cut vectors": lambda folder: _cut(folder / "vectors-000.safetensors"),
    "no vectors": lambda folder: (folder / "vectors-001.safetensors").unlink(),
    "swapped vectors": lambda folder: shutil.copy(
        folder / "vectors-001.safetensors", folder / "vectors-000.safetensors"
    ),
    "unknown shard": _line(lambda line: line.update(shard=9)),
    "unknown head": _line(lambda line: line.update(head=1)),
    "odd tag": _line(lambda line: line.update(tags=["two words"])),
    "odd weight": _line(lambda line: line.update(weight=None)),
    "no label": _line(lambda line: line.pop("label")),
    "odd checksum": _line(lambda line: line.update(crc="x")),
    "other checksum": _line(lambda line: line.update(crc=1)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_gives_one_error_and_changes_nothing(
    source: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    damage(exported(source, tmp_path / "out"))
    with Memory(source) as memory:
        before = memory.store.ledger.count(), len(memory.journal.done)
        with pytest.raises(MindsetError):
            memory.take_in(tmp_path / "out")
        assert (memory.store.ledger.count(), len(memory.journal.done)) == before
        assert memory.store.verify() == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(
    labels=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=4
    ),
    tags=st.lists(st.from_regex(r"[^\s,\x00]{1,9}", fullmatch=True), max_size=3),
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    weight=st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_record_comes_through(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str], tags: list[str], text: str, weight: float
) -> None:
    folder = tmp_path_factory.mktemp("any")
    with Memory(make_folder(folder / "m", slots=1)) as memory:
        with memory.store.ledger.editing("source") as edit:
            number = edit.add_source("s", text)
        new = [
            NewSlot(label=label, tags=tuple(tags), weight=weight, cites=Citation(number, 0, len(text)))
            for label in labels
        ]
        before = memory.store.records(memory.insert(0, "base", new, arrays(len(new), seed=2)))
        export_slots(memory.store, Where(layer=0), folder / "out")
        after = memory.store.records(memory.take_in(folder / "out"))[-len(new) :]
    told = [
        [(r.label, r.tags, r.weight, r.cites, r.created, r.pinned) for r in some] for some in (before, after)
    ]
    assert told[0] == told[1]
