"""The model folder: `config.json`, `model.safetensors` (what is dense), `memory/` (the slots), the tokenizer's files.

Saving writes everything into a hidden folder inside the target and puts the pieces in place, `config.json` last: a
folder that was not finished has no config and does not load. Loading builds the base architecture, applies the parts
and fills in both halves; with `slots="disk"` values and modulators stay mapped files and are fetched as they are read.

Does not know training. Invariant: load(save(model)) has the same weights bit for bit, and the same config.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mindset.errors import DiskFullError, FormatError, ModelFolderError, UsageError, WeightsError
from mindset.graft import plain
from mindset.graft.bounded import bound
from mindset.graft.edited import Edited, edited, fit_buffers, grow
from mindset.graft.hf_classes import FOLDER_VERSION, MindsetConfig, base_config, register
from mindset.graft.model import MindsetModel, banks, model_class
from mindset.graft.mounting import mount_all, mounted
from mindset.graft.quiet import quiet
from mindset.graft.shard import FIELDS
from mindset.store.memory_dir import MemoryDir
from mindset.store.records import BankRecord, Rows, ShardRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["load", "naming_a_full_disk", "save"]

_UNFINISHED = ".writing-"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_FIELDS = ("modulator", "value")
"""What stays on disk; every key is read for every token and stays in RAM unless that is bounded."""


def save(model: PreTrainedModel, folder: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
    """Write `model` (with banks) as a mindset folder; other files already in `folder` are left alone."""
    if not isinstance(model, MindsetModel):
        raise UsageError("only a model with banks can be saved as a mindset folder; use save_pretrained")
    if names := mounted(model):
        raise UsageError(
            f"the model has overlays mounted ({', '.join(names)}), which belong to the folder they came from; "
            "save it without them (mindset.load(DIR, overlays=False))"
        )
    folder = Path(folder)
    _refuse_foreign(folder)
    existed = folder.exists()
    scratch = folder / f"{_UNFINISHED}{os.getpid()}"
    try:
        with naming_a_full_disk(folder):
            _remove_unfinished(folder)
            scratch.mkdir(parents=True)
            _write(model, scratch, tokenizer)
            _publish(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if not existed and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def naming_a_full_disk(folder: Path) -> Iterator[None]:
    """Turn the ways in which "no room" is said while `folder` is written into one DiskFullError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors hands the system's error on as text only.
        number = error.errno if isinstance(error, OSError) else None
        if number not in _NO_ROOM and not any(f"(os error {n})" in str(error) for n in _NO_ROOM):
            raise
        raise DiskFullError(f"no space left to write {folder}; free some and run it again") from error


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder for --out")
    config = folder / "config.json"
    if config.is_file() and plain.read_config(folder)["model_type"] != "mindset":
        raise UsageError(f"{folder} holds a model of another kind; give a new folder for --out")


