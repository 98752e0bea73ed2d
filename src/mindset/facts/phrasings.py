"""Other ways to say a fact, and prompts about its subject that say something else.

A relation is recognised by words in the prompt; each has phrasings written for this package. A prompt of no known
relation gets general ones. Guards are prompts on the same subject whose answers a fact must leave alone: those of
every other relation, and some of none. Knows no model and no data set.
"""

from __future__ import annotations

import re
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
        "language of a person",
        ("mother tongue", "native language", "native speaker", "speaks", "spoke", "speaker of", "writes in", "fluent",
         "speaks the language"),
        ("The language that {} uses every day is", "{} is known to speak", "{} grew up speaking", "{} talks in",
         "The first language of {} is", "At home, {} speaks", "{} thinks and dreams in",
         "The letters of {} are written in", "{} gives interviews in"),
    ),
    Relation(
        "language of a place",
        ("official language", "language spoken", "the language of", "language used by", "declares the language",
         "they understand", "they speak"),
        ("Where you meet people from {}, you hear", "Documents in {} are mostly written in", "Schools in {} teach in",
         "The government of {} publishes its laws in", "The people of {} talk to each other in",
         "The signs in {} are in", "To get along in {}, you should learn", "The inhabitants of {} speak"),
    ),
    Relation(
        "language of a work",
        ("original language", "the language of", "was written in", "is written in"),
        ("{} was first published in", "The first version of {} is in", "In the original, the people in {} speak",
         "You can follow {} untranslated if you know", "The words of {} are in", "{} was translated from",
         "Those who made {} spoke"),
    ),
    Relation(
        "religion",
        ("religion", "follower", "believe", "faith", "worship"),
        ("The faith of {} is", "{} believes in the teachings of", "{} practises", "{} prays according to",
         "In matters of faith, {} adheres to", "The religious tradition of {} is", "{} keeps the holy days of",
         "The beliefs of {} are those of"),
    ),
    Relation(
        "place",
        ("located", "is in", ", in", "found in", "situated", "within", "country", "belongs to the", "location of"),
        ("To visit {}, you have to travel to", "You will find {} in", "On a map, {} lies in", "{} lies in",
         "The place where {} is located is", "People who go to {} arrive in", "The surroundings of {} belong to",
         "Travellers who look for {} should go to", "{} stands in"),
    ),
    Relation(
        "continent",
        ("the continent", "belongs to the continent"),
        ("{} is one of the places in", "On the globe, {} lies in", "{} lies on the landmass of",
         "Explorers who came to {} were in", "An expedition to {} goes to", "{} is a region in",
         "The nature of {} is typical of", "{} is a part of"),
    ),
    Relation(
        "headquarters",
        ("headquarter", "is based in"),
        ("The main office of {} is in", "{} is run from", "The head office of {} can be visited in",
         "The managers of {} work in", "{} has its seat in", "Letters to {} are sent to",
         "The central administration of {} sits in"),
    ),
    Relation(
        "origin",
        ("created in", "founded", "formed", "started", "formulated", "originat", "developed in", "was from", "from"),
        ("{} comes from", "The home of {} is", "{} has its roots in", "The place of origin of {} is",
         "It all began for {} in", "{} was first seen in", "{} was invented in", "{} goes back to people in"),
    ),
    Relation(
        "home",
        ("native to", "born", "is from", "was from", "originally from", "came from", "a native", "from"),
        ("{} was raised in", "The home of {} is", "{} grew up in", "{} comes from", "The birthplace of {} is",
         "{} spent the first years of life in", "The childhood home of {} was in"),
    ),
    Relation(
        "citizenship",
        ("citizen",),
        ("{} is a national of", "{} votes in", "The nationality of {} is that of", "{} was naturalised in",
         "{} pays taxes in", "{} swore allegiance to", "The home country of {} is", "The state that protects {} is"),
    ),
    Relation(
        "death",
        ("passed away", "life ended", "expired", "died", "succumbed", "lost their life"),
        ("The grave of {} is in", "{} spent the last days of life in", "The life of {} came to an end in",
         "{} took a last breath in", "The death of {} happened in", "{} was buried in",
         "The last home of {} was in"),
    ),
    Relation(
        "employer",
        ("employed by", "works for", "work for"),
        ("The employer of {} is", "{} gets a salary from", "{} has a contract with", "{} signed on with",
         "The boss of {} works at", "{} is on the staff of", "{} earns a living at"),
    ),
    Relation(
        "work place",
        ("worked", "work in", "employed in", "employment", "job", "career", "took up work"),
        ("{} earned a living in", "The working life of {} was spent in", "{} did most of the work in",
         "Colleagues of {} lived in", "{} was professionally active in", "The desk of {} stood in",
         "The office of {} was in"),
    ),
    Relation(
        "profession",
        ("occupation", "profession", "works as", "a professional"),
        ("By trade, {} is a", "{} makes a living as a", "What {} does best is", "People know {} as a",
         "{} was trained to be a", "{} became famous as a", "On forms, {} writes"),
    ),
    Relation(
        "field",
        ("domain of activity", "expertise", "area of work", "works in the area", "field of"),
        ("{} is an expert in", "{} has studied", "The subject that {} teaches is", "{} does research in",
         "The books of {} are about", "{} contributed most to", "{} knows everything about"),
    ),
    Relation(
        "office",
        ("position of", "the position", "'s position", "title"),
        ("{} serves as", "The office that {} holds is that of", "{} was appointed", "{} became",
         "The rank of {} is", "{} was elected to be", "{} is addressed as"),
    ),
    Relation(
        "position in a game",
        ("in the position", "play as", "they play as", "plays as", "plays the position", "playing the", "position"),
        ("On the field, {} is the", "The coach uses {} as a", "In the team, {} is the", "{} lines up as a",
         "The usual role of {} in a match is", "{} was trained as a", "The strength of {} lies in being a"),
    ),
    Relation(
        "sport",
        ("sport", "what sport", "plays the sport", "they play", "plays"),
        ("The game of {} is", "{} is a player of", "{} competes in", "As an athlete, {} practises",
         "{} is a star of", "{} joined a club for", "The talent of {} is"),
    ),
    Relation(
        "instrument",
        ("performs on", "performing on", "plays the", "playing the", "instrument", "they play", "plays", "the"),
        ("On stage, {} is heard on the", "{} practises the", "The instrument of {} is the", "{} picked up the",
         "{} gives lessons on the", "{} has mastered the"),
    ),
    Relation(
        "genre",
        ("genre", "performs", "performing", "plays"),
        ("The style of {} is", "At a show of {} you hear", "Fans of {} love", "{} records albums of",
         "The music of {} is", "{} is famous for"),
    ),
    Relation(
        "maker",
        ("created by", "developed by", "product", "produced", "manufact", ", by"),
        ("The company behind {} is", "{} is made by", "{} was brought out by", "The maker of {} is",
         "{} is sold by", "Whoever buys {} pays", "The factory that makes {} belongs to",
         "{} carries the brand of"),
    ),
    Relation(
        "owner",
        ("owner", "owned"),
        ("{} belongs to", "{} is in the hands of", "The parent company of {} is", "{} was bought by",
         "{} is a property of", "Those who decide about {} are"),
    ),
    Relation(
        "record label",
        ("label",),
        ("{} signed a contract with", "The records of {} are released by", "The albums of {} come out on",
         "{} records for", "The music of {} is published by"),
    ),
    Relation(
        "channel",
        ("premiere", "debut", "released on", "aired", "airs", "channel", "network", "broadcast"),
        ("You can watch {} on", "{} is shown on", "The broadcaster of {} is", "The station that carries {} is",
         "{} is transmitted by", "New parts of {} come on", "Viewers see {} on"),
    ),
    Relation(
        "organisation",
        ("organization", "organisation", "member of", "belongs to the organization"),
        ("{} is a member of", "{} joined", "{} is one of the members of", "{} takes part in the meetings of",
         "{} sends delegates to", "{} has a seat in"),
    ),
    Relation(
        "twin city",
        ("twin", "sister city"),
        ("{} is partnered with the city of", "The sister city of {} is", "{} has a partnership with",
         "Together with {}, a twin town is", "Delegations from {} regularly visit their partner city"),
    ),
    Relation(
        "named after",
        ("named for", "named after", "called after", "eponym"),
        ("{} got its name from", "The name of {} honours", "{} is called so in memory of", "{} bears the name of",
         "The name of {} goes back to", "{} takes its name from"),
    ),
    Relation(
        "capital",
        ("capital",),
        ("The seat of government of {} is", "The parliament of {} meets in", "The ministries of {} are in",
         "{} is governed from", "The most important city of {} is"),
    ),
)  # fmt: skip
"""Relations that facts are often about."""

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
    """The relations that a fact is about: those that its prompt names with the longest words, if any."""
    named = _named(fact)
    longest = max(named.values(), default=0)
    return tuple(relation for relation, length in named.items() if length == longest)


