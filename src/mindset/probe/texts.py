"""Which text protocol bpb-1 scores, and which it leaves for training.

Two tables of ranges, in characters. The scored text and the text to train on are disjoint. One text ships
with Python (`pydoc_data.topics`, which differs a little between Python versions); the others lie in a folder
of shared data that the user names, since the library guesses no paths. Of the pydoc topics only the first
60,000 characters are scored, and the rest is kept out of training unless asked for: the demonstration's claim
is held-out text on *pydoc topics*, and the rest is the same kind of text by the same authors.

Does not know tokenizers beyond the window length. Invariant: a range names the same characters on every
machine that has the same file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mindset.errors import MissingError

__all__ = ["SCORED", "TRAINING", "TextRange", "find_shared", "scored_texts", "training_texts"]

SHARED_VARIABLE = "MINDSET_SHARED"


@dataclass(frozen=True)
class TextRange:
    """Part of a text."""

    name: str
    """Short name, as reports and benchmarks print it."""
    file: str | None
    """Path in the shared data; `*` matches several files; None: the pydoc topics that ship with Python."""
    start: int = 0
    """First character."""
    stop: int | None = None
    """Character after the last; None: to the end."""
    window: int = 512
    """Tokens in a window when scored."""
    by_default: bool = True
    """Whether it is used when nothing is said."""
    without: str | None = None
    """A file that `file` matches and that is left out."""

    def read(self, shared: Path | None = None) -> str:
        """Return the characters of this range; `shared` is the folder that `find_shared` finds."""
        return "\n".join(text[self.start : self.stop] for text in self._whole(shared))

    def is_there(self, shared: Path | None) -> bool:
        """Whether this range can be read from `shared`, None meaning that there is no shared data."""
        return self.file is None or bool(self._files(shared))

    def _whole(self, shared: Path | None) -> list[str]:
        if self.file is None:
            return [pydoc_topics()]
        files = self._files(shared)
        if not files:
            raise MissingError(
                f"The text {self.name} is {self.file} in the shared data, looked for in {shared}; "
                f"set {SHARED_VARIABLE} to the folder that holds it, or use the text pydoc_topics."
            )
        # Bytes first: reading as text would turn \r\n into \n and so change the count of bytes.
        return [file.read_bytes().decode() for file in files]

    def _files(self, shared: Path | None) -> list[Path]:
        if shared is None or self.file is None:
            return []
        left_out = shared / self.without if self.without else None
        return [file for file in sorted(shared.glob(self.file)) if file != left_out]


SCORED: tuple[TextRange, ...] = (
    TextRange("tinystories", "text/tinystories.txt", stop=60_000, window=256),
    TextRange("wikitext2", "text/wikitext2-valid.txt", stop=60_000),
    TextRange("cool_air", "text/lovecraft/cool_air.txt"),
    TextRange("pydoc_topics", None, stop=60_000),
)

TRAINING: tuple[TextRange, ...] = (
    TextRange("tinystories", "text/tinystories.txt", start=60_000),
    TextRange("wikitext2", "text/wikitext2-valid.txt", start=100_000),
    TextRange("lovecraft", "text/lovecraft/*.txt", without="text/lovecraft/cool_air.txt"),
    TextRange("pydoc_topics", None, start=60_000, by_default=False),
)


def scored_texts(shared: Path | None = None) -> list[TextRange]:
    """List what can be scored here: the pydoc topics, and with shared data the others."""
    return [text for text in SCORED if text.by_default and text.is_there(shared)]


def training_texts(shared: Path | None = None) -> list[TextRange]:
    """List what may be trained on by default and is there."""
    return [text for text in TRAINING if text.by_default and text.is_there(shared)]


def find_shared(*places: Path, environment: Mapping[str, str] | None = None) -> Path | None:
    """Find the shared data folder (the one that holds `text/`), or None.

    `MINDSET_SHARED` names it or the folder above it; only where that is not set, `places` are tried in turn.
    """
    named = (os.environ if environment is None else environment).get(SHARED_VARIABLE)
    for place in (Path(named),) if named else places:
        for folder in (place / "data", place):
            if (folder / "text").is_dir():
                return folder.resolve()
    return None


def pydoc_topics() -> str:
    """Join the texts behind Python's `help("topics")` by name, with line breaks between."""
    # Imported here: half a megabyte of text that most callers do not need.
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))
