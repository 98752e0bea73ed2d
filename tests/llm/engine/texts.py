"""Tiny models with what they say, alone and in an engine."""

from __future__ import annotations

import torch
from graft.tiny import VOCAB, tiny_model
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mindset.graft.convert import build_student
from mindset.graft.plan import ConversionPlan
from mindset.llm.engine.batch import Batch, BatchSettings
from mindset.llm.engine.grammar import Grammars
from mindset.llm.engine.job import Job
from mindset.llm.engine.row import Row
from mindset.llm.events import Finished, TextPiece, Token
from mindset.llm.request import Options
from mindset.probe.generate import next_tokens

LONGEST = 128


def words() -> PreTrainedTokenizerFast:
    """One letter a token, so that the text shows the tokens; 2 ends a text."""
    letters = {chr(97 + i) if i < 26 else chr(65 + i - 26): i for i in range(VOCAB)}
    backend = Tokenizer(models.BPE(letters, []))
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="c")


def model_of(family: str, seed: int = 0) -> PreTrainedModel:
    """A tiny model; `student` is a Llama whose memory reads six slots."""
    if family == "student":
        return build_student(tiny_model("llama", seed=seed), ConversionPlan(k=6))
    return tiny_model(family, seed=seed)


class Told:
    """What an engine told of one text."""

    def __init__(self) -> None:
        self.pieces: list[TextPiece] = []
        self.last: Finished | Exception | None = None

    def __call__(self, told: TextPiece | Finished | Exception) -> None:
        assert self.last is None, "nothing comes after the last"
        if isinstance(told, TextPiece):
            self.pieces.append(told)
        else:
            self.last = told

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def tokens(self) -> list[Token]:
        return [token for piece in self.pieces for token in piece.tokens]

    @property
    def reason(self) -> str:
        assert isinstance(self.last, Finished), self.last
        return self.last.reason


def alone(
    model: PreTrainedModel, ids: list[int], options: Options, ends: frozenset[int] = frozenset([2])
) -> list[int]:
    """The tokens of the plain loop."""
    return list(
        next_tokens(
            model,
            torch.tensor(ids),
            min(options.max_tokens or LONGEST, LONGEST - len(ids)),
            temperature=options.temperature or 0.0,
            seed=options.seed or 0,
            stops=ends,
        )
    )


def spelled(tokens: list[int]) -> str:
    return "".join(chr(97 + i) if i < 26 else chr(65 + i - 26) for i in tokens)


def batch_of(model: PreTrainedModel, **settings: int) -> Batch:
    return Batch(model, Grammars(words(), VOCAB, frozenset([2])), BatchSettings(**settings))


def row_of(ids: list[int], options: Options, told: Told) -> Row:
    return Row(Job(tuple(ids), told, options), words(), frozenset([2]), LONGEST)
