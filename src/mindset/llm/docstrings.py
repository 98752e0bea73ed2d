"""A docstring as what a function does, and what each of its parameters means.

Knows Google's sections (`Args:`), NumPy's (`Parameters` underlined) and Sphinx's fields (`:param x:`). What stands
under other sections, such as what is returned or raised, is left out.
"""

from __future__ import annotations

import re
from textwrap import dedent

__all__ = ["described"]

_SECTION = re.compile(
    r"^(Args|Arguments|Parameters|Params|Returns?|Raises|Yields?|Examples?|Notes?|See Also|References|Warnings?)"
    r":?[ \t]*(?:\n[-=]{3,}[ \t]*)?$",
    re.MULTILINE,
)
_PARAMETERS = ("Args", "Arguments", "Parameters", "Params")
_FIELD = re.compile(r"^:(\w+)(?:[ \t]+[^:\n]*?)?([\w]*)[ \t]*:[ \t]*(.*(?:\n[ \t]+.*)*)", re.MULTILINE)
_ITEM = re.compile(r"^\*{0,2}(\w+)[ \t]*(?:\([^)\n]*\))?[ \t]*:[ \t]*(.*(?:\n(?:[ \t]+.*)?)*)", re.MULTILINE)


def described(text: str) -> tuple[str, dict[str, str]]:
    """The description, and the words on each parameter by its name; of a docstring without its indentation."""
    words: dict[str, str] = {}
    for match in _FIELD.finditer(text):
        kind, name, said = match.groups()
        if kind in ("param", "parameter", "arg", "argument"):
            words[name] = _flat(said)
    text = _FIELD.sub("", text)
    found = list(_SECTION.finditer(text))
    for place, match in enumerate(found):
        end = found[place + 1].start() if place + 1 < len(found) else len(text)
        if match[1] in _PARAMETERS:
            words |= _items(text[match.end() : end], underlined="\n" in match[0])
    return (text[: found[0].start()] if found else text).strip(), words


def _items(section: str, *, underlined: bool) -> dict[str, str]:
    section = dedent(section).strip("\n")
    if underlined:  # NumPy's: `name : type` on one line, its words below
        parts = re.split(r"^(\w+)[ \t]*(?::.*)?$", section, flags=re.MULTILINE)
        return {name: _flat(said) for name, said in zip(parts[1::2], parts[2::2], strict=True)}
    return {match[1]: _flat(match[2]) for match in _ITEM.finditer(section)}


def _flat(text: str) -> str:
    return " ".join(text.split())
