"""Undo and redo against a list of states, with the process killed at any moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindset.errors import FormatError, MissingError, UsageError
from mindset.journal import journal as journal_module
from mindset.journal import lines
from mindset.journal.journal import Journal


class Killed(BaseException):
    """The process is gone."""


class Fuse:
    """Burns down by one at every call; then the process is killed there, and every time after."""

    def __init__(self, left: int | None = None) -> None:
        self.left = left

    def burn(self) -> None:
        if self.left is not None:
            if self.left <= 0:
                raise Killed
            self.left -= 1


class Values:
    """A kind of edit: one value in a file of values, replaced at once."""

    def __init__(self, folder: Path, fuse: Fuse) -> None:
        self.path, self.fuse = folder / "values.json", fuse
        self.forgotten: set[str] = set()

    def read(self) -> dict[str, int]:
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def put(self, payload: dict[str, Any], which: str) -> None:
        self.fuse.burn()
        self.path.write_text(json.dumps(self.read() | {payload["key"]: payload[which]}))
        self.fuse.burn()

    def undo(self, payload: dict[str, Any]) -> None:
        self.put(payload, "old")

    def redo(self, payload: dict[str, Any]) -> None:
        self.put(payload, "new")

    def happened(self, payload: dict[str, Any]) -> bool:
        return self.read().get(payload["key"], 0) == payload["new"]

    def forget(self, payload: dict[str, Any]) -> None:
        self.fuse.burn()
        self.forgotten.add(payload["new"])


class Folder:
    """A folder with values and a journal."""

    def __init__(self, path: Path, fuse: Fuse | None = None) -> None:
        self.fuse = fuse or Fuse()
        self.values = Values(path, self.fuse)
        self.journal = Journal(path / "journal", {"value": self.values})

    def set(self, key: str, value: int) -> None:
        payload = {"key": key, "old": self.values.read().get(key, 0), "new": value}
        with self.journal.recording("value", f"{key} = {value}", payload):
            self.values.redo(payload)

    def replayed(self) -> dict[str, int]:
        state: dict[str, int] = {}
        for entry in self.journal.done:
            state[entry.payload["key"]] = entry.payload["new"]
        return state

    def now(self) -> dict[str, int]:
        return {key: value for key, value in self.values.read().items() if value}


def test_undo_and_redo_go_back_and_forth(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for i, key in enumerate("aba", start=1):
        folder.set(key, i)
    assert [entry.title for entry in folder.journal.done] == ["a = 1", "b = 2", "a = 3"]
    assert [entry.title for entry in folder.journal.undo(2)] == ["a = 3", "b = 2"]
    assert folder.now() == {"a": 1}
    assert [entry.title for entry in Folder(tmp_path).journal.undone] == ["b = 2", "a = 3"]
    assert [entry.title for entry in folder.journal.redo(2)] == ["b = 2", "a = 3"]
    assert folder.now() == {"a": 3, "b": 2}


def test_a_new_edit_drops_what_was_undone_and_lets_its_kind_forget_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for value in (1, 2, 3):
        folder.set("a", value)
    folder.journal.undo(2)
    folder.set("a", 9)
    assert folder.values.forgotten == {2, 3}
    with pytest.raises(MissingError, match="nothing to redo"):
        folder.journal.redo()
    assert [entry.payload["new"] for entry in folder.journal.entries] == [1, 9]


def test_an_edit_that_fails_is_no_history_and_what_was_undone_stays(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.set("a", 1)
    folder.journal.undo()
    with (
        pytest.raises(RuntimeError),
        folder.journal.recording("value", "x", {"key": "b", "old": 0, "new": 5}),
    ):
        raise RuntimeError
    assert folder.journal.done == []
    folder.journal.redo()
    assert folder.now() == {"a": 1}


def test_forgetting_keeps_the_last(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for value in range(1, 6):
        folder.set("a", value)
    size = (tmp_path / "journal").stat().st_size
    assert folder.journal.forget(2) == 3
    assert (tmp_path / "journal").stat().st_size < size
    again = Folder(tmp_path)
    assert [entry.payload["new"] for entry in again.journal.done] == [4, 5]
    again.journal.undo(2)
    assert again.now() == {"a": 3}
    with pytest.raises(MissingError, match="nothing to undo"):
        again.journal.undo()


def act(folder: Folder, verb: str, value: Any, count: int, then: dict[str, dict[str, int]]) -> None:
    """One step; `then` remembers what each snapshot was of."""
    journal = folder.journal
    if verb == "set":
        folder.set(value, count)
    elif verb == "snapshot" and value not in journal.snapshots:
        then[value] = folder.now()
        journal.snapshot(value)
    elif verb == "restore" and value in journal.snapshots:
        journal.restore(value)
        assert folder.now() == then[value]
    elif verb in ("undo", "redo") and value <= len(journal.done if verb == "undo" else journal.undone):
        getattr(journal, verb)(value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("set"), st.sampled_from("ab")),
            st.tuples(st.sampled_from(["undo", "redo"]), st.integers(1, 2)),
            st.tuples(st.sampled_from(["snapshot", "restore"]), st.sampled_from("xyz")),
        ),
        max_size=12,
    ),
    fuses=st.lists(st.integers(0, 30), max_size=4),
)
def test_whenever_it_is_killed_the_history_is_what_the_folder_holds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]], fuses: list[int]
) -> None:
    path, waiting, count = tmp_path_factory.mktemp("killed"), list(fuses), 0
    then: dict[str, dict[str, int]] = {}
    real = lines.append

    current = Fuse()

    def append(file: Path, data: dict[str, Any]) -> None:
        current.burn()
        real(file, data)
        current.burn()

    def opened() -> Folder:
        nonlocal current
        while True:
            current = Fuse(waiting.pop() if waiting else None)
            try:
                return Folder(path, current)
            except Killed:  # while it was settling
                continue

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module.lines, "append", append)
        folder = opened()
        for verb, value in steps:
            count += 1
            try:
                act(folder, verb, value, count, then)
            except Killed:
                folder = opened()
            assert folder.replayed() == folder.now()
    whole = Folder(path)
    assert whole.replayed() == whole.now()
    if whole.journal.done:
        whole.journal.undo(len(whole.journal.done))
    assert whole.now() == {}


def test_a_snapshot_is_a_place_to_come_back_to_from_both_sides(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.journal.snapshot("empty")
    folder.set("a", 1)
    folder.set("b", 2)
    folder.journal.snapshot("two")
    folder.set("a", 3)
    assert [entry.title for entry in folder.journal.restore("empty")] == ["a = 3", "b = 2", "a = 1"]
    assert folder.now() == {}
    again = Folder(tmp_path)
    assert [entry.title for entry in again.journal.until("two")] == ["a = 1", "b = 2"]
    assert [entry.title for entry in again.journal.restore("two")] == ["a = 1", "b = 2"]
    assert again.now() == {"a": 1, "b": 2}
    assert again.journal.restore("two") == []
    again.journal.unsnapshot("two")
    assert [*Folder(tmp_path).journal.snapshots] == ["empty"]


def test_a_snapshot_goes_with_the_line_of_history_that_it_was_in(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for value in (1, 2):
        folder.set("a", value)
        folder.journal.snapshot(f"at-{value}")
    folder.journal.restore("at-1")
    folder.set("a", 9)
    assert [*Folder(tmp_path).journal.snapshots] == ["at-1"]


def test_a_snapshot_before_what_was_forgotten_is_gone(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.journal.snapshot("at-0")
    for value in (1, 2, 3):
        folder.set("a", value)
        folder.journal.snapshot(f"at-{value}")
    folder.journal.forget(1)
    for journal in (folder.journal, Folder(tmp_path).journal):
        assert [*journal.snapshots] == ["at-2", "at-3"]
        assert [entry.payload["new"] for entry in journal.until("at-2")] == []
        assert [entry.payload["new"] for entry in journal.until("at-3")] == [3]
    Folder(tmp_path).journal.restore("at-2")
    assert folder.now() == {"a": 2}


def test_snapshots_that_cannot_be(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.set("a", 1)
    folder.journal.snapshot("x")
    with pytest.raises(UsageError, match="a snapshot 'x' already"):
        folder.journal.snapshot("x")
    with pytest.raises(UsageError, match="lower-case letters"):
        folder.journal.snapshot("two words")
    for ask in (folder.journal.restore, folder.journal.until, folder.journal.unsnapshot):
        with pytest.raises(MissingError, match=r"no snapshot 'y' .*; there are: x"):
            ask("y")


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with pytest.raises(MissingError, match="nothing to undo"):
        folder.journal.undo()
    folder.set("a", 1)
    with pytest.raises(MissingError, match="only 1 to undo"):
        folder.journal.undo(2)
    with pytest.raises(UsageError, match="at least 1"):
        folder.journal.undo(0)
    stranger = Journal(tmp_path / "other", {})
    with pytest.raises(MissingError, match="'surgery'"), stranger.recording("surgery", "", {}):
        pass
    assert not (tmp_path / "other").exists()


def test_an_unknown_kind_can_be_listed_not_undone(tmp_path: Path) -> None:
    Folder(tmp_path).set("a", 1)
    stranger = Journal(tmp_path / "journal", {})
    assert [entry.title for entry in stranger.done] == ["a = 1"]
    with pytest.raises(MissingError, match="kind 'value'"):
        stranger.undo()
    assert [entry.state for entry in stranger.entries] == ["done"]


def test_reading_writes_nothing(tmp_path: Path) -> None:
    Folder(tmp_path).set("a", 1)
    before = (tmp_path / "journal").read_bytes()
    reader = Journal(tmp_path / "journal", {"value": Values(tmp_path, Fuse())}, read_only=True)
    with pytest.raises(UsageError, match="opened for reading"):
        reader.undo()
    assert (tmp_path / "journal").read_bytes() == before
    assert Journal(tmp_path / "none" / "journal", {}, read_only=True).entries == []


def test_another_version_is_refused(tmp_path: Path) -> None:
    lines.append(tmp_path / "journal", {"op": "journal", "version": 2})
    with pytest.raises(FormatError, match="version 2"):
        Journal(tmp_path / "journal", {})
