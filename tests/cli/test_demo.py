from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import mindset.distill.run
from mindset.cli import demo as demo_module
from mindset.cli.app import app
from mindset.distill import gap_curve, report
from mindset.graft.runtime import Runtime


@pytest.fixture(autouse=True)
def on_a_tiny_model(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_module, "SOURCE", str(teacher))
    monkeypatch.setattr(demo_module, "K", 6)
    monkeypatch.setattr(demo_module, "PROMPT", "Once")
    monkeypatch.setattr(gap_curve, "LOOK_WORK", 1.0)
    monkeypatch.setattr(report, "SCORED_WORK", 1.0)
    monkeypatch.setattr(report, "SPEED_PAIRS", 1)
    settings = demo_module._settings

    def smaller(minutes: float, runtime: Runtime) -> Any:
        return replace(settings(minutes, runtime), data=("self",), seq_len=32)

    monkeypatch.setattr(demo_module, "_settings", smaller)


@pytest.mark.parametrize(("there", "precision"), [(True, "bf16-mixed"), (False, "32")])
def test_it_trains_in_bfloat16_where_the_processor_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, there: bool, precision: str
) -> None:
    monkeypatch.setattr(demo_module, "multiplies_bfloat16", lambda device: there)
    assert demo_module._settings(1.0, Runtime()).precision == precision


def demo(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["demo", "--minutes", "0.01", *map(str, arguments)])


def test_it_tells_the_whole_story_and_the_second_time_the_report_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo"
    result = demo("--out", out)
    assert result.exit_code == 0, result.stderr
    for number in range(1, 6):
        assert f"\n{number}  " in f"\n{result.stdout}"
    assert "largest difference of a logit is 0.0e+00" in result.stdout
    assert "k = all 24" in result.stdout
    assert f"mindset why {shlex.quote(str(out))}" in result.stdout
    assert (out / "report.md").is_file()
    assert (out / "config.json").is_file()

    monkeypatch.setattr(mindset.distill.run, "distill", None)
    again = demo("--out", out, "--json")
    assert again.exit_code == 0, again.stderr
    told = json.loads(again.stdout)
    assert told["first_look"] is None
    assert told["report"]["settings"]["minutes"] == 0.01
    assert "has run already" in demo("--out", out).stdout

    other = demo("--out", out, "--seed", 1)
    assert other.exit_code == 1
    assert "holds a run with other settings" in other.stderr


def test_a_stopped_demo_says_how_to_go_on_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mindset.distill.run, "distill", stop)
        stopped = demo("--out", tmp_path)
    assert stopped.exit_code == 1
    assert "the same command goes on" in stopped.stderr
    assert (tmp_path / "run" / "untrained.json").is_file()

    told = json.loads(demo("--out", tmp_path, "--json").stdout)
    assert told["first_look"]["lossless_difference"] == 0
    assert told["first_look"]["untrained"]["gaps"].keys() == {"24", "12", "6", "3"}
    assert told["first_look"]["why"]["slots"]
    assert told["report"]["evaluation"]["k"] == [6, 6]


def test_it_trains_in_float32_only(tmp_path: Path) -> None:
    result = demo("--out", tmp_path, "--dtype", "bfloat16")
    assert result.exit_code == 2
    assert "float32" in result.stderr
