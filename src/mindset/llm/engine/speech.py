"""What one text says, as it may be told: no half character, nothing that may turn out to be the beginning of a stop.

The text ends before a stop. Of stops that overlap the one that is complete first counts, so where a text ends does not
depend on how it falls into tokens. Knows no model. Invariant: what was told, joined, is the text up to its end.
"""

from __future__ import annotations

from collections.abc import Sequence

from mindset.graft.decoding import Detokenizer
from mindset.llm.events import TextPiece, Token

__all__ = ["Speech"]


class Speech:
    """The words of one answer."""

    def __init__(self, words: Detokenizer, stops: Sequence[str] = ()) -> None:
        self._words, self._stops = words, tuple(stops)
        self._held = ""
        """Text that is certain, but may belong to a stop."""
        self._told = 0
        """Characters that were told."""
        self._tokens: list[tuple[int, Token]] = []
        """Tokens that are not told yet, and the character that each begins with."""
        self._stopped = False

    def push(self, id: int, token: Token | None = None) -> TextPiece | None:  # noqa: A002  as events call it
        """One more token, told of where `token` is given; what can be told now."""
        if token is not None:
            self._tokens.append((self._told + len(self._held), token))
        return self._more(self._words.push(id))

    def end(self) -> TextPiece | None:
        """What is left to be told, once nothing comes any more."""
        if self._stopped:
            return None
        last = [self._more(self._words.rest())]
        if not self.has_stopped():
            last.append(self._tell(len(self._held), everything=True))
        pieces = [piece for piece in last if piece is not None]
        tokens = tuple(token for piece in pieces for token in piece.tokens)
        return TextPiece("".join(piece.text for piece in pieces), tokens) if pieces else None

    def has_stopped(self) -> bool:
        """Whether a stop has ended the text."""
        return self._stopped

    def _more(self, text: str) -> TextPiece | None:
        before, self._held = len(self._held), self._held + text
        found = [
            (place + len(stop), place)
            for stop in self._stops
            if (place := self._held.find(stop, max(0, before - len(stop) + 1))) >= 0
        ]
        if found:
            self._stopped = True
            return self._tell(min(found)[1])
        return self._tell(len(self._held) - self._begun())

    def _begun(self) -> int:
        """How many characters at the end may be the beginning of a stop."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for count in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-count:]) for stop in self._stops):
                return count
        return 0

    def _tell(self, characters: int, *, everything: bool = False) -> TextPiece | None:
        text, self._held = self._held[:characters], self._held[characters:]
        self._told += len(text)
        tokens = [token for start, token in self._tokens if everything or start < self._told]
        self._tokens = self._tokens[len(tokens) :]
        return TextPiece(text, tuple(tokens)) if text or tokens else None
