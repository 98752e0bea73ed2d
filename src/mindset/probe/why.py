"""Which slots spoke for the next token, and what each of them says.

Slots are ranked by influence at the last position of the prompt: abs(weight) times the length of the value as the
bank adds it (a featural or associative value goes through its head's part of the output projection first). What a
slot promotes is its value, with the sign of its weight, on the direct path to the logits; `logit` is what it so adds
to the most likely token's, to first order.

`why` asks a model folder, whose memory knows ids, labels and sources. Invariant: asking changes nothing in the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mindset.errors import UsageError
from mindset.graft.bank import Bank
from mindset.graft.decoding import spelled
from mindset.graft.influence import located, residual_values
from mindset.graft.model import banks
from mindset.graft.mounting import mounted
from mindset.graft.recording import Read, record
from mindset.graft.sources import load_teacher
from mindset.probe.generate import prompt_tokens
from mindset.probe.logits import evaluation_mode
from mindset.probe.unembedding import direct_logits, final_norm, residual_directions
from mindset.probe.why_facts import WhyFact, answers
from mindset.store.slot_names import name_slots

__all__ = ["Candidate", "Why", "WhySlot", "explain", "why"]

SHOWN_CANDIDATES, SHOWN_PROMOTED = 5, 5


@dataclass(frozen=True)
class Candidate:
    """A token that may come next."""

    token: str
    """Its text."""
    id: int
    """Its number in the vocabulary."""
    probability: float
    """What the model gives it."""


@dataclass(frozen=True)
class WhySlot:
    """One slot that was read at the last position."""

    layer: int
    """Layer of its bank."""
    head: int
    """Head of its bank; 0 for a mirror bank."""
    shard: str
    """Shard of its bank."""
    row: int
    """Row of the head in the shard."""
    influence: float
    """abs(weight) x norm(value)."""
    weight: float
    """Its weight, with its sign."""
    logit: float
    """What it adds directly to the logit of the most likely token."""
    promotes: tuple[str, ...]
    """The tokens whose logits it raises most."""
    source: str
    """Where it comes from: the text that it cites, or what kind of slot it is."""
    slot: int | None = None
    """Its id, which `mindset memory` takes; None for a model that was not saved."""
    label: str = ""
    """What people call it."""


@dataclass(frozen=True)
class Why:
    """What is likely to come next, and the slots that spoke."""

    prompt: str
    """The text that was continued."""
    candidates: tuple[Candidate, ...]
    """Likeliest tokens first."""
    slots: tuple[WhySlot, ...]
    """Most influential first."""
    slots_read: int
    """Slots read at the last position, all layers and heads together."""
    influence_share: float
    """Share of the summed influence of all of them that the shown ones have."""
    facts: tuple[WhyFact, ...] = ()
    """Radius slots that answered somewhere in the prompt."""

    def to_json(self) -> dict[str, Any]:
        """The answer as plain data."""
        return asdict(self)

    def to_text(self) -> str:
        """The answer as lines for a terminal."""
        shown = (
            f"{len(self.slots)} of {self.slots_read:,} slots read, "
            f"with {self.influence_share:.1%} of their influence"
        )
        likely = "   ".join(f"{_shown(c.token)} {c.probability:.1%}" for c in self.candidates)
        saved = any(slot.slot is not None for slot in self.slots)
        name = "slot" if saved else "row"
        head = ("layer", "head", name, "influence", "weight", "logit", "source", "promotes")
        rows = [
            (
                str(slot.layer),
                str(slot.head),
                str((slot.slot or "-") if saved else slot.row),
                f"{slot.influence:.2f}",
                f"{slot.weight:+.2f}",
                f"{slot.logit:+.2f}",
                slot.label or _short(slot.source),
                _fitting(slot.promotes),
            )
            for slot in self.slots
        ]
        return "\n".join(
            [
                f"next   {likely}",
                "",
                *self._fact_lines(),
                *_table(head, rows, right=6),
                "",
                shown,
                f"logit: what a slot adds directly to {_shown(self.candidates[0].token)}",
            ]
        )

    def _fact_lines(self) -> list[str]:
        lines = []
        for fact in self.facts:
            name = f"slot {fact.slot}" if fact.slot is not None else f"row {fact.row}"
            did = "answered" if fact.margin > 0 else "leaned"
            lines.append(
                f"fact   {name} of overlay {fact.overlay} {did} at {_shown(fact.token)} (layer {fact.layer}); "
                f"without it {_shown(self.candidates[0].token)} {fact.probability_without:.1%}, "
                f"likeliest {_shown(fact.next_without)}"
            )
            if fact.source:
                lines.append(f"       {_short(fact.source, 110)}")
        return [*lines, ""] if lines else []


def why(
    folder: str | Path,
    prompt: str,
    top: int = 10,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
) -> Why:
    """Explain the next token after `prompt` by the `top` slots of the model in `folder`."""
    loaded = load_teacher(str(folder), dtype=dtype, device=device)
    if not banks(loaded.model):
        raise UsageError(
            f"{loaded.name} has no memory to ask; `mindset convert {folder} --out DIR` gives it one"
        )
    answer = explain(loaded.model, loaded.tokenizer, prompt, top)
    memory = Path(folder) / "memory"
    return _with_names(answer, memory) if memory.is_dir() else answer


def _with_names(answer: Why, memory: Path) -> Why:
    places = [(slot.layer, slot.shard, slot.head, slot.row) for slot in answer.slots]
    names = name_slots(memory, places)
    slots = []
    for slot, place in zip(answer.slots, places, strict=True):
        name = names.get(place)
        if name is None:
            slots.append(slot)
            continue
        source = f"{name.source}: {name.quote}" if name.source else slot.source
        slots.append(replace(slot, slot=name.id, label=name.label, source=source))
    return replace(answer, slots=tuple(slots), facts=_named_facts(answer.facts, memory))


def _named_facts(facts: tuple[WhyFact, ...], memory: Path) -> tuple[WhyFact, ...]:
    places = [(fact.layer, fact.overlay, 0, fact.row) for fact in facts]
    names = name_slots(memory, places)
    named = []
    for fact, place in zip(facts, places, strict=True):
        if (name := names.get(place)) is not None:
            source = f"{name.source}: {name.quote}"
            fact = replace(fact, slot=name.id, label=name.label, source=source)  # noqa: PLW2901
        named.append(fact)
    return tuple(named)


def explain(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, top: int = 10) -> Why:
    """Explain the next token after `prompt` by the `top` slots of `model`."""
    if top < 1:
        raise UsageError(f"top={top}: ask for at least 1 slot")
    if not banks(model):
        raise UsageError(f"a {type(model).__name__} has no memory to ask; convert it first")
    asked = prompt_tokens(model, tokenizer, prompt)
    logits, state, reads = _read(model, asked)
    probabilities, ids = logits.softmax(-1).topk(min(SHOWN_CANDIDATES, len(logits)))
    candidates = tuple(
        Candidate(spelled(tokenizer, i), i, p)
        for i, p in zip(ids.tolist(), probabilities.tolist(), strict=True)
    )
    found, slots_read, total = _rank(model, reads, top)
    slots = []
    for one in found:
        layer = one.bank.layer
        direction = residual_directions(model, layer, reads[layer].output[-1], one.added[None])
        slots.append(_explained(tokenizer, one, direct_logits(model, state, direction)[0], candidates[0].id))
    shown = sum(slot.influence for slot in slots)
    facts = tuple(
        replace(
            fact,
            token=spelled(tokenizer, int(asked[fact.place])),
            next_without=spelled(tokenizer, fact.likeliest_without),
        )
        for fact in (answers(model, asked) if mounted(model) else ())
    )
    return Why(prompt, candidates, tuple(slots), slots_read, shown / total if total else 0.0, facts)


@dataclass(frozen=True, eq=False)
class _Found:
    bank: Bank
    head: int
    shard: str
    row: int
    """Row in the shard."""
    weight: float
    influence: float
    added: Float[Tensor, " d_model"]


def _read(
    model: PreTrainedModel, ids: Int[Tensor, " prompt"]
) -> tuple[Float[Tensor, " vocab"], Float[Tensor, " d_model"], dict[int, Read]]:
    """Logits and residual state at the last position, and what each bank read in the pass."""
    reads: dict[int, Read] = {}
    states: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        states.append(args[0][0, -1])

    norm = final_norm(model)
    before = model.get_output_embeddings() if isinstance(norm, nn.Identity) else norm
    handle = before.register_forward_pre_hook(keep)
    try:
        with (
            evaluation_mode(model),
            torch.no_grad(),
            record(model, lambda read: reads.update({read.layer: read})),
        ):
            logits = model(input_ids=ids.to(model.device)[None], use_cache=False).logits[0, -1]
    finally:
        handle.remove()
    return logits.float(), states[-1], reads


def _rank(model: PreTrainedModel, reads: dict[int, Read], top: int) -> tuple[list[_Found], int, float]:
    """The most influential slots at the last position; how many were read there, and their summed influence."""
    found: list[_Found] = []
    slots_read, total = 0, 0.0
    for layer, bank in banks(model).items():
        for name, weights, values in _spoken(bank, reads[layer]):
            influence = weights.abs() * values.norm(dim=-1)
            slots_read += int((weights != 0).sum())
            total += float(influence.sum())
            for place in influence.flatten().topk(min(top, influence.numel())).indices.tolist():
                head, row = at = divmod(place, influence.shape[1])
                shard, row = (name, row) if name else located(bank, row)
                weight, strength = float(weights[at]), float(influence[at])
                found.append(_Found(bank, head, shard, row, weight, strength, weight * values[at]))
    found = sorted((one for one in found if one.influence > 0), key=lambda one: -one.influence)
    return found[:top], slots_read, total


def _spoken(bank: Bank, read: Read) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Weights at the last token and values: a bank's own slots (no name), then each overlay that is always read."""
    yield "", read.weights[-1], residual_values(bank)
    for name, shard in bank.added.items():
        yield name, shard.weights(read.x[-1:]), shard.value[None]


