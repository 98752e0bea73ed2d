"""Engines that clients of one model share, in one process: loaded at the first use, closed by the last who leaves.

A model whose files have changed since is another model: who opens it then gets a new engine. Any thread may open;
two who open the same at once load it once. Invariant: an engine is open as long as somebody holds it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mindset.errors import MindsetError
from mindset.graft.counting import counting, folder_of
from mindset.graft.model import banks
from mindset.graft.sources import Loaded, load_teacher, locate, parse_model, refuse_remote
from mindset.llm.chat_text import ChatText
from mindset.llm.content_hash import content_hash
from mindset.llm.engine.batch import BatchSettings
from mindset.llm.engine.engine import Engine

__all__ = ["Held", "Wanted", "leave", "open_engine"]


@dataclass(frozen=True)
class Wanted:
    """A model, and how it is to run; equal wishes share an engine."""

    model: str
    """MODEL, one whose weights can be had."""
    dtype: torch.dtype | None = None
    device: str = "cpu"
    threads: int = 0
    count: bool = False
    """Whether reads are counted in the model's folder."""
    batch: BatchSettings = field(default_factory=BatchSettings)
    queue: int = 64
    ram: int | None = None
    """Bytes of its memory that may be in RAM at a time; None: all of it is loaded."""
    decay: float | None = None
    """Lambda of LRFU that reads are counted with; None: the memory's, or the usual one."""


@dataclass(eq=False)
class Held:
    """An engine that somebody holds."""

    loaded: Loaded
    engine: Engine
    content_hash: str | None
    chat: ChatText
    has_memory: bool


@dataclass(eq=False)
class _Place:
    lock: threading.Lock = field(default_factory=threading.Lock)
    held: Held | None = None
    holders: int = 0


_places: dict[tuple[Any, ...], _Place] = {}
_registry = threading.Lock()


def open_engine(wanted: Wanted) -> Held:
    """The engine of a model, loaded if nobody holds it yet. Takes seconds; to be left by `leave`."""
    path = locate(refuse_remote(parse_model(wanted.model))).resolve()
    try:
        known: str | None = content_hash(path)
    except (OSError, MindsetError):  # loading says better what is wrong with it
        known = None
    key = (path, known, replace(wanted, model=""))
    with _registry:
        place = _places.setdefault(key, _Place())
    with place.lock:
        if place.held is None or not place.held.engine.is_open:
            place.held, place.holders = _load(wanted, known), 0
        place.holders += 1
        return place.held


def leave(held: Held) -> None:
    """Let go of an engine; the last one closes it, and what is under way fails."""
    with _registry:
        place = next((place for place in _places.values() if place.held is held), None)
    if place is not None:  # else it had failed, and another one is in its place
        with place.lock:
            place.holders -= 1
            if place.holders:
                return
            place.held = None
    held.engine.close()


def _load(wanted: Wanted, known: str | None) -> Held:
    loaded = load_teacher(wanted.model, dtype=wanted.dtype, device=wanted.device, ram=wanted.ram)
    folder = loaded.path if loaded.path is not None and loaded.path.is_dir() else None
    memory = folder / "memory" if folder is not None and (folder / "memory").is_dir() else None
    engine = Engine(
        loaded.model,
        loaded.tokenizer,
        settings=wanted.batch,
        queue=wanted.queue,
        memory=memory,
        threads=wanted.threads,
        around=_counting(loaded, wanted.decay) if wanted.count else nullcontext,
    )
    return Held(loaded, engine, known, ChatText(loaded.tokenizer), bool(banks(loaded.model)))


def _counting(loaded: Loaded, decay: float | None) -> Callable[[], AbstractContextManager[Any]]:
    folder: Path = folder_of(loaded)
    return lambda: counting(loaded.model, folder, decay=decay)
