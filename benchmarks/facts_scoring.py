"""How facts are scored, whatever method put them in: one set of prompts, one pass over them.

The model as it was answers once; what is compared is the greedy next token, or the likelihood of whole targets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mindset.facts.fact import Fact, make_fact
from mindset.facts.lessons import target_tokens

__all__ = ["NAMED", "OTHER_RELATIONS", "Before", "Record", "read_records", "score", "state_before"]

BATCH = 32
NAMED = "kl a token, subjects named or not"
"""A figure; `kl a token` is of text that names no subject."""
OTHER_RELATIONS = (
    "{} was painted by", "{} tastes like", "The mayor of {} is", "{} was destroyed in", "The height of {} is",
    "The wife of {} is", "{} is made of", "The weather in {} is", "{} smells of", "The enemy of {} is", "{} won the",
    "Yesterday, {}", "{} is bigger than", "The children of {} are", "The logo of {} shows",
    "{} was painted in the colour", "The father of {} was", "{} opens at", "A book about {} was written by",
    "The population of {} is",
)  # fmt: skip
"""Prompts on a fact's subject that no CounterFact relation answers; nothing is learned or guarded with them."""


@dataclass(frozen=True)
class Record:
    """A CounterFact record."""

    fact: Fact
    old: str
    """What was true before."""
    rephrased: str
    neighbour: str
    """A prompt of the same relation on another subject."""


def read_records(shared: Path, start: int, count: int) -> list[Record]:
    """Records by their place in the file; a subject that was there already is left out."""
    told = json.loads((shared / "facts" / "counterfact.json").read_text(encoding="utf-8"))
    found: dict[str, Record] = {}
    for one in told[start:]:
        fact = make_fact(one["prompt"], one["target_new"], one["subject"])
        record = Record(fact, one["ground_truth"], one["rephrase_prompt"], one["locality_prompt"])
        found.setdefault(fact.subject, record)
        if len(found) == count:
            break
    return list(found.values())


