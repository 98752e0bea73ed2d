from __future__ import annotations

import pytest

from mindset.cli import progress


def test_a_log_gets_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    lines = progress._Lines()
    for step in range(101):
        lines("local", step, 100, loss=1 / (step + 1))
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 11
    assert told[0] == "local 0/100 loss 1"
    assert told[-1] == "local 100/100 loss 0.009901"


def test_an_unknown_total_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = progress._Lines()
    lines("reading", 1, 0)
    lines("reading", 2, 0)
    assert capsys.readouterr().err == "reading 1\n"


def test_bars_take_stages_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    with progress._Bars() as bars:
        bars("local", 1, 2, loss=0.5)
        bars("end to end", 0, 0)
        bars("local", 2, 2)
    assert bars.bars.tasks[0].completed == 2
    assert bars.bars.tasks[1].total is None
    assert capsys.readouterr().out == ""


def test_silence_and_fractions(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress(silent=True) as report:
        progress.fractions(report)("fetching", 0.5)
    assert capsys.readouterr() == ("", "")
    with progress.progress() as report:
        progress.fractions(report)("fetching", 0.5)
    assert capsys.readouterr() == ("", "fetching 50/100\n")
