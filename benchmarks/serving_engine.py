"""How fast an engine answers many callers in one process, and whether each hears what he would hear alone.

Functions for `benchmarks.serving`, which makes rows of them. All speeds are tokens of answers by seconds of wall clock,
prompts and logging included; what is compared runs in turn in one process, with the same prompts and seeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.timing import scratch
from mindset.calls.log import CallLog
from mindset.graft.decoding import end_tokens
from mindset.graft.sources import Loaded, load_teacher
from mindset.llm.engine.batch import BatchSettings
from mindset.llm.events import Answer
from mindset.llm.local import LocalClient
from mindset.llm.request import Options, Request
from mindset.probe.generate import next_tokens
from mindset.probe.texts import pydoc_topics

__all__ = [
    "Difference",
    "Equality",
    "Speeds",
    "engine_speeds",
    "equal_answers",
    "prompts_of",
    "transformers_batches",
]


@dataclass(frozen=True)
class Speeds:
    """Tokens a second: medians over the rounds."""

    plain: float
    """One text after the other in a plain loop (`mindset.probe.generate.next_tokens`)."""
    clients: dict[int, float]
    """By how many clients ask at once."""
    ratios: dict[int, tuple[float, float, float]]
    """Of the same round's plain loop: median, smallest, largest."""
    transformers: dict[int, float]
    """`generate_batch` with so many prompts; empty: not asked for."""


@dataclass(frozen=True)
class Difference:
    """A request that was answered otherwise under load."""

    number: int
    """Which one."""
    place: int
    """The first token that differs."""
    gap: float
    """Nats between the two tokens when they were drawn, the draw's own noise included: how near a tie it was."""


@dataclass(frozen=True)
class Equality:
    """The same requests one at a time and many at once."""

    requests: int
    as_plain: float
    """Share whose tokens, asked one at a time, are those of the plain loop."""
    as_alone: float
    """Share whose tokens, asked many at once, are those of the same request alone."""
    differences: tuple[Difference, ...]


def prompts_of(loaded: Loaded, count: int, length: int) -> list[str]:
    """Passages of Python's help topics, of about so many tokens."""
    ids = loaded.tokenizer(pydoc_topics(), verbose=False)["input_ids"]
    starts = range(0, count * 2 * length, 2 * length)
    return [loaded.tokenizer.decode(ids[start : start + length]).strip() for start in starts]


