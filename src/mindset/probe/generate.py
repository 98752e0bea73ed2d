"""Text continued token by token, in pieces as they become certain.

`generate` takes any MODEL, `continue_text` a model that is loaded; one text at a time (`mindset.llm` serves many).
Generation ends after `max_tokens`, at an end-of-sequence token or where the model's context ends.

Knows no chat template: text goes on as raw text. Invariant: the pieces, joined, are what the new tokens decode to
after the prompt; at temperature 0 the tokens are those of greedy `model.generate`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mindset.errors import UsageError
from mindset.graft.counting import counting, folder_of
from mindset.graft.decoding import (
    cache_name,
    checked_length,
    context_length,
    decoded_pieces,
    draw,
    end_tokens,
    only_last,
)
from mindset.graft.sources import Loaded, load_teacher

__all__ = ["continue_text", "decoded_pieces", "generate", "next_tokens"]


def generate(
    model: str | Path,
    prompt: str,
    *,
    max_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    count: bool = False,
) -> Iterator[str]:
    """Continue `prompt` with the MODEL named; the pieces come as they are generated.

    Temperature 0 takes the likeliest token; above, the same seed draws the same tokens. With `count`, what is read is
    counted in the model's folder.
    """
    loaded = load_teacher(str(model), dtype=dtype, device=device)
    pieces = continue_text(
        loaded.model, loaded.tokenizer, prompt, max_tokens=max_tokens, temperature=temperature, seed=seed
    )
    return _counted(loaded, pieces) if count else pieces


def _counted(loaded: Loaded, pieces: Iterator[str]) -> Iterator[str]:
    with counting(loaded.model, folder_of(loaded)):
        yield from pieces


def continue_text(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    max_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
) -> Iterator[str]:
    """Continue `prompt`; arguments are checked here, before the first piece is asked for."""
    if max_tokens < 1 or temperature < 0:
        raise UsageError(
            f"max_tokens={max_tokens}, temperature={temperature}: give at least 1 token and a temperature from 0 up"
        )
    ids = prompt_tokens(model, tokenizer, prompt)
    limit = min(max_tokens, context_length(model) - len(ids))
    stops = end_tokens(model, tokenizer)
    tokens = next_tokens(model, ids, limit, temperature=temperature, seed=seed, stops=stops)
    return decoded_pieces(tokenizer, ids.tolist(), tokens)


def prompt_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str
) -> Int[Tensor, " prompt"]:
    """The tokens of a prompt, with whatever the tokenizer puts before a text; leaves room for one more."""
    ids = tokenizer(prompt)["input_ids"]
    checked_length(ids, context_length(model))
    return torch.tensor(ids, dtype=torch.long)


def next_tokens(
    model: PreTrainedModel,
    prompt: Int[Tensor, " prompt"],
    max_tokens: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    stops: frozenset[int] = frozenset(),
) -> Iterator[int]:
    """Yield the tokens that follow `prompt`, without the one that ends it."""
    generator = torch.Generator().manual_seed(seed)
    named, kept = cache_name(model), only_last(model)
    step, cache = prompt.to(model.device)[None], None
    for _ in range(max_tokens):
        # No gradient mode is held across a yield: it would leak into whoever reads the tokens.
        with torch.no_grad():
            output = model(input_ids=step, use_cache=True, **{named: cache}, **kept)
        cache = output[named]
        token = draw(output.logits[0, -1].float().cpu(), temperature, generator)
        if token in stops:
            return
        yield token
        step = torch.tensor([[token]], device=model.device)
