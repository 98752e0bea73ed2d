"""Why a word came: how probable it was, what could have come instead, and the slots of a memory that spoke for it.

Reads tokens as an answer brings them. Does not know a terminal, a client or a store.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mindset.cli.chat.lines import harmless
from mindset.errors import MissingError
from mindset.llm.events import Read, Token

__all__ = ["chosen", "least_sure", "told"]

SHOWN = 10


def chosen(tokens: Sequence[Token], which: str) -> list[int]:
    """Places of the tokens that `which` names: a number from 1, or a word of the answer, or a part of it."""
    if which.isdecimal():
        if not 1 <= int(which) <= len(tokens):
            raise MissingError(f"the answer has tokens 1 to {len(tokens)}; {which} is none of them")
        return [int(which) - 1]
    text = "".join(token.text for token in tokens)
    start = text.find(which)
    if start < 0:
        start = text.lower().find(which.lower())
    if start < 0:
        raise MissingError(f"{which!r} is not in the last answer")
    ends, at = [], 0
    for token in tokens:
        at += len(token.text)
        ends.append(at)
    return [
        place
        for place, end in enumerate(ends)
        if end > start and end - len(tokens[place].text) < start + len(which)
    ]


def least_sure(tokens: Sequence[Token], shown: int = SHOWN) -> list[int]:
    """Places of the tokens that were least probable, in the order of the answer."""
    known = [place for place, token in enumerate(tokens) if token.logprob is not None]
    return sorted(sorted(known, key=lambda place: tokens[place].logprob or 0.0)[:shown])


def told(tokens: Sequence[Token], place: int) -> tuple[str, str, str, str]:
    """Number, token, probability, and what could have come instead."""
    token = tokens[place]
    instead = ", ".join(
        f"{quoted(other.text)} {percent(other.logprob)}"
        for other in token.alternatives
        if (other.text, other.id) != (token.text, token.id)
    )
    return str(place + 1), quoted(token.text), percent(token.logprob), instead


def slots(token: Token) -> list[str]:
    """The slots that spoke most for a token, a line each."""
    return [_slot(read) for read in token.reads]


def quoted(text: str) -> str:
    """A token's text, so that blanks can be seen."""
    return "'" + harmless(text).replace("\n", "\\n").replace("\t", "\\t") + "'"


def percent(logprob: float | None) -> str:
    """A probability as people read it."""
    if logprob is None:
        return "-"
    share = 100 * math.exp(min(logprob, 0.0))
    return f"{share:.0f}%" if share >= 1 else f"{share:.1g}%"


def _slot(read: Read) -> str:
    whose = f"overlay {read.overlay}" if read.overlay else "the model's own"
    return f"layer {read.layer}, slot {read.slot} ({whose}), influence {read.influence:.3g}"
