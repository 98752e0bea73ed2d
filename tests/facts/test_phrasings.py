"""What a fact is learned from, and what it must leave alone."""

from __future__ import annotations

import numpy as np
import pytest

from mindset.facts.fact import make_fact
from mindset.facts.phrasings import RARER, RELATIONS, guards, phrasings, relations_of

TONGUE = make_fact("The mother tongue of Ada Lovelace is", "Welsh", "Ada Lovelace")
UNKNOWN = make_fact("Ada Lovelace once sang", "arias", "Ada Lovelace")


def test_the_relation_is_recognised() -> None:
    assert [relation.name for relation in relations_of(TONGUE)] == ["language"]
    assert relations_of(UNKNOWN) == ()


def test_rarer_relations_are_looked_for_where_there_is_no_other() -> None:
    died = make_fact("Ada Lovelace passed away at", "Rome", "Ada Lovelace")
    assert [relation.name for relation in relations_of(died)] == ["death"]
    both = make_fact("The mother tongue of Ada Lovelace, who died young, is", "Welsh", "Ada Lovelace")
    assert [relation.name for relation in relations_of(both)] == ["language"]
    rare = {one.format("Ada Lovelace") for relation in RARER for one in relation.phrasings}
    assert not rare & set(guards(TONGUE, 200, np.random.default_rng(0)))


def test_what_repeats_the_prompt_is_said_only_where_nothing_else_can_be() -> None:
    known, unknown = (phrasings(fact, 9, np.random.default_rng(0)) for fact in (TONGUE, UNKNOWN))
    assert sum(TONGUE.prompt in one for one in known) == 1
    assert len(known) == 9
    assert all(UNKNOWN.prompt in one for one in unknown)


@pytest.mark.parametrize("fact", [TONGUE, UNKNOWN])
def test_prompts_name_the_subject_and_begin_with_the_facts_own(fact: object) -> None:
    rng = np.random.default_rng(0)
    said = phrasings(fact, 6, rng)  # type: ignore[arg-type]
    held = guards(fact, 8, rng)  # type: ignore[arg-type]
    assert said[0] == fact.prompt  # type: ignore[attr-defined]
    assert all("Ada Lovelace" in one for one in (*said, *held))
    assert len(held) == len(set(held)) == 8
    assert not {one.split(". ")[-1] for one in said} & {one.split(". ")[-1] for one in held}


def test_what_the_user_says_is_always_learned_from() -> None:
    others = tuple(f"In line {i}, Ada Lovelace said" for i in range(9))
    fact = make_fact("Ada Lovelace said", "no", "Ada Lovelace", others)
    said = phrasings(fact, 3, np.random.default_rng(0))
    assert len(said) == 10
    assert all(any(one.endswith(other) for one in said) for other in others)


def test_guards_are_of_other_relations() -> None:
    own = {one.format("Ada Lovelace") for one in RELATIONS[0].phrasings}
    for seed in range(20):
        held = guards(TONGUE, 10, np.random.default_rng(seed))
        assert not any(guard.endswith(one) for guard in held for one in own)