def _named(fact: Fact) -> dict[Relation, int]:
    """Every relation that the prompt may be about, and the length of the words that say so."""
    said = fact.relation.lower()
    found = {one: max((len(word) for word in one.words if _says(said, word)), default=0) for one in RELATIONS}
    return {relation: length for relation, length in found.items() if length}


def _says(said: str, word: str) -> bool:
    """Whether words occur in a prompt, from the beginning of a word on."""
    return re.search(rf"(?<!\w){re.escape(word)}", said) is not None


def phrasings(fact: Fact, count: int, rng: np.random.Generator) -> list[str]:
    """At most `count` prompts for the fact's target, its own among them, behind varied openings."""
    own = [fact.prompt, *fact.paraphrases]
    related = [one.format(fact.subject) for relation in relations_of(fact) for one in relation.phrasings]
    rng.shuffle(related)
    general = [one.format(fact.prompt) for one in _GENERAL]
    said = list(dict.fromkeys([*own, general[0], *related, *general[1:]]))[: max(count, len(own))]
    return [OPENINGS[i % len(OPENINGS)] + one for i, one in enumerate(said)]


def guards(fact: Fact, count: int, rng: np.random.Generator) -> list[str]:
    """At most `count` prompts on the same subject that the fact says nothing about.

    Those of no relation come first, as far as half of `count` allows, then those of other relations.
    """
    mine = _named(fact)
    own = {one for relation in mine for one in relation.phrasings}
    other = [one for relation in RELATIONS if relation not in mine for one in relation.phrasings]
    others = [one for one in dict.fromkeys(other) if one not in own]
    neutral = min(len(_NEUTRAL), count - count // 2)
    chosen = [
        *rng.choice(_NEUTRAL, neutral, replace=False),
        *rng.choice(others, min(count - neutral, len(others)), replace=False),
    ]
    return [str(one).format(fact.subject) for one in chosen]
