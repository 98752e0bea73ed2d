from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mindset.cli.app import app

D_MLP = 24


def convert(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def test_json_tells_what_was_done(teacher: Path, tmp_path: Path) -> None:
    result = convert(teacher, "--out", tmp_path / "student", "--json", "--threads", "1")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["layers"] == [0, 1]
    assert report["k"] is None
    assert report["lossless_difference"] <= 1e-4
    assert (tmp_path / "student" / "config.json").is_file()


def test_a_person_is_told_what_to_type_next(teacher: Path, tmp_path: Path) -> None:
    result = convert(teacher, "--out", tmp_path / "student", "--k", 8, "--layers", "1")
    assert result.exit_code == 0, result.stderr
    assert f"mindset eval {tmp_path / 'student'}" in result.stdout


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--k", D_MLP + 1], 1, f"k = {D_MLP + 1}"),
        (["--layers", "0-7"], 2, "layers 0 to 1"),
    ],
)
def test_what_does_not_fit_the_model_is_one_sentence(
    options: list[object], code: int, sentence: str, teacher: Path, tmp_path: Path
) -> None:
    result = convert(teacher, "--out", tmp_path / "student", *options)
    assert result.exit_code == code
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_model_exits_1(tmp_path: Path) -> None:
    result = convert(tmp_path, "--out", tmp_path / "student")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
