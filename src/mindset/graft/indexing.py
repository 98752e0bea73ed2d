"""Record what a model's banks are asked on a text, and choose by that how each shard of its memory is searched.

Searching and choosing are the store's; what a query is (a feed-forward block's own input) and what ranks a score (the
shard's activation) are known here. Only mirror banks are asked by their inputs as they are; others stay exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor, nn

from mindset.errors import UsageError
from mindset.graft.bank import MirrorBank
from mindset.graft.calibration import ff_inputs
from mindset.graft.folder import load
from mindset.graft.model import banks
from mindset.graft.sources import load_tokenizer
from mindset.graft.torch_search import torch_searcher
from mindset.store.index_choice import Choice, Wanted, choose
from mindset.store.ivf import import_faiss
from mindset.store.memory import Memory
from mindset.store.search import ShardSearch
from mindset.store.shard_index import IndexPlace
from mindset.store.slab_store import SlabStore

__all__ = ["activation_in_numpy", "index_folder", "index_memory", "recorded_queries"]

WINDOW = 256
"""Tokens in a row."""


@torch.no_grad()
def recorded_queries(
    model: nn.Module, tokens: Int[Tensor, "batch pos"], layers: list[int]
) -> dict[int, Float32[np.ndarray, "n d_model"]]:
    """The inputs of the blocks (or banks) of `layers` on these tokens."""
    found: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}

    def take(layer: int) -> Callable[[Tensor], None]:
        return lambda x: found[layer].append(x.float().cpu().numpy())

    with ff_inputs(model, {layer: take(layer) for layer in layers}):
        for row in tokens.split(4):
            model(row.to(cast(Any, model).device), use_cache=False)
    return {layer: np.concatenate(some) for layer, some in found.items()}


def activation_in_numpy(activation: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """What a shard makes of its scores, over arrays."""

    def apply(scores: Float[np.ndarray, "q n"]) -> Float[np.ndarray, "q n"]:
        with torch.no_grad():
            return np.asarray(activation(torch.from_numpy(scores)).numpy())

    return apply


def index_memory(
    model: nn.Module, store: SlabStore, tokens: Int[Tensor, "batch pos"], wanted: Wanted, *, seed: int = 0
) -> Iterator[Choice]:
    """Try an index for every shard of the mirror banks; keep those that are chosen, and the reasons."""
    mirrored = {layer: bank for layer, bank in banks(model).items() if isinstance(bank, MirrorBank)}
    queries = recorded_queries(model, tokens, list(mirrored))
    for info in store.shards():
        if info.layer not in mirrored or info.name not in mirrored[info.layer].shards:
            continue
        shard = mirrored[info.layer].shards[info.name]
        activation = activation_in_numpy(cast(nn.Module, shard.activation))
        search = ShardSearch(store, info.layer, info.name, torch_searcher)
        choice, index = choose(search, queries[info.layer], activation, wanted, seed=seed)
        place = IndexPlace.of(store.folder, info.layer, info.name, store.memory.generation)
        if index is not None:
            index.save(place)
        else:
            for old in place.files():
                old.unlink()
        choice.save(place)
        yield choice


def index_folder(folder: Path, text: str, count: int, wanted: Wanted, *, seed: int = 0) -> list[Choice]:
    """The same for a model folder, on at most `count` tokens of `text`."""
    import_faiss()
    model = load(folder)
    ids = load_tokenizer(folder)(text[: 16 * count])["input_ids"][:count]
    window = min(WINDOW, len(ids))
    if not window:
        raise UsageError("a text without tokens records no queries; give a longer one")
    tokens = torch.tensor(ids[: len(ids) // window * window]).view(-1, window)
    with Memory(folder) as opened:
        return list(index_memory(model, opened.store, tokens, wanted, seed=seed))
