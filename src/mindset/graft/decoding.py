"""What every way of continuing a text token by token needs: where it ends, which token comes next, what it says.

A character may be spread over several tokens, and what SentencePiece makes of a word depends on the one before: a
`Detokenizer` gives a piece of text once no later token can change it. Invariant: its pieces, joined, are what the
tokens decode to behind those before them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mindset.errors import UsageError

__all__ = [
    "Detokenizer",
    "cache_name",
    "checked_length",
    "context_length",
    "decoded_pieces",
    "draw",
    "end_tokens",
    "only_last",
    "spelled",
    "text_of",
]

CONTEXT = 8
"""Tokens before a piece that are decoded with it: what SentencePiece makes of a word depends on the one before."""
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


# ---- models ---------------------------------------------------------------------------------------------------
def cache_name(model: PreTrainedModel) -> str:
    """Name the cache as this model does: transformers 5.24 renamed it and deprecates the old name."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def only_last(model: PreTrainedModel) -> dict[str, Any]:
    """Ask for the last position's logits alone where the model can be asked: a long prompt's would fill the RAM."""
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}


def context_length(model: PreTrainedModel) -> int:
    """Most tokens that the model has positions for; models that name none read any number."""
    config = model.config.get_text_config()
    named = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return int(named or sys.maxsize)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens after which a model has said all."""
    named = getattr(model.generation_config, "eos_token_id", None)
    if named is None:
        named = tokenizer.eos_token_id
    if named is None:
        return frozenset()
    return frozenset([named] if isinstance(named, int) else named)


def checked_length(ids: Sequence[int], longest: int) -> None:
    """Refuse a prompt that is empty, or leaves no room for one more token."""
    if not ids:
        raise UsageError(
            "the prompt is empty and this tokenizer begins a text with nothing; give a word to start from"
        )
    if len(ids) >= longest:
        raise UsageError(
            f"the prompt has {len(ids)} tokens, but the model reads {longest} with its answer; shorten it"
        )


def draw(logits: Float[Tensor, " vocab"], temperature: float, generator: torch.Generator) -> int:
    """The next token: the likeliest at temperature 0, above it one that `generator` draws."""
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))


# ---- text -----------------------------------------------------------------------------------------------------
class Detokenizer:
    """The text of tokens that come one after the other."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, before: Sequence[int] = ()) -> None:
        """`before`: the tokens that the text goes on from."""
        self._tokenizer = tokenizer
        self._ids = list(before[-CONTEXT:])
        self._start, self._told = 0, len(self._ids)

    def push(self, token: int) -> str:
        """What is certain now and was not before; often all of the token, and nothing within a character."""
        self._ids.append(token)
        more = self._beyond()
        if not more or more.endswith(UNFINISHED):
            return ""
        self._start, self._told = max(self._start, len(self._ids) - CONTEXT), len(self._ids)
        return more

    def rest(self) -> str:
        """What is still uncertain, as it would stand if nothing came after it."""
        more = self._beyond()
        self._told = len(self._ids)
        return more

    def _beyond(self) -> str:
        """The text behind what was told."""
        before = text_of(self._tokenizer, self._ids[self._start : self._told])
        return text_of(self._tokenizer, self._ids[self._start :])[len(before) :]


def decoded_pieces(
    tokenizer: PreTrainedTokenizerBase, prompt: list[int], tokens: Iterable[int]
) -> Iterator[str]:
    """Yield the text of `tokens` after `prompt`, each piece as soon as no later token can change it."""
    text = Detokenizer(tokenizer, prompt)
    for token in tokens:
        if piece := text.push(token):
            yield piece
    if rest := text.rest():
        yield rest


def text_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Tokens as text, without the special ones."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text)


def spelled(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """A token's own text; where it is part of a character, as the vocabulary spells it."""
    text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
    written = str(tokenizer.convert_ids_to_tokens(token))
    if not text or UNFINISHED in text:
        return written
    # SentencePiece drops the space before a word that begins a text.
    return f" {text}" if written.startswith("▁") and not text.startswith(" ") else text