def _remove_unfinished(folder: Path) -> None:
    """What a writer left that was killed."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)


def _write(model: Any, scratch: Path, tokenizer: PreTrainedTokenizerBase | None) -> None:
    dense = {name: tensor for name, tensor in model.state_dict().items() if ".shards." not in name}
    with quiet():
        super(MindsetModel, model).save_pretrained(scratch, state_dict=dense, max_shard_size="50GB")
    base = json.loads((scratch / "config.json").read_text(encoding="utf-8"))
    base["architectures"] = [
        type(model).__mro__[2].__name__
    ]  # not the derived class, which nobody could import
    config: dict[str, Any] = {"architectures": ["MindsetForCausalLM"], "model_type": "mindset"}
    config |= {"format_version": FOLDER_VERSION, "source": model.source, "base": base, "parts": model.parts}
    (scratch / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    MemoryDir.write(scratch / "memory", _records(model))
    if tokenizer is not None:
        tokenizer.save_pretrained(scratch)


def _publish(scratch: Path, folder: Path) -> None:
    config = folder / "config.json"
    config.unlink(missing_ok=True)
    for piece in sorted(scratch.iterdir(), key=lambda path: path.name == "config.json"):
        target = folder / piece.name
        if target.is_dir():
            shutil.rmtree(target)
        piece.replace(target)


def _records(model: Any) -> Iterator[BankRecord]:
    for layer, bank in banks(model).items():
        shards = []
        for name, shard in cast(nn.ModuleDict, bank.shards).items():
            tensors = {field: getattr(shard, field, None) for field in FIELDS}
            fields = {field: _rows(tensor) for field, tensor in tensors.items() if tensor is not None}
            shards.append(ShardRecord(name, str(shard.rule), bool(shard.gated), int(shard.n_slots), fields))  # type: ignore[arg-type]
        yield BankRecord(layer, bank.kind, bank.n_heads, tuple(shards))


def _rows(tensor: Tensor) -> Rows:
    plain_tensor = tensor.detach().cpu().contiguous()
    if plain_tensor.dtype == torch.bfloat16:
        return Rows(plain_tensor.view(torch.uint16).numpy(), "bfloat16")
    array = plain_tensor.numpy()
    return Rows(array, array.dtype.name)


def load(
    folder: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device = "cpu",
    slots: Literal["ram", "disk"] = "ram",
    ram: int | None = None,
    overlays: bool = True,
    **kwargs: Any,
) -> PreTrainedModel:
    """Open a mindset folder as a causal LM in eval mode, with the overlays that are mounted unless `overlays` is off.

    `dtype` None keeps what was saved. `slots="disk"` maps modulators and values read-only instead of loading them; such
    a model cannot be trained or moved to another dtype or device. `ram` does so with keys too, and lets no more than so
    many bytes of the memory be in RAM at a time (`bounded`; Linux).
    """
    folder = Path(folder)
    config = _read_config(folder)
    slots = slots if ram is None else "disk"
    if slots == "disk" and (dtype is not None or torch.device(device).type != "cpu"):
        raise UsageError(
            "slots on disk are read as they were saved, on the CPU: leave dtype and device alone"
        )
    memory, state = MemoryDir.open(folder / "memory"), _dense(folder)
    parts = config.parts or []
    with edited(memory) as changed:
        state |= dict(_slot_state(memory, parts, changed, copy=slots == "ram"))
        parts = grow(parts, changed)
        fit_buffers(state, config.parts or [], parts)
    base = base_config(config)
    if kwargs.get("attn_implementation") is not None:
        base._attn_implementation = kwargs.pop("attn_implementation")  # noqa: SLF001  transformers' own way
    loading: Any = model_class(_architecture(base))
    try:
        with quiet():
            model, info = loading.from_pretrained(
                None,
                config=base,
                state_dict=state,
                dtype=dtype or "auto",
                parts=parts,
                output_loading_info=True,
                **kwargs,
            )
    except RuntimeError as error:
        raise WeightsError(
            f"the weights in {folder} have not the shapes that its config.json asks for "
            f"({plain.first_line(error)}); convert the model again"
        ) from error
    _refuse_incomplete(folder, info)
    model.source = config.source
    _generation_config(folder, model)
    if slots == "disk":
        _map_slots(model, memory, changed, _DISK_FIELDS if ram is None else FIELDS)
    elif "device_map" not in kwargs:
        model.to(device)
    if ram is not None:
        bound(model, memory, ram)
    if overlays:
        mount_all(model, memory)
    return cast("PreTrainedModel", model.eval())


def _read_config(folder: Path) -> MindsetConfig:
    data = plain.read_config(folder)
    if data["model_type"] != "mindset":
        raise ModelFolderError(
            f"{folder} is a plain {data['model_type']} model; `mindset convert` gives it a memory"
        )
    if data.get("format_version") != FOLDER_VERSION:
        raise FormatError(
            f"{folder} has format version {data.get('format_version')}; this release reads {FOLDER_VERSION}"
        )
    base, parts = data.get("base"), data.get("parts")
    if not isinstance(base, dict) or "model_type" not in base or not _are_parts(parts):
        raise FormatError(
            f"{folder / 'config.json'} is damaged: its base or its parts are missing; convert the model again"
        )
    register()
    return MindsetConfig(base=base, parts=parts, source=data.get("source"))


def _are_parts(parts: Any) -> bool:
    return isinstance(parts, list) and all(isinstance(part, dict) for part in parts)


def _architecture(base: Any) -> type:
    from transformers import AutoModelForCausalLM

    return cast(type, AutoModelForCausalLM._model_mapping[type(base)])  # noqa: SLF001  no public way to the class


def _dense(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path} cannot be read ({plain.first_line(error)}); convert the model again"
        ) from error


def _slot_state(
    memory: MemoryDir, parts: list[dict[str, Any]], changed: dict[tuple[int, str], Edited], *, copy: bool
) -> Iterator[tuple[str, Tensor]]:
    paths = {part.get("layer"): part.get("path") for part in parts}
    for bank in memory.banks():
        if bank.layer not in paths:
            raise FormatError(
                f"{memory.folder} has a bank for layer {bank.layer}, which config.json does not name"
            )
        for shard in bank.shards:
            for field, rows in shard.fields.items():
                if (edit := changed.get((bank.layer, shard.name))) is not None:
                    array = edit.fields[field]
                else:
                    array = memory.array(bank.layer, shard.name, field, copy=copy)
                yield f"{paths[bank.layer]}.shards.{shard.name}.{field}", _tensor(array, rows.dtype)


def _tensor(array: NDArray[Any], dtype: str) -> Tensor:
    with warnings.catch_warnings():  # torch warns of read-only maps, which nothing here writes to
        warnings.simplefilter("ignore", UserWarning)
        tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def _refuse_incomplete(folder: Path, info: dict[str, Any]) -> None:
    missing = sorted(info["missing_keys"])
    wrong = sorted(str(item) for item in info.get("mismatched_keys", ()))
    if missing or wrong:
        raise WeightsError(
            f"{folder} lacks {len(missing)} tensors and has {len(wrong)} of another shape "
            f"(first: {(missing + wrong)[0]}); it is damaged, convert the model again"
        )


def _generation_config(folder: Path, model: Any) -> None:
    from transformers import GenerationConfig

    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)


def _map_slots(
    model: Any, memory: MemoryDir, changed: dict[tuple[int, str], Edited], fields: Sequence[str]
) -> None:
    """Map what is as it was saved; an edited shard stays in RAM."""
    for record in memory.banks():
        shards = cast(nn.ModuleDict, banks(model)[record.layer].shards)
        for shard in record.shards:
            if (record.layer, shard.name) in changed:
                continue
            for field in set(fields) & set(shard.fields):
                mapped = _tensor(memory.array(record.layer, shard.name, field), shard.fields[field].dtype)
                setattr(shards[shard.name], field, nn.Parameter(mapped, requires_grad=False))
