from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store.mapped import is_mapped

from mindset.errors import DiskFullError, FormatError, MissingError, UsageError
from mindset.store import STORAGE, BankRecord, MemoryDir, Rows, ShardRecord

examples = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def rows(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Rows:
    storage = STORAGE[dtype]
    raw = np.random.default_rng(seed).bytes(int(np.prod(shape)) * storage.itemsize)
    return Rows(np.frombuffer(raw, storage).reshape(shape), dtype)


def mirror(layer: int, seed: int = 0, dtype: str = "float32") -> BankRecord:
    fields = {name: rows((6, 4), dtype, seed + i) for i, name in enumerate(("key", "modulator", "value"))}
    return BankRecord(layer, "mirror", 1, (ShardRecord("base", "silu", True, 6, fields),))


def with_heads(layer: int) -> BankRecord:
    fields = {"key": rows((2, 5, 3)), "key_bias": rows((2, 5)), "value": rows((2, 5, 7), "bfloat16")}
    return BankRecord(layer, "featural", 2, (ShardRecord("base", "relu", False, 5, fields),))


def content(banks: list[BankRecord]) -> list[Any]:
    """Everything a list of banks says, comparable."""
    return [
        (
            bank.layer,
            bank.kind,
            bank.heads,
            shard.name,
            shard.weight,
            shard.gated,
            shard.n_slots,
            fields(shard),
        )
        for bank in banks
        for shard in bank.shards
    ]


def fields(shard: ShardRecord) -> list[Any]:
    return [(name, f.dtype, f.array.shape, f.array.tobytes()) for name, f in shard.fields.items()]


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


Settings = dict[str, Any]
names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True)


# Records are built in the test: the type checks of their constructors draw random numbers of their own, which
# Hypothesis refuses inside a strategy.
@st.composite
def bank_settings(draw: st.DrawFn) -> tuple[str, int, list[Settings]]:
    heads = draw(st.integers(1, 3))
    shards = [draw(shard_settings(name, heads)) for name in draw(st.lists(names, max_size=3, unique=True))]
    return draw(st.sampled_from(["mirror", "featural"])), heads, shards


@st.composite
def shard_settings(draw: st.DrawFn, name: str, heads: int) -> Settings:
    n_slots, gated = draw(st.integers(0, 5)), draw(st.booleans())
    extra = draw(st.sets(st.from_regex(r"[a-z_]{1,6}", fullmatch=True), max_size=2))
    fields = {}
    for field in sorted({"key", "value", *(["modulator"] if gated else []), *extra}):
        leading = (heads, n_slots) if heads > 1 or draw(st.booleans()) else (n_slots,)
        shape = leading + draw(st.sampled_from([(), (1,), (4,)]))
        fields[field] = (shape, draw(st.sampled_from(sorted(STORAGE))), draw(st.integers(0, 2**32)))
    weight = draw(st.sampled_from(["relu", "gelu_new"]))
    return {"name": name, "weight": weight, "gated": gated, "n_slots": n_slots, "fields": fields}


def shard_of(settings: Settings) -> ShardRecord:
    return ShardRecord(**{**settings, "fields": {name: rows(*of) for name, of in settings["fields"].items()}})


@examples
@given(model=st.dictionaries(st.integers(0, 120), bank_settings(), max_size=3))
def test_what_is_read_is_what_was_written(
    tmp_path: Path, model: dict[int, tuple[str, int, list[Settings]]]
) -> None:
    banks = [
        BankRecord(layer, kind, heads, tuple(map(shard_of, shards)))
        for layer, (kind, heads, shards) in model.items()
    ]
    MemoryDir.write(tmp_path / "memory", banks)
    memory = MemoryDir.open(tmp_path / "memory")
    assert content(memory.banks()) == content(banks)
    assert memory.verify() == []
    assert memory.nbytes == sum(f.array.nbytes for b in banks for s in b.shards for f in s.fields.values())
    assert memory.bytes_on_disk == sum(path.stat().st_size for path in memory.folder.iterdir())


def test_arrays_by_name_and_head(tmp_path: Path) -> None:
    memory = MemoryDir.write(tmp_path / "memory", [mirror(0), with_heads(3)])
    key = with_heads(3).shards[0].fields["key"].array
    np.testing.assert_array_equal(memory.array(3, "base", "key"), key)
    np.testing.assert_array_equal(memory.array(3, "base", "key", head=1), key[1])
    assert memory.array(3, "base", "key_bias", head=0).shape == (5,)
    assert memory.array(0, "base", "key", head=0).shape == (6, 4)
    assert memory.dtype(3, "base", "value") == "bfloat16"
    assert memory.array(3, "base", "value").dtype == np.uint16
    assert (memory.folder / "layer-03.base.key.g1.slab").is_file()


