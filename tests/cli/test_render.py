from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from mindset.cli import render


def test_json_takes_paths_and_figures_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_json(
        {"path": Path("a"), "gap": math.nan, "fvu": (0.5, math.inf), "text": "é", "ok": True, 3: None}
    )
    assert json.loads(capsys.readouterr().out) == {
        "path": "a",
        "gap": None,
        "fvu": [0.5, None],
        "text": "é",
        "ok": True,
        "3": None,
    }


def test_brackets_of_a_model_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_table({"token": "left", "n": "right"}, [["[bold]x[/bold]", 1]])
    render.print_figures([("[red]", "[/]")])
    assert "[bold]x[/bold]" in (out := capsys.readouterr().out)
    assert "[red]" in out


def test_figures() -> None:
    assert render.bits(None) == render.bits(math.nan) == "-"
    assert render.bits(1.23456) == "1.235"
    assert render.size(98_362_432) == "98.4 MB"
