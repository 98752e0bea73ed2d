from __future__ import annotations

import json
import math
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mindset.distill import checkpoint
from mindset.distill.checkpoint import FolderCheckpointIO, has_checkpoint, read_checkpoint, write_checkpoint
from mindset.errors import DiskFullError, FormatError

DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any shape from 0-d and empty on, any bits, contiguous or not."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    seed = draw(st.integers(0, 2**31))
    drawn = torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return drawn.T if drawn.ndim == 2 and draw(st.booleans()) else drawn


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
keys = st.text(max_size=8) | st.integers() | st.tuples(st.integers(), st.text(max_size=3))
nests = st.recursive(
    plain | tensors(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=12,
)


def same(left: Any, right: Any) -> bool:
    """Equal to the bit and to the type, NaN included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, Tensor):
        bits = [
            t.contiguous().reshape(-1).view(torch.uint8).tolist() if t.numel() else [] for t in (left, right)
        ]
        return left.dtype == right.dtype and left.shape == right.shape and bits[0] == bits[1]
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    return struct.pack("d", left) == struct.pack("d", right) if isinstance(left, float) else left == right


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(state=st.dictionaries(st.text(max_size=8), nests, max_size=4))
def test_what_is_written_is_what_is_read(tmp_path: Path, state: dict[Any, Any]) -> None:
    write_checkpoint(state, tmp_path / "c")
    assert same(read_checkpoint(tmp_path / "c"), state)


def test_a_folder_holds_json_and_safetensors_only(tmp_path: Path) -> None:
    write_checkpoint({"a": torch.ones(2), "$tensor": "t00000", "b": {"$dict": 1}}, tmp_path / "c")
    assert sorted([path.name for path in tmp_path.iterdir()]) == ["c"]
    assert sorted([path.name for path in (tmp_path / "c").iterdir()]) == [
        "SHA256SUMS", "state.json", "tensors.safetensors",
    ]  # fmt: skip
    assert json.loads((tmp_path / "c/state.json").read_text())["version"] == 2
    length = struct.unpack("<Q", (tmp_path / "c/tensors.safetensors").read_bytes()[:8])[0]
    assert "t00000" in json.loads((tmp_path / "c/tensors.safetensors").read_bytes()[8 : 8 + length])
    assert same(read_checkpoint(tmp_path / "c")["b"], {"$dict": 1})


def test_tensors_that_share_memory_come_back_apart(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    write_checkpoint({"whole": whole, "view": whole[2:4], "wide": torch.ones(1).expand(3)}, tmp_path / "c")
    read = read_checkpoint(tmp_path / "c")
    read["view"].zero_()
    assert same(read["whole"], whole)
    assert same(read["wide"], torch.ones(3))


class Odd:
    pass


@pytest.mark.parametrize("odd", [Odd(), {1, 2}, b"bytes", 1j, Path("x"), torch.float32, print])
def test_other_types_are_refused_and_nothing_is_left(tmp_path: Path, odd: object) -> None:
    with pytest.raises(FormatError, match=f"cannot hold a {type(odd).__name__}"):
        write_checkpoint({"deep": [{"x": (odd,)}]}, tmp_path / "c")
    assert [path.name for path in tmp_path.iterdir()] == []


def damage(folder: Path, how: str) -> None:
    state, stored = folder / "state.json", folder / "tensors.safetensors"
    packed = json.loads(state.read_text())
    if how == "no state":
        state.unlink()
    elif how == "no tensors":
        stored.unlink()
    elif how == "cut state":
        state.write_bytes(state.read_bytes()[:-9])
    elif how == "cut tensors":
        stored.write_bytes(stored.read_bytes()[:-1])
    elif how == "zeroed tensors":
        stored.write_bytes(bytes(stored.stat().st_size))
    elif how == "no utf-8":
        state.write_bytes(b"\xff\xfe" + state.read_bytes())
    else:
        packed["state"] = {
            "missing tensor": {"$dict": [["a", {"$tensor": "t00099"}]]},
            "no dict": [1],
            "unknown kind": {"$dict": [["a", {"$set": 3}]]},
            "odd pairs": {"$dict": [["a"]]},
            "unhashable key": {"$dict": [[[1], 2]]},
            "two kinds": {"$dict": [], "$tuple": []},
        }[how]
        state.write_text(json.dumps(packed))
        (folder / "SHA256SUMS").write_text(checkpoint._sums(folder))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    where=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    name=st.sampled_from(["state.json", "tensors.safetensors"]),
)
def test_one_flipped_bit_is_noticed(tmp_path: Path, where: float, bit: int, name: str) -> None:
    write_checkpoint({"a": torch.arange(9.0), "b": [2, "x"]}, tmp_path / "c")
    path = tmp_path / "c" / name
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"is damaged|cannot be read"):
        read_checkpoint(tmp_path / "c")


def test_the_digests_are_those_of_sha256sum(tmp_path: Path) -> None:
    write_checkpoint({"a": torch.ones(3)}, tmp_path / "c")
    told = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=tmp_path / "c",
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.splitlines() == ["state.json: OK", "tensors.safetensors: OK"]


@pytest.mark.parametrize(
    "how",
    [
        "no state", "no tensors", "cut state", "cut tensors", "zeroed tensors", "no utf-8", "missing tensor",
        "no dict", "unknown kind", "odd pairs", "unhashable key", "two kinds",
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, how: str) -> None:
    write_checkpoint({"a": torch.ones(3), "b": 2}, tmp_path / "c")
    damage(tmp_path / "c", how)
    with pytest.raises(FormatError, match="start the run anew"):
        read_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"version": 1}'])
def test_json_that_is_no_checkpoint_is_refused(tmp_path: Path, text: str) -> None:
    write_checkpoint({}, tmp_path / "c")
    (tmp_path / "c/state.json").write_text(text)
    with pytest.raises(FormatError):
        read_checkpoint(tmp_path / "c")


def test_another_version_is_named(tmp_path: Path) -> None:
    write_checkpoint({}, tmp_path / "c")
    (tmp_path / "c/state.json").write_text('{"version": 3, "state": {"$new": 1}}')
    (tmp_path / "c/SHA256SUMS").write_text(checkpoint._sums(tmp_path / "c"))
    with pytest.raises(FormatError, match="has version 3; this release reads 2"):
        read_checkpoint(tmp_path / "c")


def test_no_checkpoint_is_said_so(tmp_path: Path) -> None:
    assert not has_checkpoint(tmp_path / "c")
    with pytest.raises(FormatError, match="no checkpoint"):
        read_checkpoint(tmp_path / "c")


class Killed(BaseException):
    """The process ends here; nothing after it runs."""


def kill_at(monkeypatch: pytest.MonkeyPatch, rename: int) -> None:
    """Let the writer die before its `rename`-th rename, cleaning nothing up."""
    done = 0
    replace = Path.replace

    def dying(self: Path, target: Path) -> Path:
        nonlocal done
        done += 1
        if done == rename:
            raise Killed
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", dying)
    monkeypatch.setattr(checkpoint.shutil, "rmtree", lambda *_, **__: None)


@pytest.mark.parametrize(("rename", "first"), [(1, False), (2, False), (1, True)])
def test_a_kill_at_any_rename_leaves_a_whole_checkpoint_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rename: int, first: bool
) -> None:
    folder = tmp_path / "c"
    if not first:
        write_checkpoint({"n": 1, "t": torch.ones(2)}, folder)
    with monkeypatch.context() as patch:
        kill_at(patch, rename)
        with pytest.raises(Killed):
            write_checkpoint({"n": 2, "t": torch.zeros(2)}, folder)
    assert has_checkpoint(folder) != first
    if not first:
        assert read_checkpoint(folder)["n"] == 1
    # The next writer needs nothing and leaves nothing of it.
    monkeypatch.setattr(os, "getpid", lambda: 12345)
    write_checkpoint({"n": 3}, folder)
    assert read_checkpoint(folder) == {"n": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_writer_without_resume_wins_over_what_a_killed_one_left(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    write_checkpoint({"n": 1}, folder)
    shutil.move(folder, tmp_path / ".c.old-1")
    write_checkpoint({"n": 2}, folder)
    assert read_checkpoint(folder) == {"n": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("words", ["Error while serializing: I/O error: full (os error 28)", None])
def test_a_full_disk_is_named_and_the_older_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str | None
) -> None:
    write_checkpoint({"n": 1}, tmp_path / "c")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device") if words is None else checkpoint.SafetensorError(words)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(DiskFullError, match="no space left"):
        write_checkpoint({"n": 2}, tmp_path / "c")
    assert read_checkpoint(tmp_path / "c") == {"n": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_lightning_reads_and_removes_what_it_wrote(tmp_path: Path) -> None:
    plugin, path = FolderCheckpointIO(), str(tmp_path / "deep/c")
    plugin.save_checkpoint({"n": 1}, path)
    assert plugin.load_checkpoint(path) == {"n": 1}
    plugin.remove_checkpoint(path)
    assert not has_checkpoint(Path(path))
