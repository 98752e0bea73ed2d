"""Windows of a corpus in a shuffled order, epoch after epoch, from any point on.

An epoch gives every window once; its first window starts at a place of the epoch's own, and the tokens are a ring,
so that a text read twice is not cut in the same places twice. The order is a function of the named seed and the
epoch alone: (epoch, position) is all the state there is.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from mindset.distill.corpus import Corpus
from mindset.distill.seeds import named_seed
from mindset.errors import DataError, RunMismatchError, UsageError

__all__ = ["TokenStream"]


class TokenStream:
    """Rows of `seq_len` tokens from one corpus."""

    def __init__(self, corpus: Corpus, seq_len: int, *, seed: int) -> None:
        if seq_len < 2:
            raise UsageError(f"seq_len {seq_len}: a window needs 2 tokens, one to read and one to predict")
        self.corpus = corpus
        self.name = corpus.name
        self.digest = corpus.digest
        self.skipped = corpus.skipped
        self.seq_len = seq_len
        self.n_windows = len(corpus.tokens) // seq_len
        if self.n_windows == 0:
            raise DataError(
                f"{corpus.name}: {len(corpus.tokens):,} tokens, fewer than one window of {seq_len}; "
                "give more text or shorter windows"
            )
        self._seed = seed
        self._epoch = 0
        self._position = 0
        self._begin_epoch()

    @property
    def n_tokens(self) -> int:
        """Tokens there are."""
        return len(self.corpus.tokens)

    @property
    def tokens_seen(self) -> int:
        """Tokens given so far, repeats included."""
        return (self._epoch * self.n_windows + self._position) * self.seq_len

    @property
    def distinct_tokens(self) -> int:
        """Different tokens given so far: all of them once the first epoch is over."""
        return self.n_tokens if self._epoch else self.tokens_seen

    @property
    def passes(self) -> float:
        """How often the text was gone through."""
        return self._epoch + self._position / self.n_windows

    def take(self, n_rows: int) -> Int64[np.ndarray, "rows pos"]:
        """Return the next rows; goes over into the next epoch where this one ends."""
        rows = np.empty((n_rows, self.seq_len), dtype=np.int64)
        for row in rows:
            if self._position == self.n_windows:
                self._epoch, self._position = self._epoch + 1, 0
                self._begin_epoch()
            row[:] = self._window(int(self._order[self._position]))
            self._position += 1
        return rows

    def state(self) -> dict[str, int]:
        """Where the stream stands; JSON."""
        return {"epoch": self._epoch, "position": self._position}

    def restore(self, state: dict[str, int]) -> None:
        """Stand where `state` says: what is taken next is what would have been taken then."""
        epoch, position = state["epoch"], state["position"]
        if epoch < 0 or not 0 <= position <= self.n_windows:
            raise RunMismatchError(
                f"{self.name}: position {position} of epoch {epoch} was saved, of {self.n_windows} windows; "
                "resume with the text that the run began with"
            )
        self._epoch, self._position = epoch, position
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        generator = np.random.default_rng(named_seed(self._seed, "windows", self.digest, self._epoch))
        self._first = int(generator.integers(self.n_tokens))
        self._order = generator.permutation(self.n_windows)

    def _window(self, index: int) -> Int64[np.ndarray, " pos"]:
        start = (self._first + index * self.seq_len) % self.n_tokens
        window = np.asarray(self.corpus.tokens[start : start + self.seq_len], dtype=np.int64)
        missing = self.seq_len - len(window)
        return (
            window if not missing else np.concatenate([window, self.corpus.tokens[:missing].astype(np.int64)])
        )
