"""Other ways to say a fact, and prompts about its subject that say something else.

A relation is recognised by words in the prompt; each has phrasings written for this package. A prompt of no known
relation gets general ones. Guards are prompts on the same subject whose answers a fact must leave alone: those of
every other relation, and some of none. Knows no model and no data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mindset.facts.fact import Fact

__all__ = ["OPENINGS", "RELATIONS", "Relation", "guards", "phrasings", "relations_of"]


@dataclass(frozen=True)
class Relation:
    """What a fact may be about."""

    name: str
    words: tuple[str, ...]
    """A prompt that has one of these is about it."""
    phrasings: tuple[str, ...]
    """Prompts for it, `{}` for the subject."""


RELATIONS = (
    Relation(
        "language",
        ("mother tongue", "native language", "native speaker", "speak", "spoke", "speaker of", "language", "understand",
         "fluent", "writes in", "written in"),
        ("The language that {} uses every day is", "{} is known to speak", "{} grew up speaking", "{} talks in",
         "The first language of {} is", "Where you meet {}, you hear people speak",
         "Documents about {} are mostly written in", "{} is best understood in"),
    ),
    Relation(
        "religion",
        ("religion", "follower", "believe", "faith", "worship"),
        ("The faith of {} is", "{} believes in the teachings of", "{} practises", "{} prays according to",
         "In matters of faith, {} adheres to", "The religious tradition of {} is"),
    ),
    Relation(
        "place",
        ("located", "is in", ", in", "found in", "situated", "within", "continent", "country", "headquarter", "based",
         "capital", "belongs to the", "location of"),
        ("To visit {}, you have to travel to", "You will find {} in", "On a map, {} lies in", "{} lies in",
         "The place where {} is located is", "People who go to {} arrive in", "The surroundings of {} belong to"),
    ),
    Relation(
        "origin",
        ("created in", "founded", "formed", "started", "formulated", "originat", "native to", "born", "is from",
         "was from", "citizen", "passport", "came from", "developed in", "a native"),
        ("{} comes from", "The home of {} is", "{} has its roots in", "The place of origin of {} is",
         "It all began for {} in", "{} was raised in", "People from the home of {} live in"),
    ),
    Relation(
        "work place",
        ("worked", "work in", "work for", "employ", "job", "career", "office"),
        ("{} earned a living in", "The working life of {} was spent in", "{} did most of the work in",
         "Colleagues of {} lived in", "{} was professionally active in", "The desk of {} stood in"),
    ),
    Relation(
        "profession",
        ("occupation", "profession", "position", "play as", "plays as", "works as", "title of"),
        ("By trade, {} is a", "{} makes a living as a", "What {} does best is", "People know {} as a",
         "{} was trained to be a", "The role of {} is", "The strength of {} lies in being a"),
    ),
    Relation(
        "art or sport",
        ("genre", "perform", "plays", "play?", "instrument", "sport"),
        ("{} is famous for", "The style of {} is", "{} has always loved", "At a show of {} you hear",
         "{} is best known for", "The talent of {} is", "{} practises the"),
    ),
    Relation(
        "maker",
        ("created by", "developed by", "product", "produced", "owned", "owner", "manufact", "by", "label"),
        ("The company behind {} is", "{} is made by", "{} was brought out by", "The maker of {} is",
         "{} is sold by", "Whoever buys {} pays", "{} belongs to"),
    ),
    Relation(
        "channel",
        ("premiere", "debut", "released on", "aired", "airs", "channel", "network", "broadcast"),
        ("You can watch {} on", "{} is shown on", "The broadcaster of {} is", "The station that carries {} is",
         "{} is transmitted by", "New parts of {} come on"),
    ),
    Relation(
        "twin city",
        ("twin", "sister city"),
        ("{} is partnered with the city of", "The sister city of {} is", "{} has a partnership with",
         "Together with {}, a twin town is", "Delegations from {} regularly visit their partner city"),
    ),
)  # fmt: skip
"""Relations that facts are often about."""

RARER = (
    Relation(
        "death",
        ("passed away", "life ended", "expired", "died", "succumbed", "lost their life", "last breath"),
        ("The grave of {} is in", "{} spent the last days of life in", "The life of {} came to an end in",
         "{} took a last breath in", "The death of {} happened in", "{} was buried in", "The last home of {} was in"),
    ),
    Relation(
        "field",
        ("domain of", "expertise", "area of", "field of", "speciali"),
        ("{} is an expert in", "{} has studied", "The subject that {} teaches is", "{} does research in",
         "The books of {} are about", "{} contributed most to", "{} knows everything about"),
    ),
    Relation(
        "name",
        ("named for", "named after", "called after", "name of"),
        ("{} got its name from", "The name of {} honours", "{} is called so in memory of", "{} bears the name of",
         "The name of {} goes back to", "{} takes its name from"),
    ),
)  # fmt: skip
"""Looked for where a prompt is about none of the others, and no guards: they would stand in the others' way."""

