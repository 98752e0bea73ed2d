from __future__ import annotations

from mindset.calls.call import Usage
from mindset.cli.spending import Spent, by_model, money, seconds, told, total


def test_one_answer_in_a_line() -> None:
    spent = Spent("m", 1, Usage(100, 41, cached_tokens=80), 3.0, 1.0, 0.0123)
    assert (
        told(spent)
        == "41 tokens in 3.0 s (20.0/s) · first after 1.0 s · 100 read, 80 of them cached · $0.0123"
    )
    assert (
        told(Spent("m", 1, Usage(3, 1), 0.51, 0.5, 0.0)) == "1 token in 0.51 s · first after 0.50 s · 3 read"
    )
    assert told(Spent("m", 1, Usage(), 120.0)) == "2.0 min"


def test_sums() -> None:
    spent = [
        Spent("a", 1, Usage(1, 2), 1.0, 0.5, 0.5),
        Spent("b", money=None),
        Spent("a", 1, Usage(3, 4), 2.0, 0.1, 1.0),
    ]
    first, second = by_model(spent)
    assert (first.model, first.calls, first.usage, first.seconds, first.money) == (
        "a",
        2,
        Usage(4, 6),
        3.0,
        1.5,
    )
    assert (second.model, second.money) == ("b", None)
    assert total(spent).money is None
    assert total(spent[:1]) == spent[0]


def test_amounts() -> None:
    assert [money(amount) for amount in (None, 0.0, 0.00012, 1.5)] == ["unknown", "-", "$0.0001", "$1.50"]
    assert [seconds(count) for count in (0.034, 1.25, 300)] == ["0.03 s", "1.2 s", "5.0 min"]
