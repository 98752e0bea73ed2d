"""Text continued token by token, in pieces as they become certain.

`generate` takes any MODEL, `continue_text` a model that is loaded. A character may be spread over several tokens: its
piece comes once the last of them is there. Generation ends after `max_tokens`, at an end-of-sequence token or where
the model's context ends.

Knows no chat template: text goes on as raw text. Invariant: the pieces, joined, are what the new tokens decode to
after the prompt; at temperature 0 the tokens are those of greedy `model.generate`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mindset.errors import UsageError
from mindset.graft.counting import counting, folder_of
from mindset.graft.sources import Loaded, load_teacher
from mindset.probe.sizes import context_length
from mindset.probe.speed import cache_name

__all__ = ["continue_text", "decoded_pieces", "generate", "next_tokens"]

CONTEXT = 8
"""Tokens before a piece that are decoded with it: what SentencePiece makes of a word depends on the one before."""
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


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
    if not ids:
        raise UsageError(
            "the prompt is empty and this tokenizer begins a text with nothing; give a word to start from"
        )
    if len(ids) >= context_length(model):
        raise UsageError(
            f"the prompt has {len(ids)} tokens, but the model reads {context_length(model)} with its answer; shorten it"
        )
    return torch.tensor(ids, dtype=torch.long)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens after which a model has said all."""
    named = getattr(model.generation_config, "eos_token_id", None)
    if named is None:
        named = tokenizer.eos_token_id
    if named is None:
        return frozenset()
    return frozenset([named] if isinstance(named, int) else named)


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
    named, only_last = cache_name(model), _only_last(model)
    step, cache = prompt.to(model.device)[None], None
    for _ in range(max_tokens):
        # No gradient mode is held across a yield: it would leak into whoever reads the tokens.
        with torch.no_grad():
            output = model(input_ids=step, use_cache=True, **{named: cache}, **only_last)
        cache = output[named]
        token = _choose(output.logits[0, -1].float().cpu(), temperature, generator)
        if token in stops:
            return
        yield token
        step = torch.tensor([[token]], device=model.device)


def decoded_pieces(
    tokenizer: PreTrainedTokenizerBase, prompt: list[int], tokens: Iterator[int]
) -> Iterator[str]:
    """Yield the text of `tokens` after `prompt`, each piece as soon as no later token can change it."""
    ids = prompt[-CONTEXT:]
    start, told = 0, len(ids)
    for token in tokens:
        ids.append(token)
        before, now = _decode(tokenizer, ids[start:told]), _decode(tokenizer, ids[start:])
        if len(now) > len(before) and not now.endswith(UNFINISHED):
            yield now[len(before) :]
            start, told = max(start, len(ids) - CONTEXT), len(ids)
    rest = _decode(tokenizer, ids[start:])[len(_decode(tokenizer, ids[start:told])) :]
    if rest:
        yield rest


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text)


def _choose(logits: Float[Tensor, " vocab"], temperature: float, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))


def _only_last(model: PreTrainedModel) -> dict[str, Any]:
    """Ask for the last position's logits alone where the model can be asked: a long prompt's would fill the RAM."""
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
