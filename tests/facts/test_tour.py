"""The tour on a tiny model: every step is told, and nothing is left of what was learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from facts.conftest import QUICK

from mindset.cli.app import app
from mindset.facts import tour as tour_module
from mindset.facts.tour import FACTS, QUESTIONS, take_tour
from mindset.graft.folder import load
from mindset.graft.mounting import mounted
from mindset.store.memory import Memory


def test_the_tour(converted: Path, tmp_path: Path) -> None:
    said: list[str] = []
    seen = take_tour(str(converted.parent / "teacher"), tmp_path / "out", said.append, QUICK)
    assert (seen.same_files, seen.same_logits, seen.damaged) == (True, True, 0)
    assert [one.prompt for one in seen.questions] == [*QUESTIONS]
    assert all(one.before == one.after for one in seen.questions)
    told = "\n".join(said)
    assert all(f"{one['prompt']} {one['target']}" in told for one in FACTS)
    assert "to the bit, whole prompts and token by token: yes; 0 slots damaged" in told
    assert mounted(load(tmp_path / "out")) == []
    with Memory(tmp_path / "out", read_only=True) as memory:
        assert [(one.name, one.mounted) for one in memory.overlays()] == [("tour", False)]


def test_what_does_not_hold_is_said(converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter("abcdef")
    monkeypatch.setattr(tour_module, "_fingerprint", lambda _: next(numbers))
    said: list[str] = []
    seen = take_tour(str(converted.parent / "teacher"), tmp_path / "out", said.append, QUICK)
    assert not seen.same_files
    assert "have the bytes they had: NO" in "\n".join(said)


def test_a_folder_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    result = CliRunner().invoke(app, ["tour", "--out", str(tmp_path / "mine")])
    assert result.exit_code == 2
    assert "is there already" in result.stderr
    assert json.dumps(sorted(map(str, tmp_path.iterdir()))) == json.dumps([str(tmp_path / "mine")])
