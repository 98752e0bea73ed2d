"""One author's stories as an overlay, against LoRA with the same seconds of computing on the same windows.

Written: 204 kB of Lovecraft (three stories). Scored: five other stories of his, and WikiText-2 for what it costs
elsewhere, bits per byte after `bpb-1` in windows of 512. LoRA (peft): rank 8 on all linear maps, AdamW. Both sides'
settings were chosen on `the_thing_on_the_doorstep` and WikiText from 100,000 (docs/results/facts.notes.md).
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.facts_methods import exactly_as_before
from benchmarks.rows import Bench, Measured, settings_of
from mindset.facts.corpus import CorpusText, learn_corpus_into
from mindset.facts.corpus_slots import CorpusSettings
from mindset.graft.convert import convert
from mindset.graft.mounting import unmount
from mindset.graft.plan import ConversionPlan
from mindset.graft.sources import Loaded, load_teacher
from mindset.probe.bits import score
from mindset.probe.windows import Windows
from mindset.store.memory import Memory

__all__ = ["corpus_rows"]

WRITTEN = ("the_call_of_cthulhu", "herbert_west_reanimator", "the_shunned_house")
SCORED = ("cool_air", "the_festival", "from_beyond", "the_hound", "the_nameless_city")
LORA_RATE = 3.5e-4
WINDOW = 512


def corpus_rows(bench: Bench, shared: Path) -> None:
    """What the stories gain, what WikiText loses, and what is left when the overlay is off."""
    settings = CorpusSettings(passes=0.05) if bench.quick else CorpusSettings()
    most = 2 if bench.quick else 40
    kept: dict[str, float] = {}

    def figures() -> dict[str, float]:
        if not kept:
            kept.update(_figures(shared, settings, most))
        return kept

    shown = {**settings_of(settings), "windows": most, "threads": torch.get_num_threads()}
    for name, bar, unit, baseline in (
        ("stories gain more than with LoRA", ">= 0", "bits/byte", "LoRA: stories gain"),
        ("stories gain", None, "bits/byte", "LoRA: stories gain"),
        ("WikiText loses", "<= 0.01", "bits/byte", "LoRA: WikiText loses"),
        ("minutes of two cores", "<= 20", "minutes", None),
        ("logits differ when it is off, or slots damaged", "<= 0", "differences", None),
    ):

        def measure(name: str = name, baseline: str | None = baseline) -> Measured:
            found = figures()
            return Measured(found[name], None if baseline is None else found[baseline], extra=found)

        bench.row(f"corpus overlay: {name}", measure, unit=unit, bar=bar, settings=shown)


def _figures(shared: Path, settings: CorpusSettings, most: int) -> dict[str, float]:
    text = "\n\n".join(_story(shared, name) for name in WRITTEN)
    with tempfile.TemporaryDirectory(prefix="mindset-corpus-") as place:
        folder = Path(place) / "model"
        convert("smollm2", folder, ConversionPlan())
        loaded = load_teacher(str(folder))
        texts = _texts(shared, loaded.tokenizer, most)
        before = _scores(loaded.model, texts)
        began = time.process_time()
        with Memory(folder) as memory:
            learn_corpus_into(
                memory, loaded.model, loaded.tokenizer, CorpusText("stories", text), settings=settings
            )
            taken = time.process_time() - began
            mine = _scores(loaded.model, texts)
            unmount(loaded.model, "corpus")
            memory.unmount("corpus")
            damaged = len(memory.store.verify())
        same = exactly_as_before(loaded, folder, ["The oldest and strongest emotion", "Once"])
    theirs = _with_lora(text, texts, settings, taken)
    found = {"minutes of two cores": taken / 120}
    found["logits differ when it is off, or slots damaged"] = float(damaged + (not same))
    for name, after in (("", mine), ("LoRA: ", theirs)):
        found[f"{name}stories gain"] = before["stories"] - after["stories"]
        found[f"{name}WikiText loses"] = after["WikiText"] - before["WikiText"]
    found["stories gain more than with LoRA"] = found["stories gain"] - found["LoRA: stories gain"]
    return found


def _story(shared: Path, name: str) -> str:
    return (shared / "text" / "lovecraft" / f"{name}.txt").read_text(encoding="utf-8")


def _texts(shared: Path, tokenizer: Any, most: int) -> dict[str, list[Windows]]:
    wiki = (shared / "text" / "wikitext2-valid.txt").read_text(encoding="utf-8")[:60_000]
    stories = [Windows.of(_story(shared, name), tokenizer, WINDOW).first(most // 5 + 1) for name in SCORED]
    return {"stories": stories, "WikiText": [Windows.of(wiki, tokenizer, WINDOW).first(most)]}


def _scores(model: Any, texts: dict[str, list[Windows]]) -> dict[str, float]:
    found = {}
    for name, some in texts.items():
        scored = [score(model, windows) for windows in some]
        nats = sum(float(one.nll.sum()) for one in scored)
        found[name] = (
            nats / sum(int(one.n_bytes.sum()) for one in scored) / torch.log(torch.tensor(2.0)).item()
        )
    return found


def _with_lora(text: str, texts: Any, settings: CorpusSettings, seconds: float) -> dict[str, float]:
    from peft import LoraConfig, get_peft_model

    loaded: Loaded = load_teacher("smollm2")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wanted = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(loaded.model, wanted)
    ids = torch.tensor(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])
    train_lora(model, ids, replace(settings, learning_rate=LORA_RATE), seconds)
    return _scores(model, texts)


def train_lora(model: Any, ids: torch.Tensor, settings: CorpusSettings, seconds: float) -> None:
    """Adapters trained on the windows that ours are trained on, for so many seconds of computing."""
    windows = ids[: len(ids) // settings.window * settings.window].view(-1, settings.window)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], weight_decay=0.0)
    generator, began = torch.Generator().manual_seed(settings.seed), time.process_time()
    while (share := (time.process_time() - began) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - share)
        rows = windows[torch.randint(len(windows), (settings.batch,), generator=generator)]
        logits = model(input_ids=rows, use_cache=False).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.eval()
