"""A text cut into the windows of evaluation protocol bpb-1.

Non-overlapping windows of `length` tokens, no BOS added. The first token of each window is unscored, since
nothing comes before it, and its bytes are left out. The last, shorter window is kept if it has at least two
tokens; a single token left over is dropped with its bytes, as it would score nothing.

Does not know models: a window is token ids, and bytes to divide by. Invariant: bytes scored + bytes of first
tokens + bytes of a dropped token = the text's UTF-8 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mindset.errors import DataError, UsageError
from mindset.probe.token_bytes import tokens_and_bytes

__all__ = ["WindowBatch", "Windows"]

PAD = 0


@dataclass(frozen=True, eq=False)
class WindowBatch:
    """Some windows side by side, padded on the right."""

    first: int
    """Index of the first of these windows among all windows."""
    input_ids: Int[Tensor, "batch pos"]
    """Token ids; 0 where padded."""
    attention_mask: Int[Tensor, "batch pos"]
    """1 for a token, 0 for padding."""
    scored: Bool[Tensor, "batch pos"]
    """True for every token but the first of each window and the padding."""

    @property
    def predicting(self) -> Bool[Tensor, "batch pos"]:
        """The positions whose output predicts a scored token: each one before it."""
        return torch.nn.functional.pad(self.scored[:, 1:], (0, 1))

    @property
    def targets(self) -> Int[Tensor, " scored"]:
        """The scored tokens, window after window."""
        return self.input_ids[self.scored]

    @property
    def window_of(self) -> Int[Tensor, " scored"]:
        """For each scored token the index of its window in this batch."""
        return self.scored.nonzero()[:, 0]

    def to(self, device: torch.device | str) -> WindowBatch:
        """Return the same batch on another device."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            scored=self.scored.to(device),
        )


@dataclass(frozen=True, eq=False)
class Windows:
    """Non-overlapping windows over one text."""

    ids: Int[np.ndarray, " tokens"]
    """Token ids of the text, windows one after the other."""
    token_bytes: Int[np.ndarray, " tokens"]
    """UTF-8 bytes that each token stands for."""
    length: int = 512
    """Tokens in a window, at least 2: 256 for tinystories, 512 for other texts under bpb-1."""

    def __post_init__(self) -> None:
        if self.length < 2:
            raise UsageError(f"A window of {self.length} tokens scores nothing; give a length of at least 2.")
        if len(self.ids) != len(self.token_bytes):
            raise UsageError(f"{len(self.ids)} token ids do not go with {len(self.token_bytes)} byte counts.")
        if len(self.ids) < 2:
            raise DataError(
                f"A text of {len(self.ids)} token(s) has nothing to score; give at least 2 tokens."
            )

    @classmethod
    def of(cls, text: str, tokenizer: PreTrainedTokenizerBase, length: int = 512) -> Windows:
        """Cut `text` into windows under `tokenizer`."""
        ids, token_bytes = tokens_and_bytes(text, tokenizer)
        return cls(ids, token_bytes, length)

    def __len__(self) -> int:
        return len(self._spans)

    def first(self, n: int) -> Windows:
        """Keep the first `n` windows only, for a quick look."""
        if n < 1:
            raise UsageError(f"{n} windows were asked for; give at least 1.")
        end = n * self.length
        return replace(self, ids=self.ids[:end], token_bytes=self.token_bytes[:end])

    @property
    def n_tokens(self) -> Int[np.ndarray, " windows"]:
        """Scored tokens of each window."""
        return np.array([stop - start - 1 for start, stop in self._spans], dtype=np.int64)

    @property
    def n_bytes(self) -> Int[np.ndarray, " windows"]:
        """UTF-8 bytes of the scored tokens of each window."""
        return np.array(
            [self.token_bytes[start + 1 : stop].sum() for start, stop in self._spans], dtype=np.int64
        )

    def batches(self, batch_tokens: int = 2048) -> Iterator[WindowBatch]:
        """All windows in order, as many at once as fit into `batch_tokens`, at least one."""
        at_once = max(1, batch_tokens // self.length)
        for first in range(0, len(self), at_once):
            yield self._batch(first, self._spans[first : first + at_once])

    @property
    def _spans(self) -> list[tuple[int, int]]:
        starts = range(0, len(self.ids) - 1, self.length)
        return [(start, min(start + self.length, len(self.ids))) for start in starts]

    def _batch(self, first: int, spans: list[tuple[int, int]]) -> WindowBatch:
        width = max(stop - start for start, stop in spans)
        input_ids = torch.full((len(spans), width), PAD, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        for row, (start, stop) in enumerate(spans):
            input_ids[row, : stop - start] = torch.from_numpy(self.ids[start:stop])
            attention_mask[row, : stop - start] = 1
        scored = attention_mask.bool()
        scored[:, 0] = False
        return WindowBatch(first, input_ids, attention_mask, scored)
