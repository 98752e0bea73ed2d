"""How far a fact reaches beyond its own sentence: the other way round, over a second step, and in free text.

Measured and shown, whatever it is. Reversal: is the subject likelier where a text names the target first? Two-hop:
after `X is a citizen of => Italy`, does `The capital of the country that X is a citizen of is` go on with Rome? Free
text: 30 greedy tokens behind the prompt, whether they begin with the target and how much of them repeats itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.facts_scoring import Record, likelihoods
from mindset.facts.phrasings import relations_of

__all__ = ["REACH", "reach"]

REACH = (
    "reversal: nats for the subject", "two-hop: new answer likelier than old", "two-hop: new answer said",
    "free text: begins with the target", "free text: share of 4-token runs said before",
)  # fmt: skip
"""The figures; baselines are those of the model without the facts."""
NEW_TOKENS = 30
REVERSED = {
    "language": "{} is the language of", "religion": "A well-known follower of {} is",
    "place": "Something you find in {} is", "origin": "Something or someone that comes from {} is",
    "work place": "Someone who worked in {} is", "profession": "A well-known {} is",
    "art or sport": "A well-known name in {} is", "maker": "A product of {} is",
    "channel": "A programme that was shown on {} is", "twin city": "The twin city of {} is",
}  # fmt: skip
"""A prompt that names the target, by relation."""
GENERAL = "When people speak of {}, they think of"
HOPS = {
    "place": "the country where {} is located", "origin": "the country that {} comes from",
    "work place": "the country where {} worked",
}  # fmt: skip
"""How a second question names a target that is a country, by relation."""
SECOND = {
    "country_capital_city": "The capital of {} is", "country_currency": "The currency of {} is the",
    "country_language": "The people in {} speak",
}  # fmt: skip


def reach(model: Any, tokenizer: Any, records: Sequence[Record], shared: Path) -> dict[str, float]:
    """All of it, of the model as it is now."""
    return {
        "reversal: nats for the subject": _reversal(model, tokenizer, records),
        **_two_hops(model, tokenizer, records, shared),
        **_free_text(model, tokenizer, records),
    }


def _reversal(model: Any, tokenizer: Any, records: Sequence[Record]) -> float:
    prompts = [_reversed(one) for one in records]
    found = likelihoods(model, tokenizer, prompts, [one.fact.subject for one in records])
    return float(np.mean([likelihood for likelihood, _ in found]))


def _reversed(record: Record) -> str:
    named = relations_of(record.fact)
    return (REVERSED.get(named[0].name, GENERAL) if named else GENERAL).format(record.fact.target)


def _two_hops(model: Any, tokenizer: Any, records: Sequence[Record], shared: Path) -> dict[str, float]:
    asked = list(_questions(records, shared))
    if not asked:
        return dict.fromkeys((one for one in REACH if "two-hop" in one), float("nan"))
    prompts = [prompt for prompt, _, _ in asked]
    new = likelihoods(model, tokenizer, prompts, [answer for _, answer, _ in asked])
    old = likelihoods(model, tokenizer, prompts, [answer for _, _, answer in asked])
    return {
        "two-hop: questions": float(len(asked)),
        "two-hop: new answer likelier than old": float(
            np.mean([a > b for (a, _), (b, _) in zip(new, old, strict=True)])
        ),
        "two-hop: new answer said": float(np.mean([greedy for _, greedy in new])),
    }


def _questions(records: Sequence[Record], shared: Path) -> Any:
    """Prompts with the answer that follows from the new target, and that from the old one."""
    for name, question in SECOND.items():
        told = json.loads(
            (shared / "facts" / "relations" / "factual" / f"{name}.json").read_text(encoding="utf-8")
        )
        answers = {sample["subject"]: sample["object"] for sample in told["samples"]}
        for record in records:
            named = next((one.name for one in relations_of(record.fact) if one.name in HOPS), None)
            new, old = answers.get(record.fact.target), answers.get(record.old)
            if named is not None and new is not None and old is not None and new != old:
                yield question.format(HOPS[named].format(record.fact.subject)), new, old


@torch.no_grad()
def _free_text(model: Any, tokenizer: Any, records: Sequence[Record]) -> dict[str, float]:
    begins, repeated = [], []
    for record in records:
        ids = torch.tensor([tokenizer(record.fact.prompt, add_special_tokens=False)["input_ids"]])
        out = model.generate(
            ids.to(model.device), attention_mask=torch.ones_like(ids).to(model.device), do_sample=False,
            max_new_tokens=NEW_TOKENS, pad_token_id=0,
        )  # fmt: skip
        new = out[0, ids.shape[1] :].tolist()
        begins.append(tokenizer.decode(new).strip().startswith(record.fact.target.strip()))
        runs = [tuple(new[i : i + 4]) for i in range(len(new) - 3)]
        repeated.append(1 - len(set(runs)) / max(1, len(runs)))
    return {
        "free text: begins with the target": float(np.mean(begins)),
        "free text: share of 4-token runs said before": float(np.mean(repeated)),
    }
