"""`python -m benchmarks.serving`: one model, asked in every way, by many, and what the log keeps of it.

On SmolLM2-135M-Instruct (4-bit weights, dequantised, float32). Speeds are of whole processes on loopback, in turn.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from benchmarks.rows import Bench, Measured, open_bench
from benchmarks.serving_clients import clients
from benchmarks.serving_doors import doors
from benchmarks.serving_engine import equal_answers, prompts_of
from benchmarks.serving_fuzz import fuzz
from benchmarks.serving_load import load
from benchmarks.serving_log import killed, logging_seconds, replayed, search_seconds
from benchmarks.serving_peers import Pace, ask_together, our_server, their_server
from benchmarks.serving_ways import three_ways
from benchmarks.timing import missing, scratch
from mindset.graft.sources import load_teacher, load_tokenizer
from mindset.places import models_dir

MODEL = "smollm2"


def main() -> None:
    """Measure every row that is not there yet."""
    bench = open_bench("serving")
    _ways(bench)
    _log(bench)
    _robust(bench)
    _throughput(bench)


def _row(bench: Bench, name: str, take: Callable[[], tuple[float, dict[str, Any]]], unit: str, bar: str | None,
         baseline: float | None = None, **settings: Any) -> None:  # fmt: skip
    def measure() -> Measured:
        figure, extra = take()
        return Measured(figure, extra.pop("baseline", baseline), extra=extra)

    bench.row(name, measure, unit=unit, bar=bar, settings=settings | {"threads": torch.get_num_threads()})


def _ways(bench: Bench) -> None:
    count = 6 if bench.quick else 200
    kept: dict[str, Any] = {}

    def ways(field: str) -> tuple[float, dict[str, Any]]:
        if not kept:
            prompts = prompts_of(load_teacher(MODEL), count, 16)
            kept.update(vars(three_ways(MODEL, prompts)))
        return float(kept[field]), dict(kept)

    for name, field, bar in (
        ("in process, HTTP, gRPC: the same text", "same_text", ">= 1"),
        ("in process, HTTP, gRPC: rows of one shape", "same_shape", ">= 1"),
        ("in process, HTTP, gRPC: hashes of the model", "hashes", "<= 1"),
    ):
        _row(bench, name, functools.partial(ways, field), "of requests, or hashes", bar, requests=count)

    def loaded() -> tuple[float, dict[str, Any]]:
        found = equal_answers(requests=count, load=4 if bench.quick else 16)
        gaps = [one.gap for one in found.differences]
        return found.as_alone, {
            "as_plain": found.as_plain,
            "gaps": gaps,
            "largest gap": max(gaps, default=0.0),
        }

    _row(bench, "16 at once: texts as alone", loaded, "of requests", ">= 0.99", requests=count)


def _log(bench: Bench) -> None:
    rows = 2_000 if bench.quick else 100_000

    def searched() -> tuple[float, dict[str, Any]]:
        found = search_seconds(rows)
        return max(found.values()) * 1000, {f"ms: {text}": 1000 * taken for text, taken in found.items()}

    _row(bench, "a page of a search", searched, "ms, the slowest of five", "<= 50", calls=rows)

    def overhead() -> tuple[float, dict[str, Any]]:
        logging, call = logging_seconds(), _call_seconds()
        return 100 * logging / call, {"ms to log": 1000 * logging, "ms of a call": 1000 * call}

    _row(bench, "logging", overhead, "% of a local call of 64 tokens", "<= 1")
    calls = 4 if bench.quick else 50
    kept: dict[str, float] = {}

    def replay(field: str) -> tuple[float, dict[str, Any]]:
        kept.update({} if kept else replayed(MODEL, calls))
        return kept[field], dict(kept)

    for field in ("bytes differ", "torch loaded"):
        _row(bench, f"a replayed run: {field}", functools.partial(replay, field), "runs", "<= 0", calls=calls)

    killing: dict[str, float] = {}

    def kills(field: str) -> tuple[float, dict[str, Any]]:
        killing.update({} if killing else killed(2 if bench.quick else 10))
        return killing[field], dict(killing)

    for name, field, unit, bar in (
        ("killed in mid stream: partial text kept", "with partial text", "of kills", ">= 1"),
        ("killed in mid stream: kept as failed", "failed", "of kills", ">= 1"),
        (
            "killed in mid stream: acknowledged calls missing, or logs unclean",
            "acknowledged calls missing, or logs unclean",
            "of all",
            "<= 0",
        ),
    ):
        _row(bench, name, functools.partial(kills, field), unit, bar)


def _call_seconds(repeats: int = 5) -> float:
    """Of a local call of 64 tokens through a client."""
    import asyncio
    import time

    from mindset.calls.log import CallLog
    from mindset.llm.local import LocalClient
    from mindset.llm.request import Options, Request

    async def ask(log: CallLog) -> float:
        taken = []
        async with LocalClient(MODEL, log=log) as client:
            for number in range(repeats + 1):
                request = Request(
                    prompt=f"Once upon a time {number}", options=Options(max_tokens=64, temperature=0.0)
                )
                began = time.perf_counter()
                await client.complete(request).answer()
                taken.append(time.perf_counter() - began)
        return statistics.median(taken[1:])

    with scratch() as folder:
        log = CallLog.open(f"sqlite:///{folder / 'calls.sqlite'}")
        taken = asyncio.run(ask(log))
        log.close()
    return taken


def _robust(bench: Bench) -> None:
    count = 300 if bench.quick else 10_000

    def fuzzed() -> tuple[float, dict[str, Any]]:
        found = fuzz(count, bench.seed)
        extra = {"sent": found.sent, "slowest s": found.slowest, "failures": found.failures[:5]}
        return float(len(found.failures) + found.left), extra

    _row(
        bench,
        "fuzzed bodies and messages: crashes, 5xx, hangs, places kept",
        fuzzed,
        "of all",
        "<= 0",
        sent=count,
    )

    def unchanged() -> tuple[float, dict[str, Any]]:
        found = clients(MODEL)
        return float(len(found.failures)), {"checks": found.checks, "failures": found.failures[:5]}

    _row(bench, "the openai client, curl, a reflection client: checks that did not hold", unchanged,
         "of all checks", "<= 0")  # fmt: skip

    def outside() -> tuple[float, dict[str, Any]]:
        found = doors()
        return float(len(found.failures)), {"tries": found.tries, "failures": found.failures[:5]}

    _row(bench, "doors without a token, wrong tokens, tricks with paths, hosts and headers: let through", outside,
         "of all tries", "<= 0")  # fmt: skip
    askers, seconds = (8, 5.0) if bench.quick else (200, 300.0)

    def many() -> tuple[float, dict[str, Any]]:
        found = load(askers, seconds)
        extra = {"sent": found.sent, "MB a minute": found.growth, "failures": found.failures[:5]}
        return float(len(found.failures)), extra

    _row(bench, "mixed traffic: wrong or lost answers, lost rows, stuck places", many, "of all", "<= 0",
         askers=askers, seconds=seconds)  # fmt: skip


def _throughput(bench: Bench) -> None:
    if missing("fastapi"):  # what `transformers serve` needs
        return
    new, rounds = (8, 1) if bench.quick else (48, 3)
    kept: dict[str, Any] = {}

    def figures() -> dict[str, Any]:
        if not kept:
            kept.update(_paces(new, rounds))
        return kept

    def against(count: int, field: str) -> tuple[float, dict[str, Any]]:
        found = figures()
        best = max(("theirs", "theirs batched"), key=lambda name: found[f"{name}, {count}: tokens"])
        mine, other = found[f"ours, {count}: {field}"], found[f"{best}, {count}: {field}"]
        ratio = mine / other if field == "tokens" else other / mine
        return ratio, {**found, "baseline": other, "counted": best}

    for count, wanted in ((1, ">= 1.0"), (16, ">= 1.2")):
        for what, field, unit, bar in (
            ("tokens a second", "tokens", "x", wanted),
            ("first word", "first", "x sooner", ">= 1.0"),
        ):
            name = f"{count} callers: {what} against transformers serve"
            _row(bench, name, functools.partial(against, count, field), unit, bar, new=new)

    def scaling() -> tuple[float, dict[str, Any]]:
        found = figures()
        return found["ours, 16: tokens"] / found["ours, 1: tokens"], dict(found)

    _row(bench, "16 callers against 1", scaling, "x the tokens a second", ">= 5", new=new)


def _paces(new: int, rounds: int) -> dict[str, Any]:
    """Medians over rounds, in each of which every server is asked once with one caller and once with sixteen."""
    tokenizer = load_tokenizer(models_dir() / MODEL)
    prompts = prompts_of(load_teacher(MODEL), 16 * (rounds + 1) + rounds + 1, 32)
    threads, heard = torch.get_num_threads(), dict[str, list[Pace]]()
    with scratch() as folder, ExitStack() as stack:
        urls = {}
        for name, make in (
            ("ours", our_server),
            ("theirs", functools.partial(their_server, continuous=False)),
            ("theirs batched", functools.partial(their_server, continuous=True)),
        ):
            place = Path(folder) / name.replace(" ", "-")
            place.mkdir()
            urls[name] = stack.enter_context(make(place, threads))
        for number in range(rounds + 1):
            for count in (1, 16):
                some = prompts[number * 17 : number * 17 + count]
                for name, url in urls.items():
                    pace = ask_together(url, some, tokenizer, new)
                    if number:  # the first round warms up
                        heard.setdefault(f"{name}, {count}", []).append(pace)
    found = {}
    for key, paces in heard.items():
        found[f"{key}: tokens"] = statistics.median(one.tokens for one in paces)
        found[f"{key}: first"] = statistics.median(one.first for one in paces)
    return found


if __name__ == "__main__":
    main()
