"""What a document of the teacher's own begins with, as tokens: nothing, one word, an opening, a chat turn.

Which kinds, and how often, is a mix. Knows the tokenizer; knows nothing of models.
"""

from __future__ import annotations

import random
from dataclasses import astuple, dataclass, fields

from transformers import PreTrainedTokenizerBase

from mindset.distill.openings import question, raw_opening
from mindset.errors import UsageError

__all__ = ["DocumentMix", "DocumentStarts", "usual_mix"]


@dataclass(frozen=True)
class DocumentMix:
    """How often each kind of document is begun; only the proportions count, 0 leaves a kind out."""

    plain: float = 0.0
    """Nothing but the token that begins a document."""
    word: float = 0.0
    """One token drawn evenly from the vocabulary (LLM-QAT, https://arxiv.org/abs/2305.17888)."""
    opening: float = 0.0
    """The first words of an article, story, letter, dialogue, piece of code and so on."""
    chat: float = 0.0
    """A user's question in the tokenizer's chat template."""

    def __post_init__(self) -> None:
        weights = astuple(self)
        if min(weights) < 0 or sum(weights) <= 0:
            raise UsageError(f"{self}: weights must be 0 or more, and one of them above 0")


def usual_mix(tokenizer: PreTrainedTokenizerBase) -> DocumentMix:
    """Return a mix for a chat model (one with a chat template) or for any other.

    Half of the documents of a model without chat begin with any word at all: texts that it did not write hold words
    that it would hardly ever begin with.
    """
    if tokenizer.chat_template:
        return DocumentMix(plain=1, word=1, opening=2, chat=1)
    return DocumentMix(plain=1, word=1)


class DocumentStarts:
    """Draws beginnings of documents from a mix."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, mix: DocumentMix) -> None:
        if mix.chat and not tokenizer.chat_template:
            raise UsageError(
                "chat documents were asked for, but this tokenizer has no chat template; set chat to 0"
            )
        self._tokenizer = tokenizer
        self._kinds = [field.name for field in fields(mix)]
        self._weights = astuple(mix)
        special = set(tokenizer.all_special_ids)
        self._words = sorted(set(tokenizer.get_vocab().values()) - special)
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        self._begin = None if first is None else [int(first)]

    def draw(self, rng: random.Random) -> list[int]:
        """Return the first tokens of one document; never empty."""
        kind = rng.choices(self._kinds, self._weights)[0]
        ids: list[int] = []
        if kind == "opening":
            ids = self._without_end(self._tokenizer(raw_opening(rng))["input_ids"])
        elif kind == "chat":
            ids = self._chat(question(rng))
        elif kind == "plain" and self._begin is not None:
            ids = list(self._begin)
        return ids or [rng.choice(self._words)]

    def _chat(self, asked: str) -> list[int]:
        text = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
        )
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _without_end(self, ids: list[int]) -> list[int]:
        """Drop the EOS that some tokenizers add: the document goes on."""
        return ids[:-1] if ids and ids[-1] == self._tokenizer.eos_token_id else ids
