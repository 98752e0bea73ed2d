"""A million slots a layer with `--ram`: how much of them is in RAM while a model decodes, and how fast it still is.

The memory of `store_student`, saved as a model folder with its indexes, is opened in a process of its own, after the
model of ten thousand slots has run there. What is resident is sampled by a thread every 5 ms, anonymous pages and
files' together, and counted from before the large model was opened: so all that it keeps of its slots counts. What is
no slot does not: the bytes of the other weights, which are mapped and come in one after the other, are taken off.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.rows import ROOT, Bench, Measured, shared_data
from benchmarks.store_student import CANDIDATES, FEW, NOISE, K, chosen_index, student
from benchmarks.timing import missing, scratch
from mindset.graft.bank import MirrorBank
from mindset.graft.calibration import own_samples
from mindset.graft.folder import load, save
from mindset.graft.indexing import recorded_queries
from mindset.graft.model import banks
from mindset.graft.sources import load_teacher
from mindset.probe.speed import decode_ratio
from mindset.store.index_choice import Choice, Point, Wanted
from mindset.store.ivf import import_faiss
from mindset.store.shard_index import IndexPlace
from mindset.store.slab_store import SlabStore

__all__ = ["ram_rows"]


@dataclass(frozen=True)
class Subject:
    """Where the slots are."""

    place: str
    teacher: str
    layers: str
    pairs: int
    """Times that both models decode in turn."""


def ram_rows(bench: Bench) -> None:
    """Two rows of each run."""
    shared = shared_data()
    if shared is None or missing("faiss") or not Path("/proc/self/statm").exists():
        print(
            "skipped: rows on --ram need Linux, faiss and the shared data folder (MINDSET_SHARED)", flush=True
        )
        return
    for subject in (
        Subject("a layer", str(shared / "teachers/tinystories-656k"), "all", 10),
        Subject("in layer 15 of SmolLM2", "smollm2", "15", 5),
    ):
        _rows(bench, subject)


def _rows(bench: Bench, subject: Subject) -> None:
    many, ram = (200_000, 200 << 20) if bench.quick else (1_000_000, 400 << 20)
    kept: dict[str, Any] = {}

    def measure(field: str) -> Measured:
        if not kept:
            kept.update(_told(subject, many, ram, bench))
        return Measured(kept[field], 1.0, extra=dict(kept))

    settings = {"slots": many, "few": FEW, "k": K, "candidates": CANDIDATES, "noise": NOISE, "dtype": "float32",
                "ram": ram, "threads": torch.get_num_threads(), "slots_are": "replicated and perturbed",
                "lists": "of keys"}  # fmt: skip
    for name, field, unit, bar in (
        ("most in RAM", "most", "x what was allowed", "<= 1.1"),
        ("speed", "speed", f"x the speed of {FEW:,} by score in RAM", ">= 0.5"),
    ):
        bench.row(f"{many:,} slots {subject.place} with --ram {ram >> 20} MiB: {name}",
                  lambda field=field: measure(field), unit=unit, settings=settings, bar=bar)  # fmt: skip


def _told(subject: Subject, many: int, ram: int, bench: Bench) -> dict[str, Any]:
    loaded = load_teacher(subject.teacher)
    tokens = own_samples(loaded.model, rows=8 if bench.quick else 16, length=160, seed=bench.seed)
    with scratch() as folder:
        told: dict[str, Any] = {}
        for name, count in (("few", FEW), ("many", many)):
            rows = folder / f"{name}-rows"
            model = student(loaded, tokens, rows, count, bench.seed, subject.layers)
            save(model, folder / name, loaded.tokenizer)
            if name == "many":
                # what a model's first bank is asked no bank changes, and its teacher says it sooner
                asked = loaded.model if len(banks(model)) == 1 else model
                _index(folder / name, model, recorded_queries(asked, tokens, [*banks(model)]), told)
            del model
            shutil.rmtree(rows)
        torch.save(tokens[0][:64], folder / "prompt.pt")
        pairs = 2 if bench.quick else subject.pairs
        command = [sys.executable, "-m", "benchmarks.store_ram", str(folder), str(ram), str(pairs),
                   str(torch.get_num_threads())]  # fmt: skip
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise RuntimeError(ran.stderr)
        return told | json.loads(ran.stdout.splitlines()[-1])


def _index(folder: Path, model: Any, queries: dict[int, Any], told: dict[str, Any]) -> None:
    """Lists noted as chosen; the recall that they have is told."""
    with SlabStore(folder / "memory") as store:
        for info in store.shards():
            index, probes = chosen_index(store, model, queries[info.layer], info.layer, told)
            place = IndexPlace.of(store.folder, info.layer, info.name, store.memory.generation)
            index.save(place)
            recall = told[f"recall@{K} in layer {info.layer}"]
            best = Point("keys", 0, probes, recall, 0.0)
            wanted = Wanted(K, CANDIDATES)
            Choice(info.layer, info.name, index.search_exactly.count, "ivf", "for this benchmark", best, wanted, 128,
                   0.0, (best,)).save(place)  # fmt: skip


class _Sampler:
    """What is resident, looked at again and again."""

    def __init__(self) -> None:
        self.most, self._over = 0, False
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()

    def _look(self) -> None:
        while not self._over:
            self.most = max(self.most, resident())
            time.sleep(0.005)


def resident() -> int:
    """Bytes of this process that are in RAM."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * 4096


def _no_slots(model: Any) -> int:
    """Bytes of the weights that are no slots', each once."""
    slots = {rows.data_ptr() for bank in banks(model).values() for _, rows in bank.slot_parameters()}
    found = {weight.data_ptr(): weight.nbytes for weight in model.parameters()}
    return sum(size for address, size in found.items() if address not in slots)


def main(folder: str, ram: str, pairs: str, threads: str) -> None:
    """In the process that is looked at."""
    torch.set_num_threads(int(threads))
    prompt = torch.load(Path(folder) / "prompt.pt")
    import_faiss()
    few = load(Path(folder) / "few")
    decode_ratio(few, few, prompt, 64, pairs=1)
    before = resident()
    with _Sampler() as opening:
        model = load(Path(folder) / "many", ram=int(ram))
    after, others = resident(), _no_slots(model)
    with _Sampler() as decoding:
        speed = decode_ratio(model, few, prompt, 64, pairs=int(pairs))
    bank = next(bank for bank in banks(model).values() if isinstance(bank, MirrorBank))
    told = {
        "most": (decoding.most - before - others) / int(ram),
        "speed": speed.ratio,
        "most MB while opening": (opening.most - before) >> 20,
        "MB once open": (after - before) >> 20,
        "most MB while decoding": (decoding.most - before) >> 20,
        "of that other weights": others >> 20,
        "given back": bank.reader.__self__.resident.given_back,  # type: ignore[union-attr]
        "tokens a second": speed.a_tokens_per_second,
        "of the few": speed.b_tokens_per_second,
        "rows MB": sum(p.numel() * 4 for b in banks(model).values() for p in b.shards.parameters()) >> 20,  # type: ignore[union-attr]
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