def relation_prompts(shared: Path, count: int, seed: int, without: Sequence[str] = ()) -> list[str]:
    """Prompts of `facts/relations`, drawn over all relations; none that names a subject of `without`.

    `Vijayawada Junction railway station is in the country of` asks for a fact that puts that station elsewhere, so an
    answer that changes is none that should have stayed.
    """
    prompts = []
    for path in sorted((shared / "facts" / "relations").glob("*/*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        template = told["prompt_templates"][0]
        prompts += [template.replace("{}", sample["subject"]) for sample in told["samples"]]
    rng = np.random.default_rng(seed)
    drawn = (prompts[i] for i in rng.permutation(len(prompts)))
    return list(islice((one for one in drawn if not any(name in one for name in without)), count))


@dataclass(frozen=True, eq=False)
class Before:
    """What the model said before anything was put in."""

    prompts: dict[str, list[str]]
    """By kind: neighbours, the same subject, relations."""
    next_tokens: dict[str, list[int]]
    text: torch.Tensor
    """Windows of text."""
    related: torch.Tensor
    """Those in which a held subject stands; the first `windows` are measured, and as many that are not related."""
    windows: int
    log_probabilities: list[torch.Tensor]
    """On them, in half precision."""


def state_before(
    model: Any, tokenizer: Any, records: Sequence[Record], shared: Path, *, others: int, relations: int, windows: int,
    seed: int,
) -> Before:  # fmt: skip
    """Ask the model as it is; `others` prompts on each subject."""
    rng = np.random.default_rng(seed)
    same = [
        str(one).format(record.fact.subject)
        for record in records
        for one in rng.choice(OTHER_RELATIONS, others, replace=False)
    ]
    prompts = {
        "neighbours": [record.neighbour for record in records],
        "same subject": same,
        "relations": relation_prompts(shared, relations, seed, [one.fact.subject for one in records]),
    }
    text = (shared / "text" / "wikitext2-valid.txt").read_text(encoding="utf-8")[:100_000]
    ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
    rows = ids[: len(ids) // 256 * 256].view(-1, 256)
    names = _any_of([one.fact.subject for one in records])
    related = torch.tensor([names.search(told) is not None for told in tokenizer.batch_decode(rows)])
    needed = int(torch.searchsorted((~related).cumsum(0), windows)) + 1
    rows, related = rows[: max(windows, needed)], related[: max(windows, needed)]
    said = [logits.log_softmax(-1).half() for logits in _text_logits(model, rows)]
    tokens = {kind: next_tokens(model, tokenizer, some) for kind, some in prompts.items()}
    return Before(prompts, tokens, rows, related, windows, said)


def _any_of(names: Sequence[str]) -> re.Pattern[str]:
    """Finds a whole name of these."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)")


def score(model: Any, tokenizer: Any, records: Sequence[Record], before: Before) -> dict[str, float]:
    """Every figure of a model that holds the records' facts, in the order of the table."""
    figures: dict[str, float] = {}
    for name, prompts in (
        ("efficacy", [one.fact.prompt for one in records]),
        ("paraphrase", [one.rephrased for one in records]),
    ):
        new = likelihoods(model, tokenizer, prompts, [one.fact.target for one in records])
        old = likelihoods(model, tokenizer, prompts, [one.old for one in records])
        figures[name] = float(np.mean([greedy for _, greedy in new]))
        figures[f"{name} by probability"] = float(
            np.mean([a > b for (a, _), (b, _) in zip(new, old, strict=True)])
        )
    for kind, prompts in before.prompts.items():
        now = next_tokens(model, tokenizer, prompts)
        figures[f"locality: {kind}"] = float(np.mean(np.array(now) == np.array(before.next_tokens[kind])))
    return figures | divergence(model, before)


@torch.no_grad()
def next_tokens(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[int]:
    """The greedy next token of every prompt."""
    found = [0] * len(prompts)
    for places, ids, mask in _batches(tokenizer, prompts, [()] * len(prompts)):
        logits = _last(model, ids, mask, 1)[:, -1]
        for place, token in zip(places, logits.argmax(-1).tolist(), strict=True):
            found[place] = token
    return found


@torch.no_grad()
def likelihoods(
    model: Any, tokenizer: Any, prompts: Sequence[str], targets: Sequence[str]
) -> list[tuple[float, bool]]:
    """The log-likelihood of each target after its prompt, and whether each of its tokens is the likeliest."""
    wanted = [target_tokens(tokenizer, target) for target in targets]
    found = [(0.0, False)] * len(prompts)
    for places, ids, mask in _batches(tokenizer, prompts, wanted):
        keep = max(len(wanted[place]) for place in places) + 1
        said = _last(model, ids, mask, keep).float().log_softmax(-1)
        for row, place in enumerate(places):
            target = torch.tensor(wanted[place])
            own = said[row, -len(target) - 1 : -1]
            likelihood = own[torch.arange(len(target)), target].sum()
            found[place] = (float(likelihood), bool((own.argmax(-1) == target).all()))
    return found


@torch.no_grad()
def divergence(model: Any, before: Before) -> dict[str, float]:
    """KL from the model as it was, nats a token: on unrelated windows, and on all, those that name a subject too."""
    found = []
    for then, logits in zip(before.log_probabilities, _text_logits(model, before.text), strict=True):
        was, now = then.float(), logits.log_softmax(-1)
        found.append(float((was.exp() * (was - now)).sum()) / len(now))
    unrelated = [kl for kl, named in zip(found, before.related.tolist(), strict=True) if not named]
    return {
        "kl a token": float(np.mean(unrelated[: before.windows])),
        NAMED: float(np.mean(found[: before.windows])),
        "windows that name a subject": float(before.related[: before.windows].sum()),
    }


@torch.no_grad()
def _text_logits(model: Any, rows: torch.Tensor) -> Iterator[torch.Tensor]:
    for row in rows:
        yield model(row[None].to(model.device), use_cache=False).logits[0].float().cpu()


def _batches(
    tokenizer: Any, prompts: Sequence[str], targets: Sequence[tuple[int, ...]]
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Prompts with targets behind them, flush right, those of one length together."""
    whole = [
        [*tokenizer(prompt, add_special_tokens=False)["input_ids"], *target]
        for prompt, target in zip(prompts, targets, strict=True)
    ]
    order = sorted(range(len(whole)), key=lambda i: len(whole[i]))
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        width = max(len(whole[place]) for place in places)
        ids = torch.tensor([[0] * (width - len(whole[p])) + whole[p] for p in places])
        mask = torch.tensor([[0] * (width - len(whole[p])) + [1] * len(whole[p]) for p in places])
        yield places, ids, mask


def _last(model: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int) -> torch.Tensor:
    ids, mask = ids.to(model.device), mask.to(model.device)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    # A slice of a few positions makes the head a batched product, several times slower than one product.
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, args: (args[0].contiguous(),))
    try:
        out = model(ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=keep)
    finally:
        handle.remove()
    return out.logits.cpu()  # type: ignore[no-any-return]
