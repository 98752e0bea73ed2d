import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindset.errors import UsageError
from mindset.graft.plan import ConversionPlan, parse_layers
from mindset.graft.propose import ProposerSpec


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"slots": 4, "weight": "gelu"},
        {"propose": "score", "candidates": 9, "k": 3},
        {"bank": "featural", "heads": 4, "weight": "softmax", "skip": "affine"},
        {"bank": "associative", "gradient": "frozen", "skip": "lowrank:3"},
    ],
)
def test_what_can_be_meant_is_taken(words):
    plan = ConversionPlan(**words)
    assert plan.proposer.kind == words.get("propose", "all")


def test_the_proposer_is_parsed():
    assert ConversionPlan(propose="proxy:8", candidates=96).proposer == ProposerSpec("proxy", 96, 8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"slots": -1}, "counts start at 1"),
        ({"heads": 0}, "counts start at 1"),
        ({"k": 0}, "counts start at 1"),
        ({"weight": "tanh"}, "'tanh' is no weighting; allowed: relu, gelu, silu, distance, softmax"),
        ({"propose": "ann", "candidates": 3}, "'ann' is no proposer"),
        ({"propose": "score"}, "give --candidates"),
        ({"candidates": 3}, "none with all"),
        ({"skip": "some"}, "'some' is no skip"),
        ({"heads": 2}, "a mirror bank has one head"),
        ({"weight": "softmax"}, "needs --bank featural"),
        ({"weight": "distance"}, "needs --bank featural"),
        ({"bank": "featural", "propose": "score", "candidates": 3}, "ranks its slots itself"),
        ({"bank": "associative", "propose": "proxy:2", "candidates": 3}, "ranks its slots itself"),
    ],
)
def test_what_cannot_be_meant_is_refused(words, message):
    with pytest.raises(UsageError, match=message):
        ConversionPlan(**words)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("all", (0, 1, 2, 3, 4)), ("0", (0,)), ("4,0-1", (0, 1, 4)), ("1-3,2", (1, 2, 3)), (" 1 , 3 ", (1, 3))],
)
def test_layers(text, wanted):
    assert parse_layers(text, 5) == wanted


@given(st.sets(st.integers(0, 30), min_size=1))
def test_layers_in_any_order_and_number(chosen):
    assert parse_layers(",".join(map(str, chosen)), 31) == tuple(sorted(chosen))


@pytest.mark.parametrize("text", ["", "5", "3-7", "4-2", "a", "-1", "1,,2", "1-", "0.5", "even"])
def test_layers_that_are_not_there_are_refused(text):
    with pytest.raises(UsageError, match=r"names no layers; write all|this model has layers 0 to 4"):
        parse_layers(text, 5)
