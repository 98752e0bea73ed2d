"""Many who ask one server at once, in every way, a third of them leaving early: for minutes, and nothing may be left.

    python -m benchmarks.serving_load --askers 32 --seconds 60
    python -m benchmarks.serving_load --askers 8 --seconds 1200 --model smollm2

Without a model, one that says back what it is told answers, so that every answer shows whose it is. With one, answers
are compared with what the model says to the same prompt alone (rounding may make some differ: they are counted, and
one that is the answer to another prompt is wrong). The server is a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import sqlalchemy as sa

from benchmarks.serving_asker import Asker, Tally
from benchmarks.serving_echo import EchoClient
from mindset.calls.log import CallLog
from mindset.calls.schema import CALLS

__all__ = ["Loaded", "load"]

FLAT = 1.0
"""MB a minute up to which memory counts as flat."""
_TOPICS = ("the sea", "a clock", "bread", "the moon", "an old house", "rain", "a lost key", "the market")


@dataclass
class Loaded:
    """What came of it."""

    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)
    rows: Counter[str] = field(default_factory=Counter)
    """Rows of the log, by how they ended."""
    places: int = 0
    """Places that were still taken at the end."""
    rss: list[float] = field(default_factory=list)
    """MB of the server, each second."""
    exit_code: int = 0
    errors: str = ""
    """What the server wrote on stderr."""
    other: int = 0
    """Answers of a model that were not, to the letter, what it says alone."""

    @property
    def sent(self) -> int:
        """Requests that are calls: those of the list of models are none, nor those that were refused."""
        calls = sum(count for kind, count in self.tally.asked.items() if kind != "models")
        return calls - self.tally.refused

    @property
    def growth(self) -> float:
        """How much the server's memory grew from the first third on, in MB a minute."""
        third = len(self.rss) // 3
        if third < 2:
            return 0.0
        first, last = statistics.median(self.rss[third : 2 * third]), statistics.median(self.rss[2 * third :])
        return (last - first) / (third / 60)

    @property
    def failures(self) -> list[str]:
        """What must not be, in sentences."""
        found = list(self.tally.wrong)
        if sum(self.rows.values()) != self.sent:
            found.append(f"{self.sent:,} calls were sent, and {sum(self.rows.values()):,} are in the log")
        if set(self.rows) - {"ok", "cancelled"}:
            found.append(f"the log has rows that ended as {dict(self.rows)}")
        if self.places or self.exit_code:
            found.append(f"{self.places} places are taken at the end; exit code {self.exit_code}")
        if self.growth > FLAT:
            found.append(f"the server grew by {self.growth:.1f} MB a minute")
        if self.errors:
            found.append(f"the server said: {self.errors[:2000]}")
        return found


def load(
    askers: int, seconds: float, *, model: str | None = None, places: int = 64, max_tokens: int = 32
) -> Loaded:
    """Ask a server of its own; `model` None: one that says back what it is told."""
    found = Loaded()
    with tempfile.TemporaryDirectory(prefix="mindset-load-") as folder:
        log = f"sqlite:///{Path(folder) / 'calls.sqlite'}"
        with _server(Path(folder), log, model, places) as (process, urls):
            asyncio.run(_all(found, process, urls, askers, seconds, model, max_tokens))
            process.send_signal(signal.SIGTERM)
            found.exit_code = process.wait(120)
        found.rows = _rows(log)
        found.errors = (Path(folder) / "errors").read_text(encoding="utf-8")
    return found


@contextmanager
def _server(
    folder: Path, log: str, model: str | None, places: int
) -> Iterator[tuple[subprocess.Popen[str], Mapping[str, str]]]:
    if model is None:
        command = [sys.executable, "-m", "benchmarks.serving_load", "--serve"]
    else:
        command = [sys.executable, "-m", "mindset", "serve", model, "--json", "--http", "0", "--grpc", "0"]
    command += ["--socket", str(folder / "s"), "--queue", str(places)]
    environment = os.environ | {"MINDSET_CALLS": log}
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
    try:
        told = ""
        while not told.endswith("}\n}\n") and not told.endswith("  }\n}\n"):
            line = process.stdout.readline() if process.stdout is not None else ""
            if not line:
                raise RuntimeError(f"the server did not start: {told}")
            told += line
        yield process, json.loads(told)["urls"]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


