"""Slots on disk: put in, changed, taken out, turned back, checked, killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mindset.errors import DiskFullError, FormatError, ReadOnlyError
from mindset.store import BankRecord, MemoryDir, Rows, ShardRecord
from mindset.store.edit import NewShard
from mindset.store.interface import SlotStore
from mindset.store.slab_store import SlabStore
from mindset.store.slots import NewSlot

FIELDS = {"key": 4, "modulator": 4, "value": 3}


def arrays(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {field: rng.normal(size=(count, d)).astype(np.float32) for field, d in FIELDS.items()}


def make_memory(folder: Path, slots: int = 6) -> Path:
    fields = {field: Rows(array, "float32") for field, array in arrays(slots, seed=9).items()}
    heads = {
        "key": Rows(np.ones((2, 5, 4), np.float32), "float32"),
        "value": Rows(np.ones((2, 5, 3), np.float32), "float32"),
    }
    banks = [
        BankRecord(0, "mirror", 1, (ShardRecord("base", "silu", True, slots, fields),)),
        BankRecord(1, "featural", 2, (ShardRecord("base", "relu", False, 5, heads),)),
    ]
    MemoryDir.write(folder, banks)
    return folder


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return make_memory(tmp_path / "memory")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def same(store: SlotStore, ids: np.ndarray, wanted: dict[str, np.ndarray]) -> bool:
    found = store.fetch(ids, list(wanted))
    return all(np.array_equal(found[field], wanted[field]) for field in wanted)


def test_slots_that_came_with_the_model_have_records(memory: Path) -> None:
    with SlabStore(memory) as store:
        assert store.ledger.count() == 6 + 10
        live = store.live(1, "base")
        assert live.heads.tolist() == [0] * 5 + [1] * 5
        assert same(store, store.live(0, "base").ids, arrays(6, seed=9))
        assert store.verify() == []


def test_reading_writes_nothing_before_and_after_there_are_records(memory: Path) -> None:
    before = contents(memory)
    with SlabStore(memory, read_only=True) as store:
        assert store.ledger.count() == 16
        with pytest.raises(ReadOnlyError):
            store.delete([1])
    assert contents(memory) == before
    SlabStore(memory).close()
    before = contents(memory)
    with SlabStore(memory, read_only=True) as store:
        assert store.verify() == []
        with pytest.raises(ReadOnlyError):
            store.insert(0, "base", [NewSlot()], arrays(1))
    assert contents(memory) == before


def test_a_mirrored_slot_can_be_edited_and_its_slab_is_not_touched(memory: Path) -> None:
    slabs = {name: data for name, data in contents(memory).items() if name.endswith(".slab")}
    with SlabStore(memory) as store:
        slot = store.live(0, "base").ids[2:3]
        edit = store.update(slot, arrays(1, 5))
        assert store.live(0, "base").rows.tolist() == [0, 1, 3, 4, 5, 6]
        assert same(store, slot, arrays(1, 5))
        store.ledger.turn(edit, False)
        assert store.live(0, "base").rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert {name: data for name, data in contents(memory).items() if name.endswith(".slab")} == slabs


def test_an_overlays_shard_is_made_and_filled(memory: Path) -> None:
    fields = {"key": {"dtype": "float16", "d": 4}, "value": {"dtype": "float32", "d": 3}}
    with SlabStore(memory) as store:
        store.add_shard(NewShard(0, "facts", "mirror", 1, "radius", False, fields))
        given = {"key": np.ones((2, 4), np.float16), "value": np.ones((2, 3), np.float32)}
        _, ids = store.insert(0, "facts", [NewSlot()] * 2, given)
        assert store.records(ids)[1].shard == "facts"
        assert [len(part) for part in store.vectors.parts(store.shard(0, "facts"), "key")] == [2]
        assert [len(part) for part in store.vectors.parts(store.shard(0, "base"), "key")] == [6]


def test_planted_damage_is_found_by_its_slot(memory: Path) -> None:
    with SlabStore(memory) as store:
        _, ids = store.insert(0, "base", [NewSlot()] * 3, arrays(3))
    grown = next(memory.glob("*.value.*.grown"))
    content = bytearray(grown.read_bytes())
    content[4096 + 12 + 2] ^= 1  # the second of the three
    grown.write_bytes(content)
    with SlabStore(memory, read_only=True) as store:
        (wrong,) = store.verify()
        assert (wrong.id, wrong.layer, wrong.shard, wrong.row) == (ids[1], 0, "base", 7)


def test_another_conversion_takes_the_old_edits_with_it(memory: Path) -> None:
    with SlabStore(memory) as store:
        store.insert(0, "base", [NewSlot()], arrays(1))
    make_memory(memory, slots=8)
    assert not [name for name in contents(memory) if "g1." in name]
    with SlabStore(memory) as store:
        assert store.ledger.count() == 18


def test_a_full_disk_loses_nothing(small_disk: tuple[Path, Callable[[str], None]]) -> None:
    folder = make_memory(small_disk[0] / "memory")
    before = contents(folder)
    with pytest.raises(DiskFullError):
        SlabStore(folder)  # no room for its records
    assert contents(folder) == before


def test_records_that_are_damaged_are_one_sentence(memory: Path) -> None:
    SlabStore(memory).close()
    (memory / "slots.g1.sqlite").write_bytes(b"nonsense" * 1000)
    with pytest.raises(FormatError, match="damaged"):
        SlabStore(memory, read_only=True)


# ---- kill -9 ---------------------------------------------------------------------------------------------------

WRITER = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[2])
from store.test_slab_store import arrays
from mindset.store.slab_store import SlabStore
from mindset.store.slots import NewSlot
store, step = SlabStore(sys.argv[1]), int(sys.argv[3])
print(json.dumps(["open"]), flush=True)
while True:
    step += 1
    print(json.dumps(["intent", step]), flush=True)
    _, ids = store.insert(0, "base", [NewSlot(label=str(step))] * 3, arrays(3, step))
    print(json.dumps(["in", step, ids.tolist()]), flush=True)
    store.update(ids[:1], arrays(1, step + 10**6))
    print(json.dumps(["moved", step, ids.tolist()]), flush=True)
    store.ledger.forget(store.delete(ids[2:]))
    print(json.dumps(["out", step, ids.tolist()]), flush=True)
"""


