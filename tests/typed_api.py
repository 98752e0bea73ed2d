"""What a user writes, checked by mypy only: the public face keeps its types through the lazy lookup."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import mindset


def convert_and_read(folder: Path) -> mindset.ConversionReport:
    plan = mindset.ConversionPlan(bank="mirror", k=32, propose="score", candidates=96)
    assert_type(plan.k, int | None)
    report = mindset.convert("smollm2", folder, plan)
    assert_type(report, mindset.ConversionReport)
    assert_type(report.memory_parameters, int)
    return report


def wrong_names_are_found() -> None:
    mindset.ConversionPlan(bank="cloud")  # type: ignore[arg-type]
    mindset.convert("smollm2")  # type: ignore[call-arg]


def catch_all(folder: Path) -> str:
    try:
        mindset.load(folder)
    except mindset.MindsetError as error:
        return str(error)
    return ""