def test_maps_are_read_only_and_copies_are_not(tmp_path: Path) -> None:
    memory = MemoryDir.write(tmp_path / "memory", [mirror(0)])
    mapped = memory.array(0, "base", "key")
    assert is_mapped(mapped)
    assert not mapped.flags.writeable
    copy = memory.array(0, "base", "key", copy=True)
    copy[:] = 0
    assert memory.verify() == []


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((9, "base", "key", None), "layer 9 has no shard 'base'; there are 0/base, 3/base"),
        ((0, "new", "key", None), "there are 0/base"),
        ((0, "base", "bias", None), "it has key, modulator, value"),
        ((3, "base", "key", 2), "it has 2, from 0"),
        ((3, "base", "key", -1), "no head -1"),
    ],
)
def test_what_is_not_there_is_named(
    tmp_path: Path, place: tuple[int, str, str, int | None], message: str
) -> None:
    memory = MemoryDir.write(tmp_path / "memory", [mirror(0), with_heads(3)])
    with pytest.raises(MissingError, match=message):
        memory.array(*place)


def test_a_new_memory_replaces_the_old_and_open_readers_keep_theirs(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    old = MemoryDir.write(folder, [mirror(0, 1), mirror(1, 2)])
    new = MemoryDir.write(folder, [mirror(0, 3)])
    assert content(old.banks()) == content([mirror(0, 1), mirror(1, 2)])
    assert content(new.banks()) == content(MemoryDir.open(folder).banks()) == content([mirror(0, 3)])
    assert len(list(folder.iterdir())) == 4


def test_a_memory_can_be_rewritten_from_its_own_maps(tmp_path: Path) -> None:
    memory = MemoryDir.write(tmp_path / "memory", [mirror(0), with_heads(1)])
    again = MemoryDir.write(memory.folder, reversed(memory.banks()))
    assert content(again.banks()) == content([with_heads(1), mirror(0)])


def test_foreign_files_and_leftovers(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "layer-00.base.key.g7.slab").write_bytes(b"half")
    (folder / ".layer-00.base.key.g7.slab.0a1b2c3d.tmp").write_bytes(b"half")
    with pytest.raises(MissingError, match="holds no memory"):
        MemoryDir.open(folder)
    memory = MemoryDir.write(folder, [mirror(0)])
    assert memory.generation == 8
    assert {path.name for path in folder.iterdir()} == {
        "notes.txt",
        "memory.json",
        *(f"layer-00.base.{field}.g8.slab" for field in ("key", "modulator", "value")),
    }


def test_an_error_from_the_caller_leaves_the_old_memory(tmp_path: Path) -> None:
    def stopping() -> Iterator[BankRecord]:
        yield mirror(0, 5)
        raise RuntimeError

    folder = tmp_path / "memory"
    with pytest.raises(RuntimeError):
        MemoryDir.write(folder, stopping())
    assert not folder.exists()
    MemoryDir.write(folder, [mirror(0)])
    before = snapshot(folder)
    with pytest.raises(RuntimeError):
        MemoryDir.write(folder, stopping())
    with pytest.raises(UsageError, match="layer 2 has two banks"):
        MemoryDir.write(folder, [mirror(2), mirror(2)])
    assert snapshot(folder) == before


def test_a_full_disk_leaves_the_old_memory(small_disk: tuple[Path, Callable[[str], None]]) -> None:
    folder = small_disk[0] / "memory"
    with pytest.raises(DiskFullError):
        MemoryDir.write(folder, map(mirror, range(100)))
    assert not folder.exists()
    MemoryDir.write(folder, [mirror(0)])
    before = snapshot(folder)
    with pytest.raises(DiskFullError, match="free some space"):
        MemoryDir.write(folder, map(mirror, range(100)))
    assert snapshot(folder) == before


def test_opening_writes_nothing(tmp_path: Path) -> None:
    folder = MemoryDir.write(tmp_path / "memory", [mirror(0)]).folder
    folder.chmod(0o555)
    before = snapshot(folder)
    memory = MemoryDir.open(folder)
    memory.array(0, "base", "key", copy=True)
    assert memory.verify() == []
    assert snapshot(folder) == before
    folder.chmod(0o755)


def test_a_read_only_disk_opens(small_disk: tuple[Path, Callable[[str], None]]) -> None:
    disk, remount = small_disk
    MemoryDir.write(disk / "memory", [mirror(0)])
    remount("ro")
    memory = MemoryDir.open(disk / "memory")
    assert content(memory.banks()) == content([mirror(0)])
    assert memory.verify() == []


def test_verify_names_file_and_rows(tmp_path: Path) -> None:
    memory = MemoryDir.write(tmp_path / "memory", [mirror(0), mirror(1)])
    damaged = memory.folder / "layer-01.base.value.g1.slab"
    raw = bytearray(damaged.read_bytes())
    raw[4096 + 16 * 2] ^= 1
    damaged.write_bytes(raw)
    (found,) = memory.verify()
    assert (found.file, found.rows) == (damaged.name, range(2, 3))
    with pytest.raises(FormatError, match="rows 2-2 are damaged"):
        MemoryDir.open(memory.folder).array(1, "base", "value", copy=True)
    damaged.unlink()
    (found,) = memory.verify()
    assert (found.file, found.rows) == (damaged.name, None)
    with pytest.raises(FormatError, match="is incomplete"):
        MemoryDir.open(memory.folder)


def test_a_memory_cut_short_under_an_open_reader_is_found(tmp_path: Path) -> None:
    memory = MemoryDir.write(tmp_path / "memory", [mirror(0)])
    path = memory.folder / "layer-00.base.key.g1.slab"
    with path.open("r+b") as file:
        file.truncate(4100)
    assert [(damage.file, damage.rows) for damage in memory.verify()] == [(path.name, None)]
    with pytest.raises(FormatError, match="cut off"):
        MemoryDir.open(memory.folder)


def test_every_shorter_description_is_refused(tmp_path: Path) -> None:
    path = MemoryDir.write(tmp_path / "memory", [mirror(0)]).folder / "memory.json"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=r"memory\.json"):
            MemoryDir.open(path.parent)