def _explained(
    tokenizer: PreTrainedTokenizerBase, found: _Found, logits: Float[Tensor, " vocab"], likeliest: int
) -> WhySlot:
    raised = logits.topk(min(SHOWN_PROMOTED, len(logits))).indices.tolist()
    return WhySlot(
        layer=found.bank.layer,
        head=found.head,
        shard=found.shard,
        row=found.row,
        influence=found.influence,
        weight=found.weight,
        logit=float(logits[likeliest]),
        promotes=tuple(spelled(tokenizer, token) for token in raised),
        source="the teacher's own neuron"
        if found.bank.kind == "mirror" and found.shard == "base"
        else "learned",
    )


def _shown(token: str) -> str:
    """A token in quotes, so that spaces and line breaks are seen."""
    return f"'{token.encode('unicode_escape').decode() if not token.isprintable() else token}'"


def _short(text: str, width: int = 40) -> str:
    """The beginning of a text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 3]}..."


def _fitting(tokens: Sequence[str], width: int = 40) -> str:
    """As many tokens as fit into a line of a terminal, at least one."""
    line = _shown(tokens[0])
    for token in tokens[1:]:
        if len(line) + len(_shown(token)) >= width:
            break
        line = f"{line} {_shown(token)}"
    return line


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], right: int) -> list[str]:
    """Lines of a table whose first `right` columns are flush right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        placed = (
            c.rjust(w) if i < right else c.ljust(w)
            for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(placed).rstrip()

    return [line(row) for row in (head, *rows)]
