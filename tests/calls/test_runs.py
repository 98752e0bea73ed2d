"""Runs: which calls belong together."""

from __future__ import annotations

from mindset import calls
from mindset.calls.runs import current


def test_a_run_is_begun_from_the_package() -> None:
    with calls.run("tuesday") as begun:
        assert begun.name == "tuesday"
        assert current() is begun
        with calls.run("inside") as inner:
            assert current() is inner
        assert current() is begun
    assert current() is not begun
