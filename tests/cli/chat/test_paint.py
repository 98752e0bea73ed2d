from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mindset.cli.chat.lines import harmless, uncoloured
from mindset.cli.chat.paint import BOLD, CODE, Paint

SLOWLY = settings(deadline=None, max_examples=50)
MARKED = st.lists(
    st.sampled_from(
        [
            "word",
            "longer-words",
            " ",
            "\n",
            "**",
            "*",
            "`",
            "```",
            "~~~",
            "#",
            "- ",
            "1. ",
            "中文",
            "\t",
            "é",
            "x" * 50,
        ]
    ),
    max_size=60,
).map("".join)


def painted(text: str, width: int = 40, *, colour: bool = True) -> str:
    paint = Paint(width, colour=colour)
    return paint.feed(text) + paint.end()


@SLOWLY
@given(MARKED, st.lists(st.integers(0, 200)), st.sampled_from([0, 20, 40]))
def test_how_an_answer_was_cut_makes_no_difference(text: str, cuts: list[int], width: int) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(places)]
    paint = Paint(width)
    assert "".join(map(paint.feed, pieces)) + paint.end() == painted(text, width)


@SLOWLY
@given(MARKED | st.text())
def test_without_colours_and_breaks_it_is_the_answer(text: str) -> None:
    assert uncoloured(painted(text, 0)) == harmless(text)
    assert "".join(uncoloured(painted(text, 20)).split()) == "".join(harmless(text).split())


@SLOWLY
@given(
    st.lists(st.text("abcdefghé", min_size=1, max_size=12) | st.text("中文"), max_size=40).map(" ".join),
    st.integers(21, 60),
)
@example("a a a " + "中" * 17 + " ", 21)
def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(text: str, width: int) -> None:
    from rich.cells import cell_len

    lines = painted(text, width, colour=False).split("\n")
    assert all(cell_len(line) < width for line in lines)
    plain = [word for word in text.split() if word.isascii()]
    assert [word for line in lines for word in line.split() if word.isascii()] == plain


@SLOWLY
@given(st.text(st.characters(max_codepoint=0x200)))
def test_a_model_cannot_steer_the_terminal(text: str) -> None:
    shown = painted(text, 0)
    assert not set(uncoloured(shown)) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("a **b c** d", f"{BOLD}**b c**"),
        ("say `x y` now", f"{CODE}`x y`"),
        ("# Head line\nrest", f"{BOLD}Head line"),
        ("```python\nx = 1\n```\nafter", f"{CODE}x = 1"),
        ("~~~\n```\n~~~\nafter", f"{CODE}```"),
        ("``a ` b``", f"{CODE}``a ` b``"),
    ],
)
def test_what_gets_a_colour(text: str, inside: str) -> None:
    assert inside in painted(text, 80)


@pytest.mark.parametrize("text", ["2**3 and 4**5", "a * b * c", "** not bold **", "plain #1", "#hashtag"])
def test_what_gets_none(text: str) -> None:
    assert painted(text, 80) == text


def test_bold_ends_with_its_paragraph_and_code_with_its_line() -> None:
    assert painted("**open\n\nplain", 80).endswith("\n\nplain")
    assert painted("`open\nplain", 80).endswith("\nplain")


def test_the_second_line_of_a_list_item_hangs() -> None:
    assert painted("- one two three four five six", 17, colour=False) == "- one two three\n  four five six"


def test_code_is_not_broken() -> None:
    line = "x = " + "1 + " * 30 + "1"
    assert line in painted(f"```\n{line}\n```", 40, colour=False)


def test_at_most_a_word_is_held_back() -> None:
    paint = Paint(80)
    assert uncoloured(paint.feed("one two thr")) == "one two"
    assert uncoloured(paint.feed("ee ")) == " three"
