"""A writer that is killed again and again, and what has to be true of the store after each kill.

The writer says what it is about to do and, when a call has returned, that it did. After a kill the store is as the last
acknowledged call left it, or as the call after that one would have; anything else is counted.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mindset.store import MemoryDir
from mindset.store.search import ShardSearch
from mindset.store.shard_index import IndexPlace, ShardIndex
from mindset.store.slab_store import SlabStore
from mindset.store.slots import Change, NewSlot
from mindset.store.sql_store import SqlStore
from mindset.store.store import Store

__all__ = ["Tally", "kill_again_and_again", "open_store"]

FIELDS = {"key": 4, "modulator": 4, "value": 3}
FIRST = 16
"""Slots that came with the memory."""


@dataclass
class Tally:
    """What went wrong, in all kills; all but the first two are to be zero."""

    kills: int = 0
    acknowledged: int = 0
    lost: int = 0
    back: int = 0
    mismatches: int = 0
    repairs: int = 0
    """Times the store did not simply open, or its index was not whole."""
    living: dict[int, tuple[str, int]] = field(default_factory=dict)
    """By slot: label, and the step that its vectors are of."""


def vectors(count: int, step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {name: rng.standard_normal((count, d)).astype(np.float32) for name, d in FIELDS.items()}


def open_store(kind: str, folder: Path) -> Store:
    return SlabStore(folder) if kind == "slab" else SqlStore(f"sqlite:///{folder.parent}/killed.sqlite")


def kill_again_and_again(kind: str, folder: Path, kills: int, seed: int) -> Tally:
    """`folder` is a memory of `tests.store.test_slab_store.make_memory`."""
    rng, tally, step = random.Random(seed), Tally(), 0  # noqa: S311  when to kill, not a secret
    with open_store(kind, folder) as store:
        if isinstance(store, SqlStore):
            store.copy_from(MemoryDir.open(folder))
    for _ in range(kills):
        said = _until_killed(kind, folder, step, rng.randrange(8), rng.random() * 0.05)
        step = max([step, *(line["step"] for line in said)])
        tally.kills += 1
        tally.acknowledged += sum(line["done"] for line in said)
        _check(kind, folder, said, tally)
    return tally


def _until_killed(kind: str, folder: Path, step: int, lines: int, seconds: float) -> list[dict[str, Any]]:
    """Let it say so many lines and work for some time more: so it is killed while busy on a slow machine too."""
    command = [sys.executable, str(Path(__file__)), kind, str(folder), str(step)]
    writer = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    if writer.stdout is None:
        raise RuntimeError("the writer cannot be heard")
    if writer.stdout.readline() != "open\n":
        raise RuntimeError("the writer did not open its store")
    said = "".join(writer.stdout.readline() for _ in range(lines))
    time.sleep(seconds)
    writer.send_signal(signal.SIGKILL)
    rest, _ = writer.communicate()
    return [json.loads(line) for line in (said + rest).splitlines() if line.endswith("}")]


def _after(
    living: dict[int, tuple[str, int]], line: dict[str, Any], made: list[int]
) -> dict[int, tuple[str, int]]:
    """What lives when a call has been made."""
    kind, step, slots = line["op"], line["step"], line["slots"]
    if kind == "insert":
        return living | {slot: (str(step), step * 10 + i) for i, slot in enumerate(made)}
    if kind == "update":
        return living | {slot: (living[slot][0], step * 10 + i) for i, slot in enumerate(slots)}
    if kind == "change":
        return living | {slot: (f"changed {step}", living[slot][1]) for slot in slots}
    return {slot: what for slot, what in living.items() if kind != "delete" or slot not in slots}


def _check(kind: str, folder: Path, said: list[dict[str, Any]], tally: Tally) -> None:
    expected = tally.living
    for line in said:
        if line["done"]:
            expected = _after(expected, line, line["made"])
    pending = said[-1] if said and not said[-1]["done"] else None
    with open_store(kind, folder) as store:
        tally.mismatches += len(store.verify())
        found = _found(store)
        fresh = sorted(found.keys() - expected.keys())
        other = expected if pending is None else _after(expected, pending, fresh)
        if found not in (expected, other):
            tally.lost += sum(
                slot not in found or found[slot] != what for slot, what in expected.items() if slot in other
            )
            tally.back += len([slot for slot in fresh if slot not in other])
        tally.repairs += kind == "slab" and not _index_is_whole(store)
    tally.living = found


def _found(store: Store) -> dict[int, tuple[str, int]]:
    """By slot, its label and the step of its vectors; -1 if they are nobody's."""
    ids = [int(slot) for slot in store.live(0, "base").ids if slot > FIRST]
    if not ids:
        return {}
    labels, arrays = [record.label for record in store.records(ids)], store.fetch(ids, list(FIELDS))
    found = {}
    for i, (slot, label) in enumerate(zip(ids, labels, strict=True)):
        tag = int(arrays["value"][i, 0])
        whole = all(np.array_equal(arrays[name][i], array[0]) for name, array in _stamped(1, tag).items())
        found[slot] = (label, tag if whole else -1)
    return found


