"""Checkpoints without pickle: Lightning's checkpoint as safetensors and JSON in one folder.

Any nest of dicts, lists, tuples, numbers, strings and tensors is split into a tensor file and a JSON file that says
where each tensor was. The folder is written beside its final name and renamed, so that a checkpoint is whole or absent.
`SHA256SUMS` has the digests of both, as `sha256sum --check` reads them: training on from a flipped bit would not show.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mindset.errors import DiskFullError, FormatError

__all__ = ["FolderCheckpointIO", "has_checkpoint", "read_checkpoint", "write_checkpoint"]

_STATE, _TENSORS, _SUMS, _VERSION = "state.json", "tensors.safetensors", "SHA256SUMS", 2

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ROOM_WORDS = re.compile(rf"os error ({'|'.join(map(str, _NO_ROOM))})\b")


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = f"t{len(tensors):05d}"
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"$tensor": name}
    if isinstance(value, dict):
        return {"$dict": [[_pack(k, tensors), _pack(v, tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        packed = [_pack(item, tensors) for item in value]
        return packed if isinstance(value, list) else {"$tuple": packed}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise FormatError(f"a checkpoint cannot hold a {type(value).__name__}; only numbers, text and tensors")


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "$tensor":
        return tensors[inner]
    if kind == "$tuple":
        return tuple(_unpack(item, tensors) for item in inner)
    return {_unpack(k, tensors): _unpack(v, tensors) for k, v in inner}


def write_checkpoint(state: dict[str, Any], folder: Path) -> None:
    """Write `state` as the checkpoint `folder`, replacing what is there."""
    scratch = folder.with_name(f".{folder.name}.writing-{os.getpid()}")
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    tensors: dict[str, Tensor] = {}
    packed = {"version": _VERSION, "state": _pack(state, tensors)}
    try:
        with _naming_a_full_disk(folder):
            _clear(folder)
            scratch.mkdir(parents=True)
            save_file(tensors, scratch / _TENSORS)
            (scratch / _STATE).write_text(json.dumps(packed), encoding="utf-8")
            (scratch / _SUMS).write_text(_sums(scratch), encoding="utf-8")
            if folder.exists():
                folder.replace(old)
            scratch.replace(folder)
    finally:
        if folder.exists():
            _clear(folder)
        shutil.rmtree(scratch, ignore_errors=True)


def _sums(folder: Path) -> str:
    lines = []
    for name in (_STATE, _TENSORS):
        with (folder / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


def _clear(folder: Path) -> None:
    """Remove what killed writers left, but for an older checkpoint that has nothing to take its place yet."""
    for left in folder.parent.glob(f".{folder.name}.writing-*"):
        shutil.rmtree(left, ignore_errors=True)
    if folder.exists():
        for left in folder.parent.glob(f".{folder.name}.old-*"):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _naming_a_full_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors tells the system's error in words only.
        if getattr(error, "errno", None) not in _NO_ROOM and not _NO_ROOM_WORDS.search(str(error)):
            raise
        raise DiskFullError(
            f"no space left for the checkpoint {folder}; free some and run with --resume"
        ) from error


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint; a writer killed between its two renames left the older one beside its place."""
    if not folder.exists():
        for old in sorted(folder.parent.glob(f".{folder.name}.old-*")):
            old.replace(folder)
            break
    return folder.exists()


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote."""
    if not has_checkpoint(folder):
        raise FormatError(f"there is no checkpoint {folder}; start the run anew")
    try:
        same = (folder / _SUMS).read_text(encoding="utf-8") == _sums(folder)
        packed = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        version = packed["version"]
        state = _unpack(packed["state"], load_file(folder / _TENSORS)) if version == _VERSION else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError, SafetensorError) as error:
        raise FormatError(f"checkpoint {folder} cannot be read ({error}); start the run anew") from error
    if version != _VERSION and same:
        raise FormatError(f"checkpoint {folder} has version {version}; this release reads {_VERSION}")
    if not same or not isinstance(state, dict):
        raise FormatError(f"checkpoint {folder} is damaged; start the run anew")
    return state


class FolderCheckpointIO(CheckpointIO):
    """Lightning's checkpoints in our format."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self,
        path: Any,
        map_location: Any = None,  # noqa: ARG002
        weights_only: bool | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path, ignore_errors=True)
