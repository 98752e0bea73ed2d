"""What one bank reads, on its way to the counters: rows of chosen slots are kept and tallied many tokens at once.

Every path of a bank tells the same: the masked one the weights of all slots, zeros where none was read; the gathered
one the chosen slots; the compiled one too, as numpy views of its scratch, which are copied here. Between decoding
steps every line of Python counts, so `one` does two copies and no more.

Influence is abs(weight) times the length of the value as it was when counting began; a featural or associative
value's in its head. Knows no files.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64, Shaped
from torch import Tensor

from mindset.store.tally import BankTally

__all__ = ["Pass", "ReadLog"]

ROWS = 256
"""Tokens that are kept before they are tallied."""
_BLOCK = 1 << 22
"""Numbers in one block of a dense tally."""


class Pass:
    """The pass of the model that is running, shared by the logs of its banks."""

    def __init__(self) -> None:
        self.running = False
        """Reads outside a pass are somebody's who only looks."""
        self.kept: np.ndarray | None = None
        """Of its tokens those that are no padding; None: all."""


class ReadLog:
    """The log of one bank."""

    def __init__(
        self, places: int, heads: int, norms: Float[Tensor, " places"], decay: float, now: Pass
    ) -> None:
        self.tally = BankTally(places, decay)
        self.norms = norms.detach().double().cpu().numpy()
        self.per_head = places // heads
        self.now, self.at = now, 0
        """`at`: how many tokens of this pass were read."""
        self._filled = 0
        self._lock = threading.Lock()
        self._make_room(0)

    @property
    def tokens(self) -> int:
        """Counted so far."""
        return self.tally.tokens + self._filled

    # ---- what the paths tell --------------------------------------------------------------------------------

    def one(self, slots: Int64[np.ndarray, " k"], weights: Shaped[np.ndarray, " places"]) -> None:
        """One token: the chosen slots, and a weight for every place, of which only theirs mean anything."""
        if not self.now.running or not self._counts(1):
            return
        with self._lock:
            if self._filled == ROWS:
                self._drain()
            if len(slots) != self._slots.shape[1]:
                self._drain()
                self._make_room(len(slots))
            row = self._filled
            self._slots[row] = slots
            self._weights[row] = weights[slots]
            self._filled = row + 1

    def few(self, slots: Int[Tensor, "tokens k"], weights: Float[Tensor, "tokens k"]) -> None:
        """A few tokens: the chosen slots and their weights."""
        every = np.zeros(len(self.norms))
        for chosen, weight in zip(slots.cpu().numpy(), weights.detach().double().cpu().numpy(), strict=True):
            every[chosen] = weight
            self.one(chosen, every)

    @torch.no_grad()
    def many(self, weights: Float[Tensor, "tokens places"], *, all_read: bool) -> None:
        """Many tokens: the weights of all places, 0 where a slot was not read."""
        if not self.now.running:
            return
        with self._lock:
            self._drain()
            kept = self._kept(len(weights))
            times = self.tally.tokens + kept.cumsum()
            self.tally.tokens += int(kept.sum())
            if all_read:
                self._dense(weights, times, kept)
                return
            tokens, places = (axis.cpu().numpy() for axis in weights.nonzero(as_tuple=True))
            weight = weights[weights != 0].double().cpu().numpy()
            some = kept[tokens]
            self._add(times[tokens[some]], places[some], weight[some])

    # ---- tallying -------------------------------------------------------------------------------------------

    def drain(self) -> BankTally:
        """The tally with all that was told so far."""
        with self._lock:
            self._drain()
            return self.tally

    def _drain(self) -> None:
        filled, self._filled = self._filled, 0
        if not filled:
            return
        slots, weights = self._slots[:filled], self._weights[:filled]
        times = self.tally.tokens + np.arange(1, filled + 1)
        self.tally.tokens += filled
        read = weights != 0
        self._add(np.repeat(times, read.sum(1)), slots[read], weights[read])

    def _add(
        self,
        times: Int64[np.ndarray, " reads"],
        places: Int64[np.ndarray, " reads"],
        weights: Float64[np.ndarray, " reads"],
    ) -> None:
        self.tally.add(times, places // self.per_head, places, np.abs(weights) * self.norms[places])

    def _dense(
        self,
        weights: Float[Tensor, "tokens places"],
        times: Int64[np.ndarray, " tokens"],
        kept: Shaped[np.ndarray, " tokens"],
    ) -> None:
        block = max(1, _BLOCK // len(self.norms))
        for start in range(0, len(weights), block):
            some = kept[start : start + block]
            influence = weights[start : start + block].abs().double().cpu().numpy()[some] * self.norms
            self.tally.add_dense(times[start : start + block][some], influence)

    def _counts(self, tokens: int) -> bool:
        """Whether the next token of this pass is one to count; moves on behind it."""
        kept, at = self.now.kept, self.at
        self.at = at + tokens
        return kept is None or bool(kept[at])

    def _kept(self, tokens: int) -> Shaped[np.ndarray, " tokens"]:
        kept, at = self.now.kept, self.at
        self.at = at + tokens
        return np.ones(tokens, bool) if kept is None else kept[at : at + tokens]

    def _make_room(self, k: int) -> None:
        self._slots = np.zeros((ROWS, k), np.int64)
        self._weights = np.zeros((ROWS, k))
