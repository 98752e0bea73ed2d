from __future__ import annotations

import pytest

from mindset.llm.engine import pace as module
from mindset.llm.engine.pace import Pace


def test_who_is_refused_waits_as_long_as_others_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    pace = Pace()
    unknown = pace.wait(8)
    assert unknown > 0
    for _ in range(10):
        pace.ended()
        now[0] += 2.0
    assert pace.wait(8) == pytest.approx(4.0)
    assert pace.wait(4) < pace.wait(80) <= 60.0
    now[0] += 10_000
    assert pace.wait(8) == 60.0
