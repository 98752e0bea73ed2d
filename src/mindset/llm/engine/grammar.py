"""Answers that must fit a JSON schema, an expression or a call of a tool: which tokens may come next, by llguidance.

A grammar that cannot be followed is refused before anything is computed. Spaces between the parts of a JSON value are
few, though never wrong: a small model that may write spaces for ever does. Invariant: what is drawn under a guide
until it says that all is said fits its grammar.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import llguidance
import llguidance.hf
import llguidance.numpy
import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mindset.calls.canonical import Json
from mindset.errors import CallError, UnsupportedRequestError, UsageError
from mindset.llm.request import ToolSpec

__all__ = ["Grammars", "Guide"]

_SPACES: Any = {"whitespace_pattern": r" |\n {0,16}"}


class Guide:
    """What may be said next in one text."""

    def __init__(self, matcher: llguidance.LLMatcher) -> None:
        self.matcher = matcher

    def accept(self, token: int) -> None:
        """The token was drawn."""
        if not self.matcher.consume_token(token):
            raise CallError(f"the answer left its grammar: {self.matcher.get_error()}")

    @property
    def is_over(self) -> bool:
        """Whether all is said: nothing may follow."""
        return bool(self.matcher.is_stopped())


class Grammars:
    """The grammars that one model's answers can be held to; any thread may ask."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int, ends: frozenset[int]) -> None:
        """`vocabulary`: how many logits there are, which may be more than there are tokens."""
        self._tokenizer, self._vocabulary, self._ends = tokenizer, vocabulary, sorted(ends)
        self._prepared: llguidance.LLTokenizer | None = None
        self._threads: llguidance.LLExecutor | None = None
        self._lock = threading.Lock()

    def for_schema(self, schema: Mapping[str, Json]) -> Guide:
        """A JSON value that fits a schema."""
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                json.dumps(dict(schema)), overrides=_SPACES
            )
        except (TypeError, ValueError) as error:
            raise UsageError(f"the schema is no JSON: {error}") from error
        return self._guide(grammar, "schema")

    def for_regex(self, regex: str) -> Guide:
        """Text that an expression matches as a whole."""
        return self._guide(llguidance.LLMatcher.grammar_from_regex(regex), "expression")

    def for_tools(self, tools: Sequence[ToolSpec], before: str, after: str) -> Guide:
        """A call of one of the tools, as JSON between two texts."""
        calls = []
        for tool in tools:
            schema = json.dumps(dict(tool.parameters) | {"x-guidance": _SPACES})
            head = json.dumps(f'{{"name": {json.dumps(tool.name)}, "arguments": ')
            calls.append(f"{head} %json {schema} {json.dumps('}')}")
        between = [json.dumps(text) for text in (before, after)]
        rules = f"start: {between[0]} call {between[1]}\ncall: " + "\n    | ".join(calls)
        if not before and not after:
            rules = "start: " + "\n    | ".join(calls)
        return self._guide(llguidance.LLMatcher.grammar_from_lark(rules), "parameters of the tools")

    def _guide(self, grammar: str, what: str) -> Guide:
        matcher = llguidance.LLMatcher(self._tokens(), grammar, log_level=0)
        if matcher.is_error():
            reason = " ".join(str(matcher.get_error()).split())
            raise UsageError(f"the {what} cannot be followed: {reason}")
        return Guide(matcher)

    def allowed(self, guides: Sequence[Guide]) -> list[Bool[Tensor, " vocab"]]:
        """The tokens that may come next, for each of several texts."""
        bits = llguidance.numpy.allocate_token_bitmask(len(guides), self._vocabulary)
        if self._threads is None:
            self._threads = llguidance.LLExecutor(num_threads=max(1, torch.get_num_threads()))
        pairs = [(guide.matcher, row) for row, guide in enumerate(guides)]
        llguidance.numpy.fill_next_token_bitmask_par(self._threads, pairs, bits)
        single = np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")[:, : self._vocabulary]
        return list(torch.from_numpy(single).bool())

    def _tokens(self) -> llguidance.LLTokenizer:
        """The tokenizer as llguidance reads it; takes seconds, once."""
        with self._lock:
            if self._prepared is None:
                if not isinstance(self._tokenizer, PreTrainedTokenizerFast):
                    raise UnsupportedRequestError(
                        f"{type(self._tokenizer).__name__} does not say what its tokens spell, so no answer can be "
                        "held to a schema or an expression; load the fast version of this tokenizer"
                    )
                self._prepared = llguidance.hf.from_tokenizer(
                    self._tokenizer, n_vocab=self._vocabulary, eos_token=list(self._ends) or None
                )
            return self._prepared
