"""Ways to put facts into SmolLM2: ours, and what people would use otherwise. Each leaves the model as it found it.

`fine_tuned` trains the down projection of one layer's feed-forward block on the same prompts as ours;
`grace` is a codebook at one layer: the key is the block's input at the last token of the prompt, a value replaces its
output within a radius (Hartvigsen et al. 2023). `in_prompt` changes nothing and puts all facts before every text.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.facts_scoring import Record
from mindset.facts.fact import parse_facts
from mindset.facts.learn import learn_into
from mindset.facts.lessons import make_lesson, target_tokens
from mindset.facts.write_values import WriteSettings
from mindset.graft.convert import convert
from mindset.graft.folder import load
from mindset.graft.model import banks
from mindset.graft.mounting import unmount
from mindset.graft.plan import ConversionPlan
from mindset.graft.sources import Loaded, load_teacher
from mindset.probe.speed import cache_name
from mindset.store.memory import Memory

__all__ = ["Held", "as_text", "fine_tuned", "grace", "in_prompt", "ours", "scratch_model", "target_loss"]


@dataclass
class Held:
    """A model that holds facts, and what that took."""

    model: Any
    seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)


@contextmanager
def scratch_model(device: str = "cpu") -> Iterator[tuple[Loaded, Path]]:
    """SmolLM2 with a memory where facts go, k = all, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="mindset-facts-"))
    try:
        layers = fact_layers_of("smollm2")
        convert("smollm2", folder / "model", ConversionPlan(layers=",".join(map(str, layers))))
        yield load_teacher(str(folder / "model"), device=device), folder / "model"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fact_layers_of(source: str) -> list[int]:
    """The layers that `learn` would choose for a whole conversion."""
    from mindset.facts.fact_layers import DEPTHS
    from mindset.graft.plain import read_config
    from mindset.places import models_dir

    count = int(read_config(models_dir() / source)["num_hidden_layers"])
    return [round(depth * count) for depth in DEPTHS]


def as_text(records: Sequence[Record]) -> str:
    """Facts as `mindset memory learn` reads them."""
    told = ({"prompt": r.fact.prompt, "target": r.fact.target, "subject": r.fact.subject} for r in records)
    return "\n".join(json.dumps(one) for one in told)


@contextmanager
def ours(loaded: Loaded, folder: Path, records: Sequence[Record], settings: WriteSettings) -> Iterator[Held]:
    """Radius slots in an overlay."""
    Memory(folder).close()  # the ledger of the model's own slots is there before the first fact
    before, began = _bytes(folder), time.perf_counter()
    text = parse_facts(as_text(records), "facts.jsonl")
    with Memory(folder) as memory:
        done = learn_into(memory, loaded.model, loaded.tokenizer, text, settings=settings)
    taken = time.perf_counter() - began
    extra = {"slots": len(done.slots), "bytes_a_fact": (_bytes(folder) - before) / len(records)}
    try:
        yield Held(loaded.model, taken, extra)
    finally:
        unmount(loaded.model, "facts")
        with Memory(folder) as memory:
            extra["slots_damaged"] = len(memory.store.verify())
            memory.undo()


def exactly_as_before(loaded: Loaded, folder: Path, prompts: Sequence[str]) -> bool:
    """Whether `loaded` says what `folder` loaded anew says, whole prompts and one-token steps, to the bit."""
    fresh, name = load(folder, device=loaded.model.device), cache_name(loaded.model)
    with torch.no_grad():
        for prompt in prompts:
            told = loaded.tokenizer(prompt, add_special_tokens=False)["input_ids"]
            ids = torch.tensor([told], device=loaded.model.device)
            for model, said in ((fresh, []), (loaded.model, [])):
                out = model(ids, use_cache=True)
                said += [out.logits, model(ids[:, -1:], use_cache=True, **{name: getattr(out, name)}).logits]
                if model is fresh:
                    kept = said
                elif not all(torch.equal(a, b) for a, b in zip(kept, said, strict=True)):
                    return False
    return True


