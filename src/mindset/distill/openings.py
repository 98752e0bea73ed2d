"""How the teacher is made to talk about many things: short beginnings of documents, combined from lists.

A teacher that starts from nothing keeps to its favourite subjects; what it never says it cannot teach.
Several kinds of document times some hundred subjects give thousands of beginnings. Knows nothing of models;
a beginning is text, made by a `random.Random` that the caller seeds.
"""

from __future__ import annotations

import random

__all__ = ["question", "raw_opening"]


def _listed(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.replace("\n", "|").split("|") if entry.strip())


_SUBJECTS = _listed("""
    the Roman Empire|the printing press|ocean tides|volcanoes|honey bees|migrating birds|the human heart
    sleep|memory|vaccines|bacteria|photosynthesis|rainforests|glaciers|earthquakes|the water cycle
    gravity|black holes|the Moon|comets|electricity|magnets|steam engines|bicycles|bridges|railways
    sailing ships|aeroplanes|computers|the Internet|programming in Python|databases|encryption
    prime numbers|geometry|probability|statistics|chess|football|swimming|the Olympic Games
    running a marathon|yoga|bread|cheese|rice|coffee|tea|chocolate|spices|soup|vegetable gardens
    apple trees|wild mushrooms|dogs|cats|horses|elephants|whales|sharks|spiders|ants|frogs|dinosaurs
    fossils|deserts|rivers|mountains|islands|maps|clocks|calendars|money|banks|taxes|trade|inflation
    insurance|small businesses|advertising|elections|parliaments|courts of law|human rights
    the French Revolution|the Cold War|ancient Egypt|ancient Greece|China|Japan|India|Brazil|Nigeria
    Mexico|Canada|Australia|Russia|Germany|Spain|London|Paris|New York|castles|cathedrals|paintings
    photography|film|the theatre|opera|jazz|guitars|the piano|dancing|poetry|novels|fairy tales|myths
    religion|philosophy|logic|ethics|happiness|friendship|families|children|schools|universities
    teachers|reading|handwriting|learning languages|grammar|translation|newspapers|radio|television
    letters|holidays|weddings|birthdays|clothes|shoes|furniture|houses|kitchens|heating|drinking water
    sewers|waste and recycling|solar power|nuclear power|oil|coal|batteries|climate change|storms|snow
    fog|farming|fishing|forestry|mining|steel|glass|paper|plastics|medicine|surgery|teeth|eyesight
    hearing|allergies|diabetes|stress|nutrition|exercise|hospitals|nurses|firefighters|the police
    soldiers|spies|pirates|explorers|astronauts|robots|artificial intelligence|video games|board games
    toys|magic tricks|jokes|dreams|fear|anger|love|honesty|courage|patience|ageing|death
""")
_PEOPLE = _listed("""
    Anna|Tom|Maria|David|Aisha|Wei|Elena|Samuel|Lucy|Omar|Ingrid|Peter|Nadia|Jack|Grace|Ivan|Rosa|Henry
    Mei|Paul|Clara|Daniel|Fatima|George|Hannah|Karim|Lena|Martin|Olga|Priya|Robert|Sofia
""")
_PLACES = _listed("""
    a small village|the harbour|an old library|the edge of the forest|a crowded market|the night train
    a quiet farm|the hospital|a mountain hut|the school yard|an empty theatre|the kitchen|a ship at sea
    the city hall|a tiny flat|the airport|a garden behind the house|the desert|a laboratory
    the river bank
""")
_YEARS = (
    1066,
    1348,
    1492,
    1605,
    1666,
    1789,
    1815,
    1848,
    1871,
    1905,
    1918,
    1929,
    1945,
    1957,
    1969,
    1989,
    2001,
    2015,
)

_QUESTIONS = (
    "What should everyone know about {s}?",
    "Explain {s} to a ten-year-old.",
    "Write a short story about {s}.",
    "Write a poem about {s}.",
    "What are the most common mistakes people make about {s}?",
    "Give me five facts about {s}.",
    "What makes {s} important?",
    "Tell me about the history of {s}.",
    "Compare {s} and {t}.",
    "What do {s} and {t} have in common?",
    "Write a letter to a friend about {s}.",
    "Write a dialogue between {p} and {q} about {s}.",
    "Summarise what is known about {s} in three sentences.",
    "Give step-by-step advice to a beginner interested in {s}.",
    "What are the arguments for and against {s}?",
    "Write a news report about {s}.",
    "Make a quiz with answers about {s}.",
    "Which words would you need to talk about {s}? Explain each.",
    "Write a Python function that has something to do with {s}.",
    "I read something about {s} today and did not understand it. Can you help me?",
    "How did {s} change over the last hundred years?",
    "What will {s} look like in fifty years?",
    "Invent a riddle about {s} and solve it.",
    "Translate a simple sentence about {s} into French and Spanish.",
    "{p} has 12 books about {s} and gives 5 of them to {q}. How many are left? Explain.",
    "Hi! Let's talk about {s}.",
)
_OPENINGS = (
    "The history of {s} is",
    "{S}, like {t},",
    "{S}\n\n",
    "# {S}\n\n",
    "= {S} =\n\n",
    "Chapter 1: {S}\n\n",
    "Abstract. We study {s}",
    "In this article we look at {s} and",
    "There are three things to know about {s}. First,",
    "Q: What is the difference between {s} and {t}?\nA:",
    "In {y}, ",
    "By {y}, {s} had become",
    "Once upon a time, in {l}, there lived",
    "{p} had never thought much about {s} until",
    '"Have you ever wondered about {s}?" asked {p}.',
    "It was late when {p} reached {l}.",
    "{p}: What do you know about {s}?\n{q}:",
    "Dear {p},\n\nthank you for your letter about {s}.",
    "Dear Sir or Madam,\n\nI am writing about {s}",
    "From: {p}\nTo: {q}\nSubject: {s}\n\n",
    "BREAKING NEWS: ",
    "The government said on Monday that {s}",
    "{p}, who has studied {s} for years, said",
    "Review: the new book on {s}",
    "How to get started with {s}:\n\n1.",
    "Ingredients:\n- ",
    "A short list of facts about {s}:\n\n- ",
    "Lesson plan: {s}\n\nObjectives:",
    "Diary, {y}. Today ",
    "Roses, rivers, {s},\n",
    "Problem 1. {p} and {q}",
    "Theorem. Let",
    "def ",
    '"""Tools for {s}."""\n\nimport ',
    "import numpy as np\n\n",
    "class {c}:\n",
    "#include <stdio.h>\n\n",
    "function {c}(",
    "SELECT ",
    "<html>\n<head>\n<title>{S}</title>",
    "| Name | Value |\n|---|---|\n|",
    "Frequently asked questions about {s}\n\n",
)


def raw_opening(rng: random.Random) -> str:
    """Return the first words of some document: encyclopaedia, story, news, letter, dialogue, code."""
    return _filled(rng, _OPENINGS)


def question(rng: random.Random) -> str:
    """Return something that a person could ask a chat model."""
    return _filled(rng, _QUESTIONS)


def _filled(rng: random.Random, forms: tuple[str, ...]) -> str:
    subject, other = rng.sample(_SUBJECTS, 2)
    person, second_person = rng.sample(_PEOPLE, 2)
    return rng.choice(forms).format(
        s=subject,
        S=subject[0].upper() + subject[1:],
        t=other,
        p=person,
        q=second_person,
        l=rng.choice(_PLACES),
        y=rng.choice(_YEARS),
        c="".join(word.capitalize() for word in subject.split()),
    )
