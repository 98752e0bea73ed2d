"""The hash of what a model is made of: its weights, its config, its memory with every edit.

Two models with the same hash say the same. Large files are read once: a file that has its size and its time of change
is not read again (`hashes.json` in the user's folder; safe to delete). Knows no model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from mindset import places
from mindset.atomic_file import replacing
from mindset.calls.canonical import HASH_BYTES, digest
from mindset.store.memory_dir import MemoryDir
from mindset.store.slab_store import SlabStore

__all__ = ["content_hash"]

_KNOWN = "hashes.json"
_MOST = 1000
"""Files that are remembered."""
_NAMES = ("config.json", "generation_config.json", "chat_template.jinja")
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)


def content_hash(path: Path) -> str:
    """The hash of a model folder or of a model's one file."""
    if path.is_file():
        return digest([["file", _file_hashes([path])[path]]])
    files = [path / name for name in (*_NAMES, *_TOKENIZER)]
    files += sorted(path.glob("*.safetensors"))
    memory = path / "memory"
    files += [memory / "memory.json", *sorted(memory.glob("*.slab"))]
    hashes = _file_hashes([file for file in files if file.is_file()])
    parts = [[str(file.relative_to(path)), hash_] for file, hash_ in hashes.items()]
    return digest([*parts, ["edits", _edits(memory)]])


def _edits(memory: Path) -> list[int]:
    """The state of a memory: which one it is, and its last change."""
    if not (memory / "memory.json").is_file():
        return []
    generation = MemoryDir.open(memory).generation
    if not (memory / f"slots.g{generation}.sqlite").is_file():
        return [generation, 0]
    with SlabStore(memory, read_only=True) as store:
        return [generation, store.ledger.generation()]


def _file_hashes(files: list[Path]) -> dict[Path, str]:
    """The hash of each file, read only where it is not known."""
    known = _read_known()
    found, new = {}, False
    for file in files:
        key, stamp = str(file.resolve()), _stamp(file)
        if (entry := known.get(key)) is None or entry[:2] != stamp:
            entry = known[key] = [*stamp, _hash(file)]
            new = True
        found[file] = str(entry[2])
    if new:
        _write_known(known)
    return found


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _hash(file: Path) -> str:
    total = hashlib.blake2b(digest_size=HASH_BYTES)
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            total.update(block)
    return total.hexdigest()


def _read_known() -> dict[str, list[int | str]]:
    try:
        known = json.loads((places.home() / _KNOWN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: entry for key, entry in known.items() if isinstance(entry, list) and len(entry) == 3}


def _write_known(known: dict[str, list[int | str]]) -> None:
    """Best effort: without it files are read again."""
    kept = dict(list(known.items())[-_MOST:])
    with contextlib.suppress(OSError):
        places.home().mkdir(parents=True, exist_ok=True)
        with replacing(places.home() / _KNOWN) as file:
            file.write(json.dumps(kept).encode())