@contextmanager
def fine_tuned(loaded: Loaded, records: Sequence[Record], settings: WriteSettings) -> Iterator[Held]:
    """The values of a whole layer, the lower of ours, trained by Adam on the same prompts."""
    bank = banks(loaded.model)[min(banks(loaded.model))]
    weight: Any = next(p for n, p in bank.named_parameters() if n.endswith("base.value"))
    kept, began = weight.detach().clone(), time.perf_counter()
    lessons = [
        make_lesson(loaded.tokenizer, one.fact, n_phrasings=settings.phrasings, n_guards=1) for one in records
    ]
    try:
        _train(loaded.model, weight, lessons, settings)
        yield Held(loaded.model, time.perf_counter() - began)
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def _train(model: Any, weight: Any, lessons: Any, settings: WriteSettings) -> None:
    """Thirty-two prompts a step if there are as many, as many steps as ours have for each fact."""
    for parameter in model.parameters():
        parameter.requires_grad_(parameter is weight)
    optimizer = torch.optim.Adam([weight], lr=5e-4)
    generator = torch.Generator().manual_seed(0)
    texts = [(cut.ids, n) for one in lessons for cut, n in zip(one.prompts, one.targets, strict=True)]
    batch = min(32, len(texts))
    for _ in range(max(settings.steps, settings.steps * len(lessons) // 32)):
        drawn = [texts[i] for i in torch.randint(len(texts), (batch,), generator=generator).tolist()]
        optimizer.zero_grad()
        target_loss(model, drawn).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def target_loss(model: Any, drawn: Sequence[tuple[tuple[int, ...], int]]) -> torch.Tensor:
    """Cross-entropy of the last tokens of texts, each given with how many of them are its target."""
    width = max(len(ids) for ids, _ in drawn)
    rows = torch.tensor([[*ids] + [0] * (width - len(ids)) for ids, _ in drawn], device=model.device)
    wanted = torch.full_like(rows, -100)
    for row, (ids, n) in zip(wanted, drawn, strict=True):
        row[len(ids) - n : len(ids)] = torch.tensor(ids[-n:], device=row.device)
    logits = model(input_ids=rows, use_cache=False).logits[:, :-1].float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted[:, 1:].flatten())


class Prompted:
    """A model that has read a text before whatever it is given, for scoring alone."""

    def __init__(self, model: Any, ids: Sequence[int]) -> None:
        self.model, self.device, self.length = model, model.device, len(ids)
        with torch.no_grad():
            out = model(torch.tensor([list(ids)], device=model.device), use_cache=True, logits_to_keep=1)
        self.name = cache_name(model)
        self.read = [(layer.keys, layer.values) for layer in out[self.name].layers]

    def get_output_embeddings(self) -> Any:
        """Of the model that reads."""
        return self.model.get_output_embeddings()

    def __call__(
        self, ids: torch.Tensor, *, attention_mask: Any = None, position_ids: Any = None, **more: Any
    ) -> Any:
        from transformers import DynamicCache

        rows = len(ids)
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self.read):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
        mask = torch.ones_like(ids) if attention_mask is None else attention_mask
        whole = torch.cat([mask.new_ones(rows, self.length), mask], dim=1)
        places = (mask.cumsum(1) - 1).clamp_min(0) if position_ids is None else position_ids
        more["use_cache"] = True
        return self.model(
            ids, attention_mask=whole, position_ids=places + self.length, **more | {self.name: cache}
        )


@contextmanager
def in_prompt(loaded: Loaded, records: Sequence[Record], tokens: int = 2048) -> Iterator[Held]:
    """As many facts as fit into so many tokens, one sentence each, before every prompt."""
    ids: list[int] = []
    told = 0
    for record in records:
        more = loaded.tokenizer(f"{record.fact.prompt} {record.fact.target}.\n", add_special_tokens=False)[
            "input_ids"
        ]
        if len(ids) + len(more) > tokens:
            break
        ids, told = ids + more, told + 1
    yield Held(Prompted(loaded.model, ids), 0.0, {"facts told": told, "tokens": len(ids)})


@contextmanager
def grace(loaded: Loaded, records: Sequence[Record], radius: float = 1.0, steps: int = 30) -> Iterator[Held]:
    """A codebook keyed on the last token of the prompt alone, each value trained on that prompt alone."""
    bank = banks(loaded.model)[min(banks(loaded.model))]
    began = time.perf_counter()
    keys, values = [], []
    for record in records:
        key, value = _entry(loaded, bank, record, steps)
        keys.append(key)
        values.append(value)
    book, replaced = torch.stack(keys), torch.stack(values)

    def answer(_: Any, args: Any, output: Any) -> Any:
        distance = torch.cdist(args[0].reshape(-1, book.shape[1]), book)
        near, which = distance.min(-1)
        flat = output.reshape(-1, output.shape[-1]).clone()
        flat[near < radius] = replaced[which[near < radius]]
        return flat.view_as(output)

    handle = bank.register_forward_hook(answer)
    try:
        yield Held(loaded.model, time.perf_counter() - began)
    finally:
        handle.remove()


def _entry(loaded: Loaded, bank: Any, record: Record, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    prompt = loaded.tokenizer(record.fact.prompt, add_special_tokens=False)["input_ids"]
    target = target_tokens(loaded.tokenizer, record.fact.target)
    ids, at = torch.tensor([[*prompt, *target]], device=loaded.model.device), len(prompt) - 1
    seen: dict[str, torch.Tensor] = {}

    def put(_: Any, args: Any, output: Any) -> Any:
        seen.setdefault("key", args[0][0, at].detach().clone())
        value = seen.setdefault("value", output[0, at].detach().clone().requires_grad_())
        return torch.cat([output[:, :at], value[None, None], output[:, at + 1 :]], dim=1)

    for parameter in loaded.model.parameters():
        parameter.requires_grad_(False)
    handle = bank.register_forward_hook(put)
    try:
        with torch.no_grad():
            loaded.model(ids, use_cache=False)
        optimizer = torch.optim.Adam([seen["value"]], lr=1.0)
        for _ in range(steps):
            said = loaded.model(ids, use_cache=False).logits[0, at:-1].log_softmax(-1)
            loss = -said[torch.arange(len(target)), torch.tensor(target)].sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finally:
        handle.remove()
    return seen["key"], seen["value"].detach()


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