async def _all(
    found: Loaded,
    process: subprocess.Popen[str],
    urls: Mapping[str, str],
    askers: int,
    seconds: float,
    model: str | None,
    max_tokens: int,
) -> None:
    alone = {} if model is None else await _alone(found, urls, max_tokens)

    def prompt(number: int, count: int) -> str:
        return (
            f"Of {_TOPICS[(number + count) % len(_TOPICS)]}:"
            if alone
            else f"word-{number}-{count} and {count} more"
        )

    def judge(kind: str, prompt: str, text: str, whole: bool) -> str | None:
        return (
            _echoed(kind, prompt, text, whole) if not alone else _as_alone(found, alone, kind, prompt, text)
        )

    begun = time.monotonic()
    watch = asyncio.create_task(_watch(found, process))
    await asyncio.gather(
        *(
            Asker(
                urls,
                number,
                found.tally,
                prompts=lambda count, number=number: prompt(number, count),  # type: ignore[misc]
                judge=judge,
                max_tokens=max_tokens,
            ).ask_until(begun + seconds)
            for number in range(askers)
        )
    )
    watch.cancel()
    found.seconds = time.monotonic() - begun
    found.places = await _places(urls)


def _echoed(kind: str, prompt: str, text: str, whole: bool) -> str | None:
    """Whether an answer says what was asked."""
    expected = str(list(prompt.encode())) if kind == "tokens" else f"You said: {prompt}"
    same = text == expected if whole else expected.startswith(text)
    return None if same else f"{prompt!r} was answered {text!r}"


def _as_alone(found: Loaded, alone: Mapping[str, str], kind: str, prompt: str, text: str) -> str | None:
    """Whether an answer is the prompt's own, as far as can be told; of raw prompts only."""
    if kind not in ("completion", "grpc") or alone[prompt].startswith(text):
        return None
    found.other += 1
    others = [
        other for other, said in alone.items() if other != prompt and said.startswith(text) and len(text) > 20
    ]
    return f"{prompt!r} was answered as {others[0]!r}" if others else None


async def _alone(found: Loaded, urls: Mapping[str, str], max_tokens: int) -> dict[str, str]:
    """What the model says to each prompt when nobody else asks."""
    answers = {}
    async with httpx2.AsyncClient(timeout=120) as http:
        for topic in _TOPICS:
            body: dict[str, Any] = {"prompt": f"Of {topic}:", "temperature": 0, "max_tokens": max_tokens}
            reply = await http.post(f"{urls['http']}/completions", json=body)
            answers[f"Of {topic}:"] = reply.json()["choices"][0]["text"]
            found.tally.asked["alone"] += 1
    return answers


async def _watch(found: Loaded, process: subprocess.Popen[str]) -> None:
    """The server's memory, each second."""
    server = psutil.Process(process.pid)
    while True:
        found.rss.append(server.memory_info().rss / 1e6)
        await asyncio.sleep(1.0)


async def _places(urls: Mapping[str, str]) -> int:
    """Places that stay taken."""
    taken = 0
    async with httpx2.AsyncClient(timeout=30) as http:
        for _ in range(100):
            taken = int((await http.get(urls["http"].removesuffix("/v1") + "/health")).json()["taken"])
            if not taken:
                break
            await asyncio.sleep(0.1)
    return taken


def _rows(log: str) -> Counter[str]:
    opened = CallLog.open(log, read_only=True)
    try:
        with opened.engine.connect() as connection:
            counted = connection.execute(
                sa.select(CALLS.c.status, sa.func.count()).group_by(CALLS.c.status)
            ).all()
    finally:
        opened.close()
    return Counter({str(status): int(count) for status, count in counted})


def _serve(socket: Path, places: int) -> None:
    from mindset.llm.serve.limits import Limits
    from mindset.llm.serve.listening import Doors
    from mindset.llm.serve.server import Server, serve

    server = Server(
        EchoClient(pace=0.002), Doors(http=0, grpc=0, socket=socket), limits=Limits(places=places)
    )

    def ready(urls: Any) -> None:
        told = {"http": urls.http, "grpc": urls.grpc, "socket": urls.socket}
        print(json.dumps({"urls": told}, indent=2), flush=True)

    serve(server, ready=ready)


def main() -> None:
    """Print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--askers", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--model")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--queue", type=int, default=64)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--socket", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        _serve(given.socket, given.queue)
        return
    found = load(
        given.askers, given.seconds, model=given.model, places=given.queue, max_tokens=given.max_tokens
    )
    tally, first = found.tally, sorted(found.tally.first) or [0.0]
    print(f"{sum(tally.asked.values()):,} asked in {found.seconds:.0f} s: {dict(tally.asked)}")
    print(
        f"{tally.whole:,} whole, {tally.left:,} left early, {tally.refused:,} refused, {len(tally.wrong)} wrong"
    )
    print(f"log: {dict(found.rows)}, {found.sent:,} sent; {found.places} places taken at the end")
    print(f"first word: median {statistics.median(first):.3f} s, 99% {first[int(len(first) * 0.99)]:.3f} s")
    if given.model:
        print(f"{found.other:,} answers were not to the letter what the model says alone")
    print(f"server: {max(found.rss, default=0):.0f} MB at most, {found.growth:+.1f} MB a minute")
    for failure in found.failures[:20]:
        print(failure)
    raise SystemExit(bool(found.failures))


if __name__ == "__main__":
    main()
