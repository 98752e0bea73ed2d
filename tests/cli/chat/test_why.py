from __future__ import annotations

import math

import pytest

from mindset.cli.chat import why
from mindset.errors import MissingError
from mindset.llm.events import Alternative, Read, Token

TOKENS = (
    Token("The", math.log(0.9), 1),
    Token(
        " capital",
        math.log(0.2),
        2,
        (Alternative(" city", math.log(0.5), 7), Alternative(" capital", math.log(0.2), 2)),
    ),
    Token(" is", math.log(0.99), 3),
    Token(" Par", math.log(0.6), 4, reads=(Read(3, 17, 1.25), Read(4, 9, 0.5, "tour"))),
    Token("is\n", math.log(0.004), 5),
)


def test_a_word_names_the_tokens_that_spell_it() -> None:
    assert why.chosen(TOKENS, "Paris") == [3, 4]
    assert why.chosen(TOKENS, "paris") == [3, 4]
    assert why.chosen(TOKENS, "2") == [1]


@pytest.mark.parametrize("which", ["0", "6", "Rome"])
def test_what_is_not_there_is_refused(which: str) -> None:
    with pytest.raises(MissingError, match=which):
        why.chosen(TOKENS, which)


def test_the_least_sure_come_in_their_order() -> None:
    assert why.least_sure(TOKENS, 2) == [1, 4]


def test_a_token_is_told_with_what_could_have_come_instead() -> None:
    assert why.told(TOKENS, 1) == ("2", "' capital'", "20%", "' city' 50%")
    assert why.told(TOKENS, 4) == ("5", "'is\\n'", "0.4%", "")
    assert why.percent(None) == "-"


def test_slots_are_told_with_their_layer_and_overlay() -> None:
    assert why.slots(TOKENS[3]) == [
        "layer 3, slot 17 (the model's own), influence 1.25",
        "layer 4, slot 9 (overlay tour), influence 0.5",
    ]
