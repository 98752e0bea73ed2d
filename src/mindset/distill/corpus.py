"""A text as tokens: tokenised once, kept as a uint32 `.npy` in a cache folder, opened as a read-only map.

The cache file's name is a digest of the text that was read (so of the range too), of the tokenizer and of
this layout; a file under its name is complete, and deleting any of them is always safe. Knows nothing of
windows or batches.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt32
from transformers import PreTrainedTokenizerBase

from mindset.atomic_file import replacing
from mindset.distill.text_source import Documents, TextSource
from mindset.errors import DataError

__all__ = ["Corpus", "load_tokens", "read_corpus", "save_tokens", "tokenizer_digest"]

_LAYOUT = "corpus-1"
_LONGEST_PIECE = 200_000  # characters tokenised at once; bounds memory on a book of many megabytes
_PIECES_AT_ONCE = 64


@dataclass(frozen=True)
class Corpus:
    """One source's tokens and what they were made from."""

    name: str
    """The source as it was given, e.g. `book.txt:60000-`."""
    tokens: UInt32[np.ndarray, " n_tokens"]
    """All documents, one after another, each ended by the tokenizer's EOS where it has one."""
    n_documents: int
    """How many documents were read."""
    n_characters: int
    """Characters of text, without what was skipped."""
    digest: str
    """Names text, range and tokenizer: equal digests, equal tokens."""
    skipped: tuple[str, ...] = ()
    """Files of a folder that were left out because they are no UTF-8 text."""


def read_corpus(source: TextSource, tokenizer: PreTrainedTokenizerBase, cache: Path) -> Corpus:
    """Read `source` and tokenise it, unless `cache` holds the tokens of the same text."""
    documents = source.documents()
    digest = _digest(documents, tokenizer)
    path = cache / f"{digest}.npy"
    tokens = load_tokens(path)
    if tokens is None:
        save_tokens(path, _tokenise(documents.texts, tokenizer))
        tokens = load_tokens(path)
    if tokens is None or not len(tokens):
        raise DataError(f"{source}: the tokenizer made no tokens of it; give other text")
    return Corpus(
        name=str(source),
        tokens=tokens,
        n_documents=len(documents.texts),
        n_characters=sum(map(len, documents.texts)),
        digest=digest,
        skipped=documents.skipped,
    )


def save_tokens(path: Path, tokens: Int[np.ndarray, ...]) -> None:
    """Write tokens as uint32 `.npy`; under its name the file is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        np.save(file, tokens.astype(np.uint32), allow_pickle=False)


def load_tokens(path: Path) -> UInt32[np.ndarray, ...] | None:
    """Map the tokens for reading; None where there are none that can be used."""
    try:
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None  # absent or damaged: a cache is made anew, never trusted
    return tokens if tokens.dtype == np.uint32 else None


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Names everything about a tokenizer that decides which ids a text becomes."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        rules: Any = sorted(tokenizer.get_vocab().items())
    else:
        rules = json.loads(fast.to_str())
        # Left behind by the last padded or truncated call, not part of the tokenizer.
        rules.update(padding=None, truncation=None)
    spelled = json.dumps([type(tokenizer).__name__, rules, tokenizer.eos_token_id, tokenizer.bos_token_id])
    return hashlib.sha256(spelled.encode()).hexdigest()


def _digest(documents: Documents, tokenizer: PreTrainedTokenizerBase) -> str:
    digest = hashlib.sha256(f"{_LAYOUT}\n{tokenizer_digest(tokenizer)}\n".encode())
    for text in documents.texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def _tokenise(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> UInt32[np.ndarray, " n_tokens"]:
    pieces = ((piece, last) for text in texts for piece, last in _pieces(text))
    ids: list[np.ndarray] = []
    while batch := list(itertools.islice(pieces, _PIECES_AT_ONCE)):
        encoded = tokenizer([piece for piece, _ in batch], add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        for piece_ids, (_, last) in zip(encoded, batch, strict=True):
            ended = last and tokenizer.eos_token_id is not None
            ids.append(
                np.asarray([*piece_ids, tokenizer.eos_token_id] if ended else piece_ids, dtype=np.uint32)
            )
    return np.concatenate(ids)


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Cut a long document where a line ends; the flag says which piece is its last."""
    start = 0
    while len(text) - start > _LONGEST_PIECE:
        newline = text.rfind("\n", start, start + _LONGEST_PIECE)
        end = start + _LONGEST_PIECE if newline < start else newline + 1
        yield text[start:end], False
        start = end
    yield text[start:], True
