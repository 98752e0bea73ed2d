"""Peers that change weights: LoRA, ROME and MEMIT, on the plain model, with the prompts that ours learns from.

ROME (Meng et al. 2022): one rank-one change of a down projection a fact, one after the other. MEMIT (Meng et al. 2023):
the changes of all facts at once, spread over several layers by least squares. What both want at the subject's last
token is found as ours is, by `write_values`, there and nowhere else; second moments are those of the standard
library's documentation. LoRA (Hu et al. 2021) by peft, on all linear maps. Each leaves the model as it found it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.facts_methods import Held, target_loss
from benchmarks.facts_scoring import Record
from mindset.facts.background import ordinary_tokens
from mindset.facts.cut_texts import Cut
from mindset.facts.lessons import Lesson, make_lesson
from mindset.facts.write_values import Exercise, WriteSettings, write_values
from mindset.graft.sources import Loaded

__all__ = ["lora", "memit", "rome"]

MEMIT_LAYERS = (2, 3, 4, 5, 6)
ROME_LAYER = 4
_WRITE = WriteSettings(steps=25, learning_rate=0.5, guard=0.0625, guards_a_step=1, together=100)


@contextmanager
def lora(
    loaded: Loaded,
    records: Sequence[Record],
    *,
    rank: int = 8,
    rate: float = 1e-3,
    epochs: int = 12,
    least: int = 30,
) -> Iterator[Held]:
    """Adapters trained on all phrasings of all facts, 32 a step, in `least` steps however few they are."""
    from peft import LoraConfig, get_peft_model

    began, lessons = time.perf_counter(), _lessons(loaded, records)
    wanted = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = get_peft_model(loaded.model, wanted)
    try:
        texts = [(cut.ids, n) for one in lessons for cut, n in zip(one.prompts, one.targets, strict=True)]
        some = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(some, lr=rate, weight_decay=0.0)
        steps = max(least, epochs * len(texts) // 32)
        batch = min(32, len(texts))
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
            drawn = [texts[i] for i in torch.randint(len(texts), (batch,), generator=generator).tolist()]
            loss = target_loss(model, drawn)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        yield Held(model, time.perf_counter() - began)
    finally:
        model.unload()


@contextmanager
def rome(loaded: Loaded, records: Sequence[Record]) -> Iterator[Held]:
    """A rank-one change for every fact."""
    began, lessons = time.perf_counter(), _lessons(loaded, records)
    with _unchanged(loaded.model, (ROME_LAYER,)):
        weight = _down(loaded.model, ROME_LAYER).weight
        inverse = torch.linalg.inv(_moment(loaded.model, loaded.tokenizer, ROME_LAYER))
        for lesson in lessons:
            delta = _wanted(loaded, [lesson], ROME_LAYER)[0]
            key = _subject_keys(loaded, [lesson], ROME_LAYER)[0]
            direction = inverse @ key
            _add(weight, torch.outer(delta, direction) / (direction @ key))
        yield Held(loaded.model, time.perf_counter() - began)


@contextmanager
def memit(loaded: Loaded, records: Sequence[Record], weight_of_moment: float = 1500.0) -> Iterator[Held]:
    """All facts at once, over `MEMIT_LAYERS`."""
    began, lessons = time.perf_counter(), _lessons(loaded, records)
    moments = {layer: _moment(loaded.model, loaded.tokenizer, layer) for layer in MEMIT_LAYERS}
    with _unchanged(loaded.model, MEMIT_LAYERS):
        wanted = _wanted(loaded, lessons, MEMIT_LAYERS[-1])
        target = _subject_states(loaded, lessons, MEMIT_LAYERS[-1]) + wanted
        for i, layer in enumerate(MEMIT_LAYERS):
            keys = _subject_keys(loaded, lessons, layer)
            left = target - _subject_states(loaded, lessons, MEMIT_LAYERS[-1])
            share = left / (len(MEMIT_LAYERS) - i)
            moment = weight_of_moment * moments[layer] + keys.T @ keys
            _add(_down(loaded.model, layer).weight, torch.linalg.solve(moment, keys.T @ share).T)
        yield Held(loaded.model, time.perf_counter() - began)


def _lessons(loaded: Loaded, records: Sequence[Record]) -> list[Lesson]:
    return [make_lesson(loaded.tokenizer, one.fact, n_phrasings=9, n_guards=8) for one in records]


def _down(model: Any, layer: int) -> Any:
    return model.model.layers[layer].mlp.down_proj


@contextmanager
def _unchanged(model: Any, layers: Sequence[int]) -> Iterator[None]:
    kept = {layer: _down(model, layer).weight.detach().clone() for layer in layers}
    try:
        yield
    finally:
        with torch.no_grad():
            for layer, rows in kept.items():
                _down(model, layer).weight.copy_(rows)


@torch.no_grad()
def _add(weight: torch.Tensor, change: torch.Tensor) -> None:
    weight += change.to(weight)


def _wanted(loaded: Loaded, lessons: Sequence[Lesson], layer: int) -> torch.Tensor:
    """What has to be added at the subject, after the block of a layer `[facts, d_model]`."""
    block = loaded.model.model.layers[layer].mlp
    block.layer, block.d_model = layer, int(loaded.model.config.hidden_size)  # as a bank says of itself
    exercises = []
    for one in lessons:
        cuts = (*one.prompts, *one.guards)
        fires = tuple(torch.arange(len(cut.ids) - cut.at) == 0 for cut in cuts)
        exercises.append(Exercise(one.prompts, one.targets, one.guards, fires))
    return write_values(loaded.model, block, exercises, _WRITE).double().to(loaded.model.device)


def _at_subjects(loaded: Loaded, lessons: Sequence[Lesson], module: Any, before: bool) -> torch.Tensor:
    """Means over the phrasings of what a module gets, or returns, at the subject."""
    cuts = [(i, cut) for i, one in enumerate(lessons) for cut in one.prompts]
    found = []
    for start in range(0, len(cuts), 128):
        some = [cut for _, cut in cuts[start : start + 128]]
        rows, seen = _rows(some, loaded.model.device), list[torch.Tensor]()

        def keep(_: Any, given: Any, returned: Any, seen: list[torch.Tensor] = seen) -> None:
            seen.append(given[0] if before else returned[0] if isinstance(returned, tuple) else returned)

        handle = module.register_forward_hook(keep)
        with torch.no_grad():
            loaded.model(rows, use_cache=False, logits_to_keep=1)
        handle.remove()
        places = torch.arange(len(some), device=rows.device), torch.tensor([cut.at for cut in some])
        found.append(seen[0][places[0], places[1].to(rows.device)].double())
    joined, owner = torch.cat(found), torch.tensor([i for i, _ in cuts])
    return torch.stack([joined[owner == i].mean(0) for i in range(len(lessons))])


def _rows(cuts: Sequence[Cut], device: Any) -> torch.Tensor:
    width = max(len(cut.ids) for cut in cuts)
    return torch.tensor([[*cut.ids] + [0] * (width - len(cut.ids)) for cut in cuts], device=device)


def _subject_keys(loaded: Loaded, lessons: Sequence[Lesson], layer: int) -> torch.Tensor:
    return _at_subjects(loaded, lessons, _down(loaded.model, layer), before=True)


def _subject_states(loaded: Loaded, lessons: Sequence[Lesson], layer: int) -> torch.Tensor:
    return _at_subjects(loaded, lessons, loaded.model.model.layers[layer], before=False)


@functools.lru_cache(maxsize=8)
@torch.no_grad()
def _moment(model: Any, tokenizer: Any, layer: int) -> torch.Tensor:
    """The second moment of what goes into the down projection `[d_mlp, d_mlp]`, of the model as it was."""
    total: list[torch.Tensor] = []

    def keep(_: Any, args: Any) -> None:
        rows = args[0].reshape(-1, args[0].shape[-1]).double()
        total.append(rows.T @ rows / len(rows))

    handle = _down(model, layer).register_forward_pre_hook(keep)
    for rows in ordinary_tokens(tokenizer).split(8):
        model(rows.to(model.device), use_cache=False, logits_to_keep=1)
    handle.remove()
    moment = torch.stack(total).mean(0)
    return moment + 1e-4 * moment.diagonal().mean() * torch.eye(len(moment)).to(moment)
