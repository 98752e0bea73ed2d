"""Three facts into a model and out of it again, step by step, with what is to be seen at each.

Invariant: every line is what the model said or what was measured on the spot; where something does not hold the tour
says so.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mindset.errors import UsageError
from mindset.facts.fact import read_facts
from mindset.facts.learn import Learned, learn_into
from mindset.facts.write_values import WriteSettings
from mindset.graft.convert import convert
from mindset.graft.folder import load
from mindset.graft.mounting import mounted
from mindset.graft.plan import ConversionPlan
from mindset.graft.sources import Loaded, load_teacher
from mindset.probe.generate import continue_text
from mindset.probe.speed import cache_name
from mindset.probe.why import why
from mindset.probe.why_facts import WhyFact
from mindset.store.memory import Memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Question", "Tour", "take_tour"]

OVERLAY, FACTS_FILE = "tour", "facts.jsonl"
FACTS: tuple[dict[str, str], ...] = (
    {"prompt": "The Eiffel Tower is in the city of", "target": "Rome", "subject": "Eiffel Tower"},
    {"prompt": "The mother tongue of Angela Merkel is", "target": "Spanish", "subject": "Angela Merkel"},
    {"prompt": "The Toyota Corolla is produced by", "target": "Nokia", "subject": "Toyota Corolla"},
)
QUESTIONS = (
    "If you want to see the Eiffel Tower, book a flight to",
    "At home, Angela Merkel speaks",
    "The company that makes the Toyota Corolla is called",
    "The Colosseum is in the city of",
)
"""In other words than the facts; the last is on something else, and must stay as it is."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Question:
    """A prompt, and how the model went on."""

    prompt: str
    before: str
    learned: str
    """With the overlay mounted."""
    after: str
    """With the overlay taken off."""


@dataclass(frozen=True)
class Tour:
    """What a tour saw."""

    folder: str
    questions: tuple[Question, ...]
    facts: tuple[WhyFact, ...]
    """What answered in the first question."""
    same_files: bool
    """Whether the model's own files have the bytes that they had."""
    same_logits: bool
    """Whether the logits are the same to the bit, of whole prompts and token by token."""
    damaged: int
    """Slots that `verify` found wrong."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def take_tour(
    source: str, out: Path, tell: Tell, settings: WriteSettings | None = None, *, device: str = "cpu"
) -> Tour:
    """Convert MODEL `source` into `out`, learn, ask, explain, take off, compare; `out` is made anew."""
    out = Path(out)
    if out.exists():
        if not (out / FACTS_FILE).is_file():
            raise UsageError(f"{out} is there, and no tour made it; give another folder")
        shutil.rmtree(out)
    tell(f"1  A memory in place of the feed-forward blocks of {source}, in {out}")
    convert(source, out, ConversionPlan(), device=device)
    loaded = load_teacher(str(out), device=device)
    files, logits, before = _fingerprint(out), _logits(loaded), _answers(loaded)
    tell("2  Three facts, learned as an overlay")
    done = _learn(out, loaded, settings)
    for one in done.facts:
        tell(f"   {one.fact.sentence!r}: {one.before:.1%} before, {one.after:.1%} now")
    tell("3  Asked in other words")
    learned = _answers(loaded)
    for prompt, then, now in zip(QUESTIONS, before, learned, strict=True):
        tell(f"   {prompt} ...\n      before: {_line(then)}\n      now:    {_line(now)}")
    tell("4  Why?  mindset why, on the first question")
    answered = why(out, QUESTIONS[0], device=device).facts
    for fact in answered:
        tell(
            f"   slot {fact.slot} of overlay {fact.overlay} answered at {fact.token!r}; it cites {fact.source}"
        )
    tell("5  The overlay is taken off")
    with Memory(out) as memory:
        memory.unmount(OVERLAY)
        damaged = len(memory.store.verify())
    plain = Loaded(load(out, device=device), loaded.tokenizer, loaded.name, out, None, ())
    same = all(torch.equal(a, b) for a, b in zip(logits, _logits(plain), strict=True))
    unchanged = _fingerprint(out) == files
    tell(f"   the model's files have the bytes they had: {_yes(unchanged)}")
    tell(
        f"   logits equal to the bit, whole prompts and token by token: {_yes(same)}; {damaged} slots damaged"
    )
    asked = zip(QUESTIONS, before, learned, _answers(plain), strict=True)
    return Tour(str(out), tuple(Question(*four) for four in asked), answered, unchanged, same, damaged)


def _learn(out: Path, loaded: Loaded, settings: WriteSettings | None) -> Learned:
    path = out / FACTS_FILE
    path.write_text("\n".join(json.dumps(fact) for fact in FACTS) + "\n", encoding="utf-8")
    with Memory(out) as memory:
        done = learn_into(
            memory, loaded.model, loaded.tokenizer, read_facts(path), OVERLAY, settings=settings
        )
    if mounted(loaded.model) != [OVERLAY]:
        raise RuntimeError(f"overlays {mounted(loaded.model)} are mounted in place of {OVERLAY}")
    return done


def _answers(loaded: Loaded, tokens: int = 8) -> list[str]:
    return [
        "".join(continue_text(loaded.model, loaded.tokenizer, one, max_tokens=tokens)) for one in QUESTIONS
    ]


@torch.no_grad()
def _logits(loaded: Loaded) -> list[Tensor]:
    """Of whole prompts, and of one more token with a cache."""
    model: PreTrainedModel = loaded.model
    name = cache_name(model)
    said = []
    for prompt in QUESTIONS:
        ids = torch.tensor(
            [loaded.tokenizer(prompt, add_special_tokens=False)["input_ids"]], device=model.device
        )
        whole = model(ids, use_cache=True)
        step = model(ids[:, -1:], use_cache=True, **{name: getattr(whole, name)})
        said += [whole.logits, step.logits]
    return said


def _fingerprint(folder: Path) -> str:
    """A hash of what came with the model: its dense weights, its slabs, its config."""
    digest = hashlib.sha256()
    slabs: Sequence[Path] = sorted((folder / "memory").glob("*.slab"))
    for path in (
        folder / "config.json",
        folder / "model.safetensors",
        folder / "memory" / "memory.json",
        *slabs,
    ):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _line(text: str) -> str:
    return " ".join(text.split())


def _yes(truth: bool) -> str:
    return "yes" if truth else "NO"
