"""A body of text into a memory, as an overlay: `mindset memory learn DIR STORIES.txt`.

Its slots are mounted and taken off together; each cites the passage of the text that it spoke loudest on. One entry of
the history. Does not know the command line. Invariant: where anything fails the memory is as it was, and a model whose
corpus is taken off is the model that never had one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mindset.errors import DataError, UsageError
from mindset.facts.corpus_slots import CorpusSettings, train_slots
from mindset.graft.added import AddedShard
from mindset.graft.calibration import ff_inputs
from mindset.graft.model import banks
from mindset.graft.mounting import mount, unmount, without_overlays
from mindset.graft.sources import load_teacher
from mindset.store.edit import NewShard
from mindset.store.memory import Memory
from mindset.store.overlays import check_overlay_name
from mindset.store.slots import Citation, NewSlot
from mindset.store.store import Incoming, IncomingSlots

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "CORPUS_TAG",
    "CorpusText",
    "LearnedCorpus",
    "learn_corpus",
    "learn_corpus_into",
    "read_corpus_text",
]

CORPUS_TAG = "corpus"
_WINDOW = 512
"""Tokens that are read at once to see what each slot speaks on."""
_PASSAGE = re.compile(r"[^.!?\n]*[.!?\n]?")


@dataclass(frozen=True)
class CorpusText:
    """A text to learn."""

    name: str
    text: str


@dataclass(frozen=True)
class LearnedCorpus:
    """What a learning did."""

    overlay: str
    layers: tuple[int, ...]
    slots: tuple[int, ...]
    """Ids of the new slots."""
    tokens: int
    """Of the text."""
    loss: tuple[float, float]
    """Nats a token of the text, in the first and the last tenth of the training."""


def read_corpus_text(path: Path) -> CorpusText:
    """A file of UTF-8 text, or every `.txt` of a folder in the order of their names."""
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    try:
        texts = [file.read_text(encoding="utf-8") for file in files]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    text = "\n\n".join(texts)
    if not text.strip():
        raise DataError(f"{path} holds no text")
    return CorpusText(path.name, text)


def learn_corpus(
    folder: Path,
    given: CorpusText,
    overlay: str = "corpus",
    *,
    settings: CorpusSettings | None = None,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    progress: Callable[[float, float], None] = lambda _share, _loss: None,
) -> LearnedCorpus:
    """Write a text into the memory of the model in `folder`."""
    loaded = load_teacher(str(folder), dtype=dtype, device=device)
    if not banks(loaded.model):
        raise UsageError(f"{loaded.name} has no memory; `mindset convert {folder} --out DIR` gives it one")
    with Memory(Path(folder)) as memory:
        return learn_corpus_into(
            memory, loaded.model, loaded.tokenizer, given, overlay, settings=settings, progress=progress
        )


def learn_corpus_into(
    memory: Memory,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    given: CorpusText,
    overlay: str = "corpus",
    *,
    settings: CorpusSettings | None = None,
    progress: Callable[[float, float], None] = lambda _share, _loss: None,
) -> LearnedCorpus:
    """As `learn_corpus`, with the folder's memory open and its model loaded, which has the overlay afterwards."""
    settings = settings or CorpusSettings()
    _refuse(memory, overlay)
    told = tokenizer(given.text, add_special_tokens=False, return_offsets_mapping=True)
    ids, spans = torch.tensor(told["input_ids"]), told["offset_mapping"]
    losses: list[float] = []

    def keep(share: float, loss: float) -> None:
        losses.append(loss)
        progress(share, loss)

    with without_overlays(model):
        try:
            shards = train_slots(model, tokenizer, ids, overlay, settings, keep)
            loudest = _loudest(model, shards, ids)
        finally:
            unmount(model, overlay)
    parts = []
    for layer, shard in shards.items():
        cites = [_passage(given.text, spans[place][0]) for place in loudest[layer]]
        parts.append(_incoming(layer, overlay, shard, cites))
    put = memory.put_in(Incoming([(given.name, given.text)], parts), f"{given.name}, overlay {overlay}")
    mount(model, memory.store, overlay)
    tenth = max(1, len(losses) // 10)
    began, ended = np.mean(losses[:tenth]), np.mean(losses[-tenth:])
    return LearnedCorpus(overlay, tuple(shards), tuple(put.tolist()), len(ids), (float(began), float(ended)))


def _refuse(memory: Memory, overlay: str) -> None:
    check_overlay_name(overlay)
    if any(info.name == overlay for info in memory.store.shards()):
        raise UsageError(
            f"there is an overlay {overlay!r} already; a text is learned into a new one: give --overlay NAME"
        )


@torch.no_grad()
def _loudest(
    model: PreTrainedModel, shards: dict[int, AddedShard], ids: Int[Tensor, " n_tokens"]
) -> dict[int, list[int]]:
    """By layer: the token of the text on which each slot has the most influence."""
    best = {layer: torch.full((shard.n_slots,), -1.0) for layer, shard in shards.items()}
    where = {layer: torch.zeros(shard.n_slots, dtype=torch.long) for layer, shard in shards.items()}
    start = 0

    def hear(layer: int, x: Float[Tensor, "pos d_model"]) -> None:
        found = shards[layer].weights(x).abs().cpu().max(dim=0)
        louder = found.values > best[layer]
        best[layer][louder] = found.values[louder]
        where[layer][louder] = found.indices[louder] + start

    def hearing(layer: int) -> Callable[[Tensor], None]:
        return lambda x: hear(layer, x)

    with ff_inputs(model, {layer: hearing(layer) for layer in shards}):
        for start in range(0, len(ids), _WINDOW):
            model.base_model(ids[None, start : start + _WINDOW].to(model.device), use_cache=False)
    return {layer: places.tolist() for layer, places in where.items()}


def _passage(text: str, at: int) -> tuple[int, int]:
    """Where the sentence around a character begins and ends."""
    start = max(text.rfind(mark, 0, at) for mark in ".!?\n") + 1
    while start < at and text[start].isspace():
        start += 1
    found = _PASSAGE.match(text, max(at, start))
    return start, max(at + 1, len(text) if found is None else found.end())


def _incoming(layer: int, overlay: str, shard: AddedShard, cites: Sequence[tuple[int, int]]) -> IncomingSlots:
    arrays = {
        "key": shard.key,
        "key_bias": shard.key_bias[:, None],
        "modulator": shard.modulator,
        "value": shard.value,
    }
    stored = {name: rows.detach().cpu().numpy().astype(np.float16) for name, rows in arrays.items()}
    fields = {name: {"dtype": str(rows.dtype), "d": int(rows.shape[1])} for name, rows in stored.items()}
    made = NewShard(layer, overlay, "mirror", 1, shard.rule, gated=True, fields=fields)
    return IncomingSlots(
        made, [NewSlot(cites=Citation(0, *one), tags=(CORPUS_TAG,)) for one in cites], stored
    )
