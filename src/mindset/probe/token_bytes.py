"""How many UTF-8 bytes of a text each of its tokens stands for.

Bits per byte are only comparable between tokenizers if every byte is counted once. Two ways, the exact one
first:

* by spelling: a byte-level or SentencePiece-like vocabulary spells the bytes of each token; where the
  spellings, joined, are the text, their lengths are exact, also inside a character that several tokens share;
* by offsets, where the spellings are not the text (unknown characters, lowercasing, Unicode normalisation): a
  token owns what lies between the end of the token before it and its own end. So what the offsets leave out
  (spaces, characters that the tokenizer drops) belongs to the token after it, at the end of the text to the last
  token, and a character that several tokens share to the last of them.

A character that the tokenizer drops is thus counted although the model never pays for it: the figure flatters
every model over that tokenizer alike.

Does not know models or windows. Invariant: the counts of a text sum to `len(text.encode())`.
"""

from __future__ import annotations

import re

import numpy as np
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from mindset.errors import DataError, UsageError

__all__ = ["bytes_by_offsets", "bytes_by_spelling", "tokens_and_bytes"]

WORD_START = "▁"
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def tokens_and_bytes(
    text: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " tokens"]]:
    """Return the token ids of `text`, without BOS or other special tokens, and the bytes of each."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"The text has no UTF-8 bytes to count: {error}. Remove the lone surrogate."
        ) from error
    fast = bool(tokenizer.is_fast)
    encoded = tokenizer(
        text,
        add_special_tokens=False,
        return_offsets_mapping=fast,
        return_attention_mask=False,
        verbose=False,
    )
    ids = encoded["input_ids"]
    if not ids:
        raise DataError(
            f"The tokenizer makes no token of this text of {len(text)} characters; give a longer one."
        )
    n_bytes = bytes_by_spelling([str(token) for token in tokenizer.convert_ids_to_tokens(ids)], text)
    if n_bytes is None and fast:
        n_bytes = bytes_by_offsets(encoded["offset_mapping"], text)
    if n_bytes is None:
        raise UsageError(
            f"{type(tokenizer).__name__} neither spells its tokens' bytes nor knows their offsets, so bits "
            "per byte are undefined; load the fast version of this tokenizer."
        )
    return np.asarray(ids, dtype=np.int64), n_bytes


def bytes_by_spelling(tokens: list[str], text: str) -> Int[np.ndarray, " tokens"] | None:
    """Bytes of each token as its spelling says, or None where the spellings do not join to the text."""
    whole = text.encode()
    for spelled in (_byte_level(tokens), [_sentence_piece(token) for token in tokens]):
        if spelled is None:
            continue
        joined = b"".join(spelled)
        # SentencePiece puts a space before the text that is not in it; it belongs to the first token.
        dummy = int(joined == b" " + whole and joined != whole)
        if joined[dummy:] == whole:
            n_bytes = np.array([len(piece) for piece in spelled], dtype=np.int64)
            n_bytes[0] -= dummy
            return n_bytes
    return None


def bytes_by_offsets(offsets: list[tuple[int, int]], text: str) -> Int[np.ndarray, " tokens"]:
    """Bytes between each token's end and the end of the token before it, as the module docstring says."""
    starts, ends = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    empty = starts >= ends
    ends = np.maximum.accumulate(ends)
    starts = np.where(empty, ends, starts)
    # A token ends no later than the next one starts: the space put before a text claims its first character.
    cuts = np.maximum.accumulate(np.minimum(ends[:-1], starts[1:]))
    return np.diff(_bytes_before(text)[np.append(cuts, len(text))], prepend=0)


def _bytes_before(text: str) -> Int[np.ndarray, " positions"]:
    points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    width = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(width, dtype=np.int64)])


def _byte_level(tokens: list[str]) -> list[bytes] | None:
    alphabet = _byte_level_alphabet()
    try:
        return [bytes(alphabet[character] for character in token) for token in tokens]
    except KeyError:
        return None


def _byte_level_alphabet() -> dict[str, int]:
    """Map GPT-2's stand-ins to their bytes: itself where printable, else the next character from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


def _sentence_piece(token: str) -> bytes:
    single = BYTE_TOKEN.fullmatch(token)
    return bytes([int(single[1], 16)]) if single else token.replace(WORD_START, " ").encode()
