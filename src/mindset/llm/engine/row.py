"""One text that is being continued: what it has, what it says, and when it is over.

Knows neither the model nor the others. Invariant: after `Finished`, or an error, nothing more is delivered.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mindset.calls.call import Usage
from mindset.graft.decoding import Detokenizer, spelled
from mindset.llm.engine.choosing import Chooser, logprobs
from mindset.llm.engine.job import Job
from mindset.llm.engine.speech import Speech
from mindset.llm.events import Alternative, Finished, FinishReason, Read, TextPiece, Token

__all__ = ["Row"]


class Row:
    """A job under way."""

    def __init__(
        self,
        job: Job,
        tokenizer: PreTrainedTokenizerBase,
        ends: frozenset[int],
        longest: int,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """`ends`: tokens that end a text; `longest`: tokens that the model can read; `ended` is called once."""
        self.job, self._ended = job, ended
        self.ids = list(job.ids)
        """All its tokens so far; the last one need not have been read."""
        self.cached = 0
        """Of the prompt's, those whose cache was known."""
        self.turn = -1
        """When it was let in first, counted over all texts; -1: not yet."""
        self.over = self.failed = False
        self._ends, self._spell = ends, partial(spelled, tokenizer)
        self._room = min(job.options.max_tokens or longest, longest - len(job.ids))
        self._chooser = Chooser(job.options)
        self._speech = Speech(Detokenizer(tokenizer, job.ids), job.options.stop)

    @property
    def said(self) -> int:
        """Tokens of the answer."""
        return len(self.ids) - len(self.job.ids)

    @property
    def reads(self) -> int:
        """How many slots are to be told for each token."""
        return self.job.options.reads or 0

    def take(
        self,
        logits: Float[Tensor, " vocab"],
        allowed: Bool[Tensor, " vocab"] | None = None,
        reads: tuple[Read, ...] = (),
    ) -> None:
        """One more token, by the logits behind the last one; the row may be over then."""
        chosen = self._chooser.choose(logits, allowed)
        if (guide := self.job.guide) is not None:
            guide.accept(chosen)
        if chosen in self._ends:
            self.finish("stop")
            return
        self.ids.append(chosen)
        self._deliver(self._speech.push(chosen, self._told(chosen, logits, reads)))
        if self._speech.has_stopped() or (guide is not None and guide.is_over):
            self.finish("stop")
        elif self.said >= self._room:
            self.finish("length")

    def finish(self, reason: FinishReason) -> None:
        """Tell what is left, and that it is over."""
        if not self.over:
            self._deliver(self._speech.end())
        if not self.over:
            self._end(Finished(reason, Usage(len(self.job.ids), self.said, self.cached)))

    def fail(self, error: Exception) -> None:
        """Tell that it ends by an error."""
        if not self.over:
            self.failed = True
            self._end(error)

    def _deliver(self, piece: TextPiece | None) -> None:
        if piece is not None and not self.over and not self._tell(piece):
            self._end(None)

    def _end(self, last: Finished | Exception | None) -> None:
        self.over = True
        if last is not None:
            self._tell(last)
        self._ended()

    def _tell(self, told: TextPiece | Finished | Exception) -> bool:
        """Whether whoever listens has taken it."""
        try:
            self.job.deliver(told)
        except Exception:  # who may be gone is not to stop the others
            self.job.ticket.cancel()
            return False
        return True

    def _told(self, chosen: int, logits: Float[Tensor, " vocab"], reads: tuple[Read, ...]) -> Token | None:
        """The token as it is told, where somebody asked."""
        wanted = self.job.options.logprobs
        if wanted is None:
            return Token(self._spell(chosen), None, chosen, (), reads) if self.reads else None
        logprob, best = logprobs(logits, chosen, wanted)
        others = tuple(Alternative(self._spell(one), much, one) for one, much in best)
        return Token(self._spell(chosen), logprob, chosen, others, reads)
