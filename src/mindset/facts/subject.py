"""Whom a prompt is about, where its writer did not say.

The longest name in it: a run of words with a capital or a leading digit, small words such as "of" inside a run
included, without a leading article or question word. A prompt without names is about the last word that carries
meaning. Knows no model, so the answer is the same for all.
"""

from __future__ import annotations

import re

from mindset.errors import UsageError

__all__ = ["find_subject"]

_LINKS = frozenset(
    {"of", "the", "and", "de", "la", "le", "du", "des", "da", "di", "del", "van", "von", "der", "den", "bin", "ibn",
     "al", "el", "for", "on", "in", "to", "&", "at"}
)  # fmt: skip
"""Small words that may stand inside a name."""
_OPENERS = frozenset(
    {"the", "a", "an", "in", "on", "at", "by", "for", "from", "to", "of", "what", "where", "which", "who", "whom",
     "whose", "when", "how", "why", "it", "its", "they", "their", "he", "she", "his", "her", "this", "that", "these",
     "those", "is", "are", "was", "were", "as", "and", "but", "with", "after", "before", "during"}
)  # fmt: skip
"""Words that begin sentences more often than names."""
_SMALL = _OPENERS | _LINKS | frozenset(
    {"be", "been", "has", "have", "had", "does", "do", "did", "located", "found", "known", "called", "named", "born",
     "created", "made", "used", "uses", "not"}
)  # fmt: skip
_WORD = re.compile(r"[^\s,;:!?\"()]+")


def find_subject(prompt: str) -> str:
    """The part of `prompt` that it is most likely about."""
    words = [(match.start(), match.end()) for match in _WORD.finditer(prompt)]
    runs = _runs(prompt, words)
    if runs:
        start, stop = max(runs, key=lambda run: (run[1] - run[0], -run[0]))
        return _without_possessive(prompt[start:stop])
    meaning = [(a, b) for a, b in words if prompt[a:b].lower().strip(".'") not in _SMALL]
    if not meaning:
        raise UsageError(f"no subject found in {prompt!r}; give it with the fact")
    return _without_possessive(prompt[slice(*meaning[-1])])


def _runs(prompt: str, words: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans of names."""
    runs: list[tuple[int, int]] = []
    current: list[tuple[int, int]] = []
    for index, (start, stop) in enumerate([*words, (len(prompt), len(prompt))]):
        word = prompt[start:stop]
        joined = bool(current) and prompt[current[-1][1] : start].strip() in ("", ",")
        apart = bool(current) and prompt[current[-1][1] : start].strip() != ""
        named = word[:1].isdigit() or any(letter.isupper() for letter in word)
        if named and word.lower() in _OPENERS and (index == 0 or not current):
            named = False
        if current and (apart or not joined or not (named or word.lower() in _LINKS)):
            runs += _trimmed(prompt, current)
            current = []
        if named or (current and word.lower() in _LINKS):
            current.append((start, stop))
    return runs


def _trimmed(prompt: str, run: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """A run without the small words at its end."""
    while run and prompt[slice(*run[-1])].lower() in _LINKS:
        run = run[:-1]
    return [(run[0][0], run[-1][1])] if run else []


def _without_possessive(name: str) -> str:
    return re.sub(r"['\N{RIGHT SINGLE QUOTATION MARK}]s?$", "", name.rstrip("."))
