"""Slots of a model folder by what they do: what they promote, and what fires on a prompt.

`promoting` ranks every slot, overlays included, by how much its value adds to a token's logit on the direct path, per
unit of weight, linearised at the state after the text that is searched for. `firing` ranks what was read at the last
token of a prompt by influence, as `why` does. Invariant: asking changes nothing in the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mindset.errors import UsageError
from mindset.graft.influence import residual_values
from mindset.graft.model import banks
from mindset.graft.sources import load_teacher
from mindset.probe.generate import prompt_tokens
from mindset.probe.logits import evaluation_mode
from mindset.probe.unembedding import final_norm, logit_gradient
from mindset.probe.why import why
from mindset.store.slot_names import name_slots

__all__ = ["FoundSlot", "firing", "promoting"]


@dataclass(frozen=True)
class FoundSlot:
    """A slot, and why it was found."""

    layer: int
    head: int
    shard: str
    row: int
    score: float
    """What it adds to the token's logit per unit of weight, or its influence."""
    slot: int | None = None
    """Its id."""
    label: str = ""
    source: str = ""
    """The text that it cites."""


def promoting(folder: str | Path, text: str, limit: int = 20, *, layer: int | None = None) -> list[FoundSlot]:
    """The slots that add most to the first token of `text`, where it follows a space."""
    loaded = load_teacher(str(folder))
    token = _first_token(loaded.tokenizer, text)
    state = _final_state(loaded.model, prompt_tokens(loaded.model, loaded.tokenizer, text))
    gradient = logit_gradient(loaded.model, state, token)
    found = [one for scores in _scored(loaded.model, gradient, layer) for one in _best(*scores, limit)]
    return _named(sorted(found, key=lambda one: -one.score)[:limit], Path(folder))


def firing(folder: str | Path, prompt: str, limit: int = 20, *, layer: int | None = None) -> list[FoundSlot]:
    """The slots that spoke at the last token of `prompt`, and the radius slots that answered anywhere in it."""
    answer = why(folder, prompt, top=limit if layer is None else 10_000)
    facts = [
        FoundSlot(one.layer, 0, one.overlay, one.row, one.margin, one.slot, one.label, one.source)
        for one in answer.facts
    ]
    spoke = [
        FoundSlot(one.layer, one.head, one.shard, one.row, one.influence, one.slot, one.label, one.source)
        for one in answer.slots
    ]
    return [one for one in (*facts, *spoke) if layer in (None, one.layer)][:limit]


def _first_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    ids = tokenizer(f" {text.strip()}", add_special_tokens=False)["input_ids"]
    if not text.strip() or not ids:
        raise UsageError("give a text that slots may promote")
    return int(ids[0])


@torch.no_grad()
def _final_state(model: PreTrainedModel, ids: Int[Tensor, " prompt"]) -> Float[Tensor, " d_model"]:
    """The residual state after the last layer, at the last token."""
    states: list[Tensor] = []
    norm = final_norm(model)
    before = cast(nn.Module, model.get_output_embeddings()) if isinstance(norm, nn.Identity) else norm
    handle = before.register_forward_pre_hook(lambda _, args: states.append(args[0][0, -1]))
    try:
        with evaluation_mode(model):
            model(input_ids=ids.to(model.device)[None], use_cache=False)
    finally:
        handle.remove()
    return states[-1]


def _scored(
    model: PreTrainedModel, gradient: Float[Tensor, " d_model"], layer: int | None
) -> Iterator[tuple[int, list[tuple[str, int]], Float[Tensor, "n_heads n_slots"]]]:
    """By bank, and by overlay: the layer, its shards with their sizes, and what each slot adds."""
    for index, bank in banks(model).items():
        if layer not in (None, index):
            continue
        shards = [(name, int(shard.n_slots)) for name, shard in cast(nn.ModuleDict, bank.shards).items()]  # type: ignore[arg-type]
        yield index, shards, residual_values(bank) @ gradient
        for name, overlay in (bank.added | bank.overlays).items():
            if overlay.value is not None:
                yield index, [(name, overlay.n_slots)], (overlay.value @ gradient)[None]


def _best(
    layer: int, shards: Sequence[tuple[str, int]], scores: Float[Tensor, "n_heads n_slots"], limit: int
) -> list[FoundSlot]:
    best = scores.flatten().topk(min(limit, scores.numel()))
    found = []
    for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        head, row = divmod(place, scores.shape[1])
        for name, size in shards:
            if row < size:
                found.append(FoundSlot(layer, head, name, row, score))
                break
            row -= size
    return found


def _named(found: Sequence[FoundSlot], folder: Path) -> list[FoundSlot]:
    places = [(one.layer, one.shard, one.head, one.row) for one in found]
    names = name_slots(folder / "memory", places)
    named = []
    for one, place in zip(found, places, strict=True):
        name = names.get(place)
        source = "" if name is None or not name.source else f"{name.source}: {name.quote}"
        named.append(one if name is None else replace(one, slot=name.id, label=name.label, source=source))
    return named
