"""Checkpoints without pickle: Lightning's checkpoint as safetensors and JSON in one folder.

Any nest of dicts, lists, tuples, numbers, strings and tensors is split into a tensor file and a JSON file that says
where each tensor was. The folder is written beside its final name and renamed, so that a checkpoint is whole or absent.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mindset.errors import DiskFullError, FormatError

__all__ = ["FolderCheckpointIO", "read_checkpoint", "write_checkpoint"]

_STATE, _TENSORS, _VERSION = "state.json", "tensors.safetensors", 1


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
    try:
        scratch.mkdir(parents=True)
        tensors: dict[str, Tensor] = {}
        packed = {"version": _VERSION, "state": _pack(state, tensors)}
        save_file(tensors, scratch / _TENSORS)
        (scratch / _STATE).write_text(json.dumps(packed), encoding="utf-8")
        if folder.exists():
            folder.replace(old)
        scratch.replace(folder)
    except OSError as error:
        if error.errno == 28:
            raise DiskFullError(
                f"no space left for the checkpoint {folder}; free some and run with --resume"
            ) from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote; a writer killed between its two renames left the older one beside it."""
    if not folder.exists():
        for old in sorted(folder.parent.glob(f".{folder.name}.old-*")):
            old.replace(folder)
    try:
        packed = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        if packed["version"] != _VERSION:
            raise FormatError(
                f"checkpoint {folder} has version {packed['version']}; this release reads {_VERSION}"
            )
        state = _unpack(packed["state"], load_file(folder / _TENSORS))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise FormatError(f"checkpoint {folder} cannot be read ({error}); start the run anew") from error
    if not isinstance(state, dict):
        raise FormatError(f"checkpoint {folder} is damaged; start the run anew")
    return state


class FolderCheckpointIO(CheckpointIO):
    """Lightning's checkpoints in our format."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path, ignore_errors=True)
