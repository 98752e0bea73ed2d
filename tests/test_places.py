from pathlib import Path

import platformdirs
import pytest

from mindset import places


def test_home_is_the_platforms_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINDSET_HOME", raising=False)
    assert places.home() == Path(platformdirs.user_data_path("mindset", appauthor=False))


def test_home_is_overridden_and_not_created(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MINDSET_HOME", str(tmp_path / "elsewhere"))
    assert places.models_dir() == tmp_path / "elsewhere" / "models"
    assert not places.home().exists()


def test_an_empty_override_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINDSET_HOME", "")
    assert places.home() == Path(platformdirs.user_data_path("mindset", appauthor=False))


def test_a_relative_override_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINDSET_HOME", "here")
    assert places.home() == tmp_path / "here"