def _stamped(count: int, tag: int) -> dict[str, np.ndarray]:
    """Vectors that say which they are: row i is of `tag + i`."""
    rows = [vectors(1, tag + i) for i in range(count)]
    made = {name: np.concatenate([row[name] for row in rows]) for name in FIELDS}
    made["value"][:, 0] = tag + np.arange(count)
    return made


def _index_is_whole(store: Store) -> bool:
    """Whether what is in the cache opens without a complaint and names the living only."""
    if not isinstance(store, SlabStore):
        return True
    search, place = ShardSearch(store, 0, "base"), _place(store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            index = ShardIndex.opened(search, place)
        except UserWarning:
            return False
    if index is None:
        return True
    named = index.search(vectors(4, 1)["key"], 5, 99).ids
    return set(named.reshape(-1).tolist()) <= {0, *store.live(0, "base").ids.tolist()}


def _place(store: SlabStore) -> IndexPlace:
    return IndexPlace.of(store.folder, 0, "base", store.memory.generation)


# ---- the writer --------------------------------------------------------------------------------------------------


def _write(kind: str, folder: Path, step: int) -> None:
    store, rng = open_store(kind, folder), random.Random(step)  # noqa: S311
    mine = [int(slot) for slot in store.live(0, "base").ids if slot > FIRST]
    ended = [0]
    say("open")
    while True:
        step += 1
        op = rng.choice(["insert", "insert", "update", "change", "delete", "forget", "reindex"])
        slots = rng.sample(mine, min(len(mine), 2)) if op in ("update", "change", "delete") else []
        line = {"op": op, "step": step, "slots": slots, "made": []}
        if not slots and op in ("update", "change", "delete"):
            continue
        say(json.dumps(line | {"done": False}))
        made = _do(store, op, step, slots, ended)
        mine = [slot for slot in [*mine, *made] if op != "delete" or slot not in slots]
        say(json.dumps(line | {"made": made, "done": True}))


def _do(store: Store, op: str, step: int, slots: list[int], ended: list[int]) -> list[int]:
    if op == "insert":
        return [
            int(i) for i in store.insert(0, "base", [NewSlot(label=str(step))] * 3, _stamped(3, step * 10))[1]
        ]
    if op == "update":
        ended.append(store.update(slots, _stamped(len(slots), step * 10)))
    elif op == "change":
        store.change(slots, Change(label=f"changed {step}"))
    elif op == "delete":
        ended.append(store.delete(slots))
    elif op == "forget":
        store.ledger.forget(ended.pop() if len(ended) > 1 else 0)
    elif isinstance(store, SlabStore):
        _reindex(store)
    return []


def _reindex(store: SlabStore) -> None:
    from mindset.store.entries import QueryMoments

    search, place = ShardSearch(store, 0, "base"), _place(store)
    index = ShardIndex.opened(search, place)
    if index is None:
        index = ShardIndex.of_keys(search, QueryMoments.of(vectors(64, 1)["key"]), lists=2)
    index.save(place)


def say(text: str) -> None:
    """To the one who kills."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _write(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
