"""From what a person names to a mixture: `self`, `stdlib`, files and folders with their weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mindset.distill.corpus import read_corpus
from mindset.distill.mixture import SELF, DataItem, Mixture, Stream
from mindset.distill.self_samples import SampleSettings, SelfSamples
from mindset.distill.text_source import TextSource
from mindset.distill.token_stream import TokenStream
from mindset.errors import UsageError

__all__ = ["open_mixture"]


def open_mixture(
    items: Sequence[DataItem],
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch: int,
    seq_len: int,
    seed: int,
    cache: Path,
    teacher: PreTrainedModel | None = None,
    teacher_digest: str | None = None,
    samples: SampleSettings | None = None,
    limit_samples: int | None = None,
    on_drawn: Callable[[int], None] | None = None,
) -> Mixture:
    """Read and tokenise every text, and stand ready to draw from `teacher` where `self` is among the items.

    `samples` defaults to rows of one window and the run's seed; `cache` holds tokens and samples for later runs.
    """

    def opened(item: DataItem) -> Stream:
        if item.source != SELF:
            corpus = read_corpus(TextSource.parse(item.source), tokenizer, cache / "corpus")
            return TokenStream(corpus, seq_len, seed=seed)
        if teacher is None:
            raise UsageError("data: self needs the teacher, to draw samples from; give it or leave self out")
        return SelfSamples(
            teacher,
            tokenizer,
            samples or SampleSettings(length=seq_len, seed=seed),
            seq_len=seq_len,
            cache=cache,
            teacher_digest=teacher_digest,
            limit_tokens=limit_samples,
            on_drawn=on_drawn,
        )

    return Mixture([(opened(item), item.weight) for item in items], batch=batch)
