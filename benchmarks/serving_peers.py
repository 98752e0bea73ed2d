"""Our server and `transformers serve`, asked by the same callers: tokens a second, and seconds to the first token.

Each is a process of its own with the same weights, dtype and threads; they are asked in turn, with the same prompts,
greedy, over OpenAI's chat completions. Tokens are counted by the tokenizer from the text that came, whoever said it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from mindset.places import models_dir

__all__ = ["Pace", "ask_together", "our_server", "their_server"]


@dataclass(frozen=True)
class Pace:
    """What callers saw."""

    tokens: float
    """A second, all callers together."""
    first: float
    """Seconds to the first word; median over the callers."""


@contextmanager
def our_server(folder: Path, threads: int) -> Iterator[str]:
    """`mindset serve smollm2`; gives the URL."""
    port = _free_port()
    command = [
        sys.executable,
        "-m",
        "mindset",
        "serve",
        "smollm2",
        "--http",
        str(port),
        "--threads",
        str(threads),
    ]
    with _running(command, folder, threads, f"http://127.0.0.1:{port}/v1") as url:
        yield url


@contextmanager
def their_server(folder: Path, threads: int, *, continuous: bool) -> Iterator[str]:
    """`transformers serve` with the same model; gives the URL."""
    port = _free_port()
    command = [
        str(Path(sys.executable).with_name("transformers")), "serve", str(models_dir() / "smollm2"), "--device", "cpu",
        "--dtype", "float32", "--port", str(port),
        "--continuous-batching" if continuous else "--no-continuous-batching",
    ]  # fmt: skip
    with _running(command, folder, threads, f"http://127.0.0.1:{port}/v1") as url:
        yield url


def ask_together(url: str, prompts: Sequence[str], tokenizer: Any, new: int) -> Pace:
    """One caller for every prompt, all at once."""
    return asyncio.run(_together(url, prompts, tokenizer, new))


async def _together(url: str, prompts: Sequence[str], tokenizer: Any, new: int) -> Pace:
    async with httpx2.AsyncClient(timeout=600) as http:
        name = (await http.get(f"{url}/models")).json()["data"][0]["id"]
        began = time.perf_counter()
        heard = await asyncio.gather(*(_one(http, url, name, prompt, new) for prompt in prompts))
        taken = time.perf_counter() - began
    tokens = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text, _ in heard)
    return Pace(tokens / taken, statistics.median(first for _, first in heard))


async def _one(http: Any, url: str, name: str, prompt: str, new: int) -> tuple[str, float]:
    body = {"model": name, "messages": [{"role": "user", "content": prompt}], "max_tokens": new, "temperature": 0.0,
            "stream": True}  # fmt: skip
    began, first, text = time.perf_counter(), 0.0, ""
    async with http.stream("POST", f"{url}/chat/completions", json=body) as reply:
        if reply.status_code != 200:
            raise RuntimeError(f"{url} answered {reply.status_code}: {(await reply.aread())[:300]!r}")
        async for line in reply.aiter_lines():
            if not line.startswith("data:") or line.endswith("[DONE]"):
                continue
            for choice in json.loads(line[5:]).get("choices", ()):
                if piece := (choice.get("delta") or {}).get("content"):
                    first = first or time.perf_counter() - began
                    text += piece
    return text, first


@contextmanager
def _running(command: Sequence[str], folder: Path, threads: int, url: str) -> Iterator[str]:
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "MINDSET_CALLS": f"sqlite:///{folder / 'calls.sqlite'}",
    }  # fmt: skip
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
    try:
        _await(process, url, folder / "said")
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _await(process: subprocess.Popen[bytes], url: str, said: Path, patience: float = 120) -> None:
    limit = time.monotonic() + patience
    while time.monotonic() < limit:
        try:
            if httpx2.get(f"{url}/models", timeout=5).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        if process.poll() is not None:
            break
        time.sleep(0.3)
    raise RuntimeError(f"no server: {said.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as lent:
        lent.bind(("127.0.0.1", 0))
        return int(lent.getsockname()[1])
