from __future__ import annotations

from mindset.calls.tree import Node
from mindset.cli.chat.drawing import draw, one_line
from mindset.llm.exchanges import exchanges, grow
from mindset.llm.messages import assistant, to_nodes, user


def line(*said: str) -> list[Node]:
    """A path whose hashes spell what was said up to there."""
    path: list[Node] = []
    messages = [message for text in said for message in (user(text), assistant(text.upper()))]
    for node in to_nodes(messages):
        above = path[-1].hash if path else ""
        path.append(
            Node(above + node.content["parts"][0]["text"], node.kind, dict(node.content), above or None, "")
        )
    return path


def test_branches_share_their_beginning() -> None:
    forks = grow(
        (name, exchanges(path)) for name, path in [("main", line("a", "b", "c")), ("2", line("a", "x"))]
    )
    rows = draw(forks, "aAxX", 60)
    assert [row.text for row in rows] == ["a", "├─ b", "│  c", "└─ x"]
    assert [row.answer for row in rows] == ["A", "B", "C", "X"]
    assert [row.names for row in rows] == ["", "", "main", "2"]
    assert [row.here for row in rows] == [False, False, False, True]


def test_a_branch_that_ends_within_another_is_named_there() -> None:
    rows = draw(grow([("main", exchanges(line("a", "b"))), ("early", exchanges(line("a")))]), None)
    assert [(row.text, row.names) for row in rows] == [("a", "early"), ("b", "main")]


def test_long_and_wide_questions_are_cut() -> None:
    assert one_line("a\nb\x1b[31m  c", 20) == "a b\N{REPLACEMENT CHARACTER}[31m c"
    assert one_line("中" * 20, 11) == "中" * 5 + "…"


def test_nothing_draws_nothing() -> None:
    assert draw([], None) == []