def change(*keys: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def apply(manifest: Any) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = to

    return apply


shard_at = ("banks", 0, "shards", 0)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("format", to="other"), "not the description of a memory"),
        (change("version", to=2), "version 2, this release reads version 1; install"),
        (change("banks", to=None), "does not describe a memory"),
        (change("banks", 0, "layer", to="x"), "does not describe a memory"),
        (change("banks", 0, "heads", to=2), "does not describe a memory"),
        (change(*shard_at, "n_slots", to=5), "does not describe a memory"),
        (change(*shard_at, "slabs", "key", "shape", to=[5, 5]), "does not describe a memory"),
        (change(*shard_at, "slabs", "key", "file", to="../memory/x.slab"), "which is no slab of a memory"),
        (change(*shard_at, "slabs", "key", "file", to=3), "does not describe a memory"),
        (change(*shard_at, "slabs", "key", "file", to="layer-00.base.value.g1.slab"), "in place of"),
        (change(*shard_at, "slabs", to={}), "does not describe a memory"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path: Path, edit: Callable[[Any], None], message: str) -> None:
    path = MemoryDir.write(tmp_path / "memory", [mirror(0)]).folder / "memory.json"
    manifest = json.loads(path.read_bytes())
    edit(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match=message):
        MemoryDir.open(path.parent)


def test_a_damaged_description_does_not_cost_the_slabs(tmp_path: Path) -> None:
    folder = MemoryDir.write(tmp_path / "memory", [mirror(0)]).folder
    (folder / "memory.json").write_text("{")
    with pytest.raises(UsageError):
        MemoryDir.write(folder, [mirror(2), mirror(2)])
    assert (folder / "layer-00.base.key.g1.slab").is_file()
    assert content(MemoryDir.write(folder, [mirror(1)]).banks()) == content([mirror(1)])


def test_a_memory_moves_with_its_folder(tmp_path: Path) -> None:
    MemoryDir.write(tmp_path / "a", [with_heads(0)])
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert content(MemoryDir.open(tmp_path / "b").banks()) == content([with_heads(0)])
    with pytest.raises(MissingError, match="holds no memory"):
        MemoryDir.open(tmp_path / "a")


def test_a_reader_that_meets_a_writer_gets_one_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = MemoryDir.write(tmp_path / "memory", [mirror(0, 1)]).folder
    read = MemoryDir._mapped

    def written_meanwhile(at: Path, manifest: dict[str, Any]) -> MemoryDir:
        monkeypatch.undo()
        MemoryDir.write(at, [mirror(0, 2)])
        return read(at, manifest)

    monkeypatch.setattr(MemoryDir, "_mapped", written_meanwhile)
    assert content(MemoryDir.open(folder).banks()) == content([mirror(0, 2)])