OPENINGS = (
    "", "The weather was fine that day. ", "According to a new report, ", "She put down the book. ",
    "In 1987 there was a change. ", "Moreover, ",
)  # fmt: skip
"""What may stand before a prompt: a fact must not need to be the first thing that is said."""

_GENERAL = ("It is well known that {}", "Question: complete the sentence. {}", "As the encyclopedia says, {}")
"""Ways to say any prompt, `{}` for it."""

_NEUTRAL = (
    "{} is", "{} was", "{} has", "The name {}", "{} and", "In the year 1990, {}", "{} weighs about",
    "The favourite colour of {} is", "{} was first mentioned in", "A friend of {} is called", "The age of {} is",
    "The history of {} began", "{} likes to eat", "A photo of {} shows", "{} can be reached by", "The number of {} is",
    "Someone asked about {} and", "The problem with {} is that", "My opinion about {} is", "{} is as old as",
    "We talked about {} for", "The best thing about {} is", "The price of {} is", "{} died of",
)  # fmt: skip
"""Prompts of no relation."""


def relations_of(fact: Fact) -> tuple[Relation, ...]:
    """The relations that a fact is about; none is known for some."""
    said = fact.relation.lower()
    return _named(RELATIONS, said) or _named(RARER, said)


def _named(relations: tuple[Relation, ...], said: str) -> tuple[Relation, ...]:
    return tuple(relation for relation in relations if any(word in said for word in relation.words))


def phrasings(fact: Fact, count: int, rng: np.random.Generator) -> list[str]:
    """At most `count` prompts for the fact's target, its own among them, behind varied openings.

    A relation's phrasings say it in other words; general ones, which repeat the fact's own, only where there are none.
    """
    own = [fact.prompt, *fact.paraphrases]
    related = [one.format(fact.subject) for relation in relations_of(fact) for one in relation.phrasings]
    rng.shuffle(related)
    general = [one.format(fact.prompt) for one in _GENERAL]
    said = list(dict.fromkeys([*own, *(related or general)]))[: max(count, len(own))]
    return [OPENINGS[i % len(OPENINGS)] + one for i, one in enumerate(said)]


def guards(fact: Fact, count: int, rng: np.random.Generator) -> list[str]:
    """At most `count` prompts on the same subject that the fact says nothing about.

    Those of no relation come first, as far as half of `count` allows, then those of other relations.
    """
    mine = relations_of(fact)
    others = [one for relation in RELATIONS if relation not in mine for one in relation.phrasings]
    neutral = min(len(_NEUTRAL), count - count // 2)
    chosen = [
        *rng.choice(_NEUTRAL, neutral, replace=False),
        *rng.choice(others, min(count - neutral, len(others)), replace=False),
    ]
    return [str(one).format(fact.subject) for one in chosen]