def check_after_kill(
    folder: Path, said: list[list[object]], living: dict[int, tuple[int, int, bool]]
) -> None:
    """What was acknowledged is there; `living` gets the slots: step, place in its batch, whether it was moved."""
    last = said[-1] if said else ["open"]
    for line in said:
        if line[0] == "in":
            living |= {slot: (line[1], place, False) for place, slot in enumerate(line[2])}  # type: ignore[arg-type]
        elif line[0] == "moved":
            living[line[2][0]] = (line[1], 0, True)  # type: ignore[index,assignment]
        elif line[0] == "out":
            del living[line[2][2]]  # type: ignore[index]
    with SlabStore(folder) as store:
        assert store.verify() == []
        live = set(store.live(0, "base").ids.tolist()) - set(range(1, 17))
        lost = set(living) - live
        assert len(lost) <= (last[0] == "moved"), (
            "an acknowledged slot is lost"
        )  # its deletion was not acknowledged
        extra = live - set(living)
        assert len(extra) in ((0, 3) if last[0] in ("intent", "open") else (0,)), (
            "a slot that nobody acknowledged"
        )
        for slot in lost:
            del living[slot]
        for slot in extra:
            record = store.records([slot])[0]
            living[slot] = (int(record.label), sorted(extra).index(slot), False)
        for slot, (step, place, moved) in living.items():
            value = store.fetch([slot], ["value"])["value"]
            old, new = arrays(3, step)["value"][place], arrays(1, step + 10**6)["value"][0]
            if last[0] == "in" and last[1] == step and place == 0 and np.array_equal(value[0], new):
                living[slot] = (step, place, True)  # moved, not acknowledged
                continue
            assert np.array_equal(value[0], new if moved else old)


def kill_and_check(memory: Path, kills: int, seed: int) -> int:
    rng, living, step, acknowledged = random.Random(seed), {}, 0, 0  # noqa: S311
    SlabStore(memory).close()
    for _ in range(kills):
        tests = Path(__file__).resolve().parent.parent
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(memory), str(tests), str(step)],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(tests.parent / "src")},
        )  # fmt: skip
        assert writer.stdout is not None
        assert json.loads(writer.stdout.readline()) == ["open"]
        time.sleep(rng.random() * 0.15)
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        said = [json.loads(line) for line in rest.splitlines() if line.endswith("]")]
        step = max([step, *(line[1] for line in said)])
        acknowledged += sum(line[0] != "intent" for line in said)
        check_after_kill(memory, said, living)
    return acknowledged


def test_after_a_kill_what_was_acknowledged_is_there_and_nothing_else(memory: Path) -> None:
    assert kill_and_check(memory, kills=5, seed=0) > 0  # a busy machine says little in its time


@pytest.mark.slow
def test_after_many_kills(memory: Path) -> None:
    kill_and_check(memory, kills=40, seed=1)
