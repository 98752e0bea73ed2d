"""Lines that are there, torn or damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindset.errors import FormatError
from mindset.journal import lines

JSON = st.dictionaries(
    st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=9), st.none()), max_size=3
)


@given(every=st.lists(JSON, max_size=5), cut=st.integers(0, 400))
def test_a_kill_in_a_line_loses_that_line_alone(
    tmp_path_factory: pytest.TempPathFactory, every: list[dict[str, object]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "x"
    ends = [0]
    for data in every:
        lines.append(path, data)
        ends.append(path.stat().st_size)
    if not every:
        assert lines.read(path) == []
        return
    cut = min(cut, ends[-1])
    path.write_bytes(path.read_bytes()[:cut])
    whole = sum(end <= cut for end in ends[1:])
    assert lines.read(path) == every[:whole]
    lines.append(path, {"new": 1})
    assert lines.read(path) == [*every[:whole], {"new": 1}]


def test_damage_before_the_end_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for i in range(3):
        lines.append(path, {"i": i})
    content = bytearray(path.read_bytes())
    content[12] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match="damaged at byte 0"):
        lines.read(path)


def test_people_can_read_it(tmp_path: Path) -> None:
    lines.append(tmp_path / "x", {"title": "Zürich"})
    assert json.loads((tmp_path / "x").read_text(encoding="utf-8")[9:]) == {"title": "Zürich"}


def test_rewriting_puts_all_in_place_at_once(tmp_path: Path) -> None:
    lines.append(tmp_path / "x", {"i": 1})
    lines.rewrite(tmp_path / "x", [{"i": 2}, {"i": 3}])
    assert lines.read(tmp_path / "x") == [{"i": 2}, {"i": 3}]
