"""A fact: a prompt, how it is to go on, and whom it is about; and the files that hold facts.

FACTS.jsonl has a fact a line: `{"prompt", "target", "subject"?, "paraphrases"?, "source"?}`. A single fact may be given
as text: `PROMPT => TARGET`. Knows no model. Invariant: the subject of a fact stands in its prompt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mindset.errors import FormatError, MissingError, UsageError
from mindset.facts.subject import find_subject

__all__ = ["ARROW", "Fact", "FactText", "make_fact", "parse_facts", "read_facts"]

ARROW = "=>"
_KEYS = {"prompt", "target", "subject", "paraphrases", "source"}


@dataclass(frozen=True)
class Fact:
    """One fact."""

    prompt: str
    """A text that ends where the target begins, without the space between."""
    target: str
    """How it is to go on."""
    subject: str
    """Whom or what it is about: a part of the prompt."""
    paraphrases: tuple[str, ...] = ()
    """Other prompts for the same target, each with the subject in it, to learn from too."""
    source: str = ""
    """Where the user has it from."""
    span: tuple[int, int] = field(default=(0, 0), compare=False)
    """The characters of its file that say it."""

    @property
    def sentence(self) -> str:
        """The prompt with its target."""
        return f"{self.prompt} {self.target}"

    @property
    def relation(self) -> str:
        """The prompt with a place for the subject."""
        return self.prompt.replace(self.subject, "{}")


@dataclass(frozen=True)
class FactText:
    """Facts and the text that they stand in."""

    name: str
    """Of the file."""
    text: str
    facts: tuple[Fact, ...]


def make_fact(
    prompt: str,
    target: str,
    subject: str | None = None,
    paraphrases: tuple[str, ...] = (),
    source: str = "",
    span: tuple[int, int] = (0, 0),
) -> Fact:
    """A checked fact; a subject that is not given is found."""
    prompt, target = prompt.strip(), target.strip()
    if not prompt or not target:
        raise UsageError("a fact needs a prompt and a target; one of them is empty")
    subject = find_subject(prompt) if subject is None else subject.strip()
    if not subject or subject not in prompt:
        raise UsageError(f"the subject {subject!r} does not stand in the prompt {prompt!r}")
    for other in paraphrases:
        if subject not in other:
            raise UsageError(f"the subject {subject!r} does not stand in the paraphrase {other!r}")
    return Fact(prompt, target, subject, paraphrases, source, span)


def read_facts(path: Path) -> FactText:
    """The facts of a file of JSON lines."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingError(f"no such file: {path}") from error
    except (UnicodeDecodeError, OSError) as error:
        raise FormatError(f"{path} cannot be read as text: {error}") from error
    return parse_facts(text, path.name)


def parse_facts(text: str, name: str) -> FactText:
    """The facts in `text`: JSON lines, or one `PROMPT => TARGET`."""
    facts, start = [], 0
    for number, line in enumerate(text.split("\n"), 1):
        stop = start + len(line)
        if line.strip():
            try:
                facts.append(_fact(line, (start, stop)))
            except (UsageError, FormatError) as error:
                raise type(error)(f"{name}, line {number}: {error}") from error
        start = stop + 1
    if not facts:
        raise UsageError(f"{name} holds no fact; give a JSON object a line, or PROMPT {ARROW} TARGET")
    return FactText(name, text, tuple(facts))


def _fact(line: str, span: tuple[int, int]) -> Fact:
    if not line.lstrip().startswith("{") and ARROW in line:
        prompt, target = line.split(ARROW, 1)
        return make_fact(prompt, target, span=span)
    try:
        told = json.loads(line)
    except ValueError as error:
        raise FormatError(f"neither JSON nor PROMPT {ARROW} TARGET: {line[:60]!r}") from error
    if not isinstance(told, dict) or not {"prompt", "target"} <= told.keys() <= _KEYS:
        raise FormatError('give {"prompt", "target"} and, as you like, "subject", "paraphrases", "source"')
    others = _texts(told.get("paraphrases", []))
    given: dict[str, Any] = {k: v for k, v in told.items() if k != "paraphrases" and v is not None}
    if not all(isinstance(value, str) for value in given.values()):
        raise FormatError("prompt, target, subject and source are texts")
    return make_fact(**given, paraphrases=others, span=span)


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) and one.strip() for one in value):
        raise FormatError('"paraphrases" is a list of texts')
    return tuple(one.strip() for one in value)
