"""What else would change: prompts whose answer would move if some slots were deleted.

Asked are the prompts of all facts in the memory, those in `probes.txt` of the model folder (one a line, the user's),
some general ones, and what the caller adds. Invariant: looking changes nothing, in the model or on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mindset.errors import FormatError, MissingError, UsageError
from mindset.facts.fact import parse_facts
from mindset.graft.sources import load_teacher
from mindset.graft.suppressing import Place, suppressed
from mindset.store.memory import Memory
from mindset.store.positions import Positions
from mindset.store.scan import Where, scan

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["PROBES", "Moved", "Preview", "preview_deletion"]

PROBES_FILE = "probes.txt"
PROBES = (
    "The capital of France is", "The largest ocean on Earth is the", "Water freezes at", "The opposite of hot is",
    "Two plus two equals", "The sun rises in the", "A dog is a kind of", "The author of Hamlet is William",
    "The first month of the year is", "Bees make", "The colour of grass is", "She opened the door and",
    "Once upon a time there was a", "To bake bread you need flour and", "The train to London leaves at",
    "In mathematics, a prime number is", "The heart pumps", "He was born in", "My favourite food is",
    "The president of the United States lives in the", "A week has seven", "Gold is a", "The moon orbits the",
    "The language spoken in Brazil is",
)  # fmt: skip
"""General prompts that are always asked."""


@dataclass(frozen=True)
class Moved:
    """A prompt whose likeliest next token would be another one."""

    prompt: str
    before: str
    after: str
    probability: float
    """Of `before`, now."""
    probability_after: float
    """Of `before`, then."""


@dataclass(frozen=True)
class Preview:
    """What a deletion would move."""

    slots: tuple[int, ...]
    asked: int
    """Prompts that were asked."""
    moved: tuple[Moved, ...]
    """Those whose answer would be another one, the surest first."""
    largest_shift: float
    """The largest change of a probability among the prompts whose answer stays."""


def preview_deletion(folder: Path, slots: Sequence[int], prompts: Sequence[str] = ()) -> Preview:
    """Ask the model in `folder` with and without `slots`."""
    folder = Path(folder)
    places = _places(folder, slots)
    asked = list(dict.fromkeys([*prompts, *_own_probes(folder), *_fact_prompts(folder), *PROBES]))
    loaded = load_teacher(str(folder))
    now = _answers(loaded.model, loaded.tokenizer, asked)
    best = [int(row.argmax()) for row in now]
    with suppressed(loaded.model, places):
        then = _answers(loaded.model, loaded.tokenizer, asked)
    moved, shift = [], 0.0
    for prompt, token, was, will in zip(asked, best, now, then, strict=True):
        other = int(will.argmax())
        if other == token:
            shift = max(shift, abs(float(was[token] - will[token])))
            continue
        before, after = (str(loaded.tokenizer.decode([one])) for one in (token, other))
        moved.append(Moved(prompt, before, after, float(was[token]), float(will[token])))
    surest = sorted(moved, key=lambda one: -one.probability)
    return Preview(tuple(int(slot) for slot in slots), len(asked), tuple(surest), shift)


def _places(folder: Path, slots: Sequence[int]) -> list[Place]:
    """Where the model has these slots."""
    found: dict[int, Place] = {}
    for (layer, name), places in Positions.of(folder / "memory").shards.items():
        for head, row in zip(*np.nonzero(np.isin(places.ids, slots)), strict=True):
            found[int(places.ids[head, row])] = (layer, name, int(head), int(row))
    if missing := [slot for slot in slots if slot not in found]:
        raise MissingError(f"there is no slot {missing[0]}")
    return [found[slot] for slot in slots]


def _own_probes(folder: Path) -> list[str]:
    path = folder / PROBES_FILE
    if not path.is_file():
        return []
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _fact_prompts(folder: Path) -> list[str]:
    """The prompts of all facts that living slots cite."""
    with Memory(folder, read_only=True) as memory:
        cited = {
            one.cites for one in scan(memory.store.ledger, Where(tag="fact"), limit=100_000) if one.cites
        }
        prompts = []
        for one in sorted(cited, key=lambda one: (one.source, one.start or 0)):
            source = memory.store.source(one.source)
            try:
                prompts += [
                    fact.prompt for fact in parse_facts(source.text[one.start : one.stop], source.name).facts
                ]
            except (FormatError, UsageError):
                continue  # a slot that a person tagged so, on a text of another kind
    return prompts


@torch.no_grad()
def _answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]
) -> list[torch.Tensor]:
    said = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]], device=model.device)
        said.append(model(ids, use_cache=False, logits_to_keep=1).logits[0, -1].float().softmax(-1).cpu())
    return said
