"""How large a model is: bytes in RAM, bytes on disk, and how many tokens it can read at once.

Does not know what the bytes are worth. Invariant: memory that several tensors share counts once.
"""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel

from mindset.graft.decoding import context_length

__all__ = ["bytes_in_ram", "bytes_on_disk", "context_length"]


def bytes_in_ram(model: PreTrainedModel) -> int:
    """Bytes behind the parameters and buffers of a model as it is loaded."""
    tensors = [*model.parameters(), *model.buffers()]
    storages = {(t.device, t.untyped_storage().data_ptr()): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def bytes_on_disk(path: Path) -> int:
    """Bytes of the weights and slots in a model folder (or of one file); reports, runs and tokenizer left out."""
    if path.is_file():
        return path.stat().st_size
    files = [*path.glob("model*.safetensors"), *(path / "memory").rglob("*")]
    return sum(file.stat().st_size for file in files if file.is_file())