# ---- speed ----------------------------------------------------------------------------------------------------
def engine_speeds(
    model: str = "smollm2",
    *,
    clients: Sequence[int] = (1, 4, 16),
    prompt: int = 32,
    new: int = 64,
    rounds: int = 5,
    with_transformers: bool = False,
) -> Speeds:
    """The plain loop, the engine with so many clients, and transformers' own continuous batching, in turn."""
    loaded = load_teacher(model)
    prompts = prompts_of(loaded, max(clients), prompt)
    found: list[dict[Any, float]] = []
    with _client(model, rows=max(clients)) as ask:
        for number in range(rounds + 1):
            seen: dict[Any, float] = {"plain": _plain_speed(loaded, prompts[: max(1, 64 // new)], new)}
            for count in clients:
                seen[count] = _client_speed(ask, prompts[:count], new, seed=number)
            if with_transformers:
                for count in (1, max(clients)):
                    seen["transformers", count] = transformers_batches(loaded, prompts[:count], new)
            found.append(seen)
    counted = found[1:]
    return Speeds(
        statistics.median(one["plain"] for one in counted),
        {count: statistics.median(one[count] for one in counted) for count in clients},
        {count: _spread([one[count] / one["plain"] for one in counted]) for count in clients},
        {
            key[1]: statistics.median(one[key] for one in counted)
            for key in counted[0]
            if isinstance(key, tuple)
        },
    )


def transformers_batches(loaded: Loaded, prompts: Sequence[str], new: int) -> float:
    """Tokens a second of `generate_batch`, with a cache that holds what is asked for."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    ids = [list(loaded.tokenizer(text)["input_ids"]) for text in prompts]
    blocks = sum((len(one) + new) // 32 + 2 for one in ids)
    settings = ContinuousBatchingConfig(num_blocks=blocks, page_size=32, max_batch_tokens=512)
    how = GenerationConfig(
        max_new_tokens=new, do_sample=True, temperature=1.0, top_k=0, eos_token_id=-1, pad_token_id=0
    )
    began = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        answers = loaded.model.generate_batch(ids, generation_config=how, continuous_batching_config=settings)
    return sum(len(one.generated_tokens) for one in answers.values()) / (time.perf_counter() - began)


Ask = Callable[[Sequence[Request]], list[Answer]]
"""Asks all of them at once, and returns the answers."""


@contextmanager
def _client(model: str, rows: int) -> Iterator[Ask]:
    """A client whose calls are logged, in an event loop that stays."""
    with scratch() as folder, asyncio.Runner() as runner:
        log = CallLog.open(f"sqlite:///{folder / 'calls.sqlite'}")
        client = LocalClient(model, log=log, batch=BatchSettings(rows=rows, prefix_bytes=0))

        async def all_of(requests: Sequence[Request]) -> list[Answer]:
            return await asyncio.gather(*(client.complete(one).answer() for one in requests))

        try:
            yield lambda requests: runner.run(all_of(requests))
        finally:
            runner.run(client.close())
            log.close()


def _client_speed(ask: Ask, prompts: Sequence[str], new: int, seed: int) -> float:
    options = [Options(max_tokens=new, temperature=1.0, seed=seed + n) for n in range(len(prompts))]
    requests = [Request(prompt=text, options=one) for text, one in zip(prompts, options, strict=True)]
    began = time.perf_counter()
    tokens = sum(answer.usage.completion_tokens for answer in ask(requests))
    return tokens / (time.perf_counter() - began)


def _plain_speed(loaded: Loaded, prompts: Sequence[str], new: int) -> float:
    tokens, began = 0, time.perf_counter()
    for number, text in enumerate(prompts):
        ids = torch.tensor(loaded.tokenizer(text)["input_ids"])
        tokens += sum(1 for _ in next_tokens(loaded.model, ids, new, temperature=1.0, seed=number))
    return tokens / (time.perf_counter() - began)


def _spread(numbers: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(numbers), min(numbers), max(numbers)


# ---- equality -------------------------------------------------------------------------------------------------
def equal_answers(
    model: str = "smollm2",
    *,
    requests: int = 200,
    load: int = 16,
    prompt: int = 24,
    new: int = 24,
    temperature: float = 1.0,
    seed: int = 0,
) -> Equality:
    """Seeded requests in the plain loop, one at a time in an engine, and `load` at once."""
    loaded = load_teacher(model)
    texts = prompts_of(loaded, requests, prompt)
    asked = [
        Request(
            prompt=text,
            options=Options(
                max_tokens=new, temperature=temperature if n % 4 else 0.0, seed=seed + n, logprobs=0
            ),
        )
        for n, text in enumerate(texts)
    ]
    plain = [_plain_tokens(loaded, one) for one in asked]
    with _client(model, rows=load) as ask:
        alone = [_tokens(ask([one])[0]) for one in asked]
    together: list[list[int]] = []
    with _client(model, rows=load) as ask:
        for start in range(0, requests, 4 * load):  # more than run at once: rows come and go all the time
            together += [_tokens(answer) for answer in ask(asked[start : start + 4 * load])]
    differ = [n for n in range(requests) if alone[n] != together[n]]
    return Equality(
        requests,
        sum(a == b for a, b in zip(plain, alone, strict=True)) / requests,
        1 - len(differ) / requests,
        tuple(_difference(loaded, n, asked[n], alone[n], together[n]) for n in differ),
    )


def _tokens(answer: Answer) -> list[int]:
    return [token.id or 0 for token in answer.tokens]


def _plain_tokens(loaded: Loaded, request: Request) -> list[int]:
    ids = torch.tensor(loaded.tokenizer(request.prompt)["input_ids"])
    options = request.options
    return list(
        next_tokens(
            loaded.model,
            ids,
            options.max_tokens or 0,
            temperature=options.temperature or 0.0,
            seed=options.seed or 0,
            stops=end_tokens(loaded.model, loaded.tokenizer),
        )
    )


@torch.no_grad()
def _difference(
    loaded: Loaded, number: int, request: Request, one: list[int], other: list[int]
) -> Difference:
    """How near the two were where they part; a text that ended there has drawn a token that ends it."""
    place = next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    ids = [*loaded.tokenizer(request.prompt)["input_ids"], *one[:place]]
    logits = loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].float()
    temperature = request.options.temperature or 0.0
    scores = logits
    if temperature:
        scores = (logits / temperature).log_softmax(-1) - _noise(request, len(logits), place)
    ends = [token for token in end_tokens(loaded.model, loaded.tokenizer) if token < len(logits)]
    drawn = [text[place : place + 1] or ends for text in (one, other)]
    best = [max(float(scores[token]) for token in tokens) for tokens in drawn]
    return Difference(number, place, abs(best[0] - best[1]))


def _noise(request: Request, vocabulary: int, place: int) -> torch.Tensor:
    """The logarithms that `torch.multinomial` takes off for this draw: it divides by exponential numbers."""
    generator = torch.Generator().manual_seed(request.options.seed or 0)
    noise = torch.empty(vocabulary)
    for _ in range(place + 1):
        noise.exponential_(generator=generator)
    return noise.log()
