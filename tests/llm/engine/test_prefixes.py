from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mindset.llm.engine.columns import Kept
from mindset.llm.engine.prefixes import SHORTEST, Prefixes

ONE = 8
"""Bytes a token of these caches: a key and a value of one number each."""


def kept(ids: list[int]) -> Kept:
    numbers = torch.tensor(ids, dtype=torch.float32)[None, :, None]
    return Kept(tuple(ids), ((numbers, -numbers),))


@given(
    texts=st.lists(st.lists(st.integers(0, 1), min_size=SHORTEST, max_size=14), max_size=8),
    wanted=st.lists(st.integers(0, 1), min_size=1, max_size=16),
)
def test_the_longest_known_beginning_is_found(texts: list[list[int]], wanted: list[int]) -> None:
    prefixes = Prefixes(1 << 20)
    for text in texts:
        prefixes.keep(kept(text))
    common = [
        next(
            (n for n in range(min(len(text), len(wanted) - 1)) if text[n] != wanted[n]),
            min(len(text), len(wanted) - 1),
        )
        for text in texts
    ]
    best = max(common, default=0)
    found = prefixes.find(wanted)
    if best < SHORTEST:
        assert found is None
    else:
        assert found is not None
        assert list(found.ids) == wanted[:best]
        assert found.layers[0][0].flatten().tolist() == wanted[:best]


def test_what_was_used_last_is_kept_longest() -> None:
    prefixes = Prefixes(2 * 10 * ONE)
    one, two, three = [1] * 10, [2] * 10, [3] * 10
    prefixes.keep(kept(one))
    prefixes.keep(kept(two))
    assert prefixes.find([*one, 5]) is not None
    prefixes.keep(kept(three))
    assert prefixes.nbytes == 2 * 10 * ONE
    assert prefixes.find([*two, 5]) is None
    assert prefixes.find([*one, 5]) is not None
    assert prefixes.find([*three, 5]) is not None


def test_a_longer_text_takes_the_place_of_its_beginning() -> None:
    prefixes = Prefixes(1 << 20)
    prefixes.keep(kept([1] * 9))
    prefixes.keep(kept([1] * 12))
    prefixes.keep(kept([1] * 10))
    assert (len(prefixes), prefixes.nbytes) == (1, 12 * ONE)
    prefixes.clear()
    assert (len(prefixes), prefixes.nbytes) == (0, 0)


def test_what_is_too_large_or_too_short_is_not_kept() -> None:
    prefixes = Prefixes(10 * ONE)
    prefixes.keep(kept([1] * 11))
    prefixes.keep(kept([1] * (SHORTEST - 1)))
    assert len(prefixes) == 0
    assert Prefixes(0).find([1] * 20) is None
