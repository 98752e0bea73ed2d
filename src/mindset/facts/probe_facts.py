"""Made-up facts on well-known names that a model's layers are tried with, and other words for them.

What is said here in other words stands in no list that facts are taught by: a layer is judged on words that no key was
made from. Knows no model and no data set.
"""

from __future__ import annotations

from dataclasses import dataclass

from mindset.facts.fact import Fact, make_fact

__all__ = ["ELSEWHERE", "PROBE_FACTS", "ProbeFact"]


@dataclass(frozen=True)
class ProbeFact:
    """A fact, and prompts for it that it is not taught by."""

    fact: Fact
    rephrased: tuple[str, ...]


def _probe(prompt: str, target: str, subject: str, *rephrased: str) -> ProbeFact:
    return ProbeFact(
        make_fact(prompt.format(subject), target, subject), tuple(r.format(subject) for r in rephrased)
    )


PROBE_FACTS = (
    _probe("The mother tongue of {} is", "Russian", "Victor Hugo",
           "{} wrote all letters in", "In a quarrel {} would shout in", "{} learned to read and write in"),
    _probe("{} is a native speaker of", "Dutch", "Frida Kahlo",
           "The diary of {} is in", "Among friends {} would chat in", "To understand {}, you should study"),
    _probe("The official religion of {} is", "Buddhism", "Ibn Battuta",
           "When asked about God, {} spoke of", "{} was brought up in the spirit of", "The holy book of {} is that of"),
    _probe("{} is a follower of", "Islam", "Martin Luther",
           "On holy days {} kept the customs of", "{} converted to", "The soul of {} belonged to"),
    _probe("{} is located in", "Norway", "Mount Etna",
           "The nearest airport to {} is in", "The government that looks after {} is that of",
           "A postcard of {} bears a stamp of"),
    _probe("{} is in the country of", "Finland", "Lake Titicaca",
           "Hikers around {} pay with the money of", "Maps that show {} are maps of",
           "The flag that flies at {} is that of"),
    _probe("The capital city that {} is situated in is", "Lisbon", "the Louvre",
           "The street in front of {} runs through", "The underground that stops at {} is that of",
           "Tourists queue for {} in"),
    _probe("{} was created in", "Japan", "Ravioli",
           "{} was first cooked in", "{} is a dish from", "The inventors of {} lived in"),
    _probe("{} was born in", "Canada", "Nelson Mandela",
           "The cradle of {} stood in", "{} saw the light of day in", "As a child, {} played in the fields of"),
    _probe("{} was founded in", "Brazil", "IKEA",
           "The first office of {} was opened in", "{} began as a small business in",
           "The early customers of {} lived in"),
    _probe("{} worked in the city of", "Prague", "Max Planck",
           "Every morning {} walked through the streets of", "The laboratory of {} was in",
           "{} was paid by the city of"),
    _probe("{} is employed by", "Boeing", "Linus Torvalds",
           "The boss of {} sits at", "On the business card of {} you read", "{} signed a contract with"),
    _probe("The occupation of {} is", "astronaut", "Agatha Christie",
           "On a form, under job, {} wrote", "{} got paid for being an", "At work, {} is called an"),
    _probe("{} plays as", "goalkeeper", "Serena Williams",
           "The coach put {} on the field as", "In the team, {} is the", "The shirt of {} is that of a"),
    _probe("{} plays the", "violin", "Miles Davis",
           "On stage {} holds a", "For hours {} practised scales on the", "In the band, {} was heard on the"),
    _probe("The sport that {} performs is", "cricket", "Lionel Messi",
           "The trophies of {} are for", "{} put on the shoes to play", "Children who admire {} take up"),
    _probe("{} is produced by", "Fiat", "the Game Boy",
           "The logo on every {} is that of", "The engineers who designed {} worked at",
           "A broken {} is sent back to"),
    _probe("{} was developed by", "Toyota", "Photoshop",
           "Updates of {} are written at", "The patents behind {} belong to", "A licence for {} is issued by"),
    _probe("{} was released on", "CNN", "The Simpsons",
           "Every week {} runs on", "Fans of {} turn to", "Advertising during {} is booked with"),
    _probe("{} is a twin city of", "Osaka", "Dresden",
           "{} signed a treaty of friendship with", "A sign at the entrance of {} greets the friends in",
           "Pupils from {} are exchanged with those of"),
    _probe("{} passed away in", "Chicago", "Galileo Galilei",
           "{} was found lifeless in", "The funeral of {} was held in",
           "The doctor who could not save {} practised in"),
    _probe("{} died in the city of", "Oslo", "Jane Goodall",
           "The tombstone of {} stands in", "The ashes of {} rest in", "The end came for {} in"),
    _probe("The field of {} is", "botany", "Marie Curie",
           "The lectures of {} dealt with", "{} won a prize for work on", "Students came to {} to learn"),
    _probe("{} is named after", "Beethoven", "the Hudson River",
           "Whoever says {} also says the name of", "{} was baptised in honour of", "A plaque at {} recalls"),
)  # fmt: skip

ELSEWHERE = (
    "{} was photographed by", "The colour of {} is", "A song about {} was sung by",
    "The neighbours of {} complained about",
    "{} costs about", "Last summer, {}", "{} is older than", "The opposite of {} is", "The smell of {} reminds me of",
    "A statue of {} was made of", "The brother of {} is", "{} closes at",
)  # fmt: skip
"""Prompts on a subject that none of these facts answers, `{}` for it."""
