from __future__ import annotations

import json
from pathlib import Path

import pytest
from graft.tiny import save_teacher, tiny_model

from mindset import places
from mindset.graft.convert import convert
from mindset.graft.plan import ConversionPlan
from mindset.llm import content_hash as module
from mindset.llm.content_hash import content_hash
from mindset.store.memory import Memory


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return save_teacher(tiny_model("llama"), tmp_path / "teacher")


def test_equal_models_have_equal_hashes_wherever_they_lie(teacher: Path, tmp_path: Path) -> None:
    other = save_teacher(tiny_model("llama"), tmp_path / "other")
    assert content_hash(teacher) == content_hash(other)
    assert content_hash(save_teacher(tiny_model("llama", seed=1), tmp_path / "third")) != content_hash(
        teacher
    )
    assert len(content_hash(teacher)) == 40


def test_a_file_is_read_once_as_long_as_it_is_the_same(
    teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = module._hash
    monkeypatch.setattr(module, "_hash", lambda file: read.append(file.name) or real(file))
    first = content_hash(teacher)
    assert "model.safetensors" in read
    read.clear()
    assert content_hash(teacher) == first
    assert read == []
    config = teacher / "config.json"
    config.write_text(config.read_text() + "\n")
    assert content_hash(teacher) != first
    assert read == ["config.json"]


def test_an_edit_of_the_memory_changes_it(teacher: Path, tmp_path: Path) -> None:
    folder = tmp_path / "student"
    convert(str(teacher), folder, ConversionPlan())
    before = content_hash(folder)
    with Memory(folder) as memory:
        memory.delete([3])
        first = content_hash(folder)
        memory.delete([4])
    assert len({before, first, content_hash(folder)}) == 3


def test_a_model_of_one_file(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"one")
    first = content_hash(file)
    file.write_bytes(b"other")
    assert content_hash(file) != first


def test_what_is_remembered_may_be_damaged_or_gone(teacher: Path) -> None:
    first = content_hash(teacher)
    known = places.home() / "hashes.json"
    for damaged in (b"{", b"[]", json.dumps({"x": 3}).encode()):
        known.write_bytes(damaged)
        assert content_hash(teacher) == first
    assert isinstance(json.loads(known.read_text()), dict)


def test_a_home_that_cannot_be_written_to(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("MINDSET_HOME", str(file / "home"))
    assert content_hash(teacher) == content_hash(teacher)
