"""An ordinary Hugging Face folder: read whole, or refused.

transformers fills a missing tensor with random numbers and warns; here that is an error, because a teacher
with one random layer looks like a bad teacher. Pickled weights are refused, and code beside the weights is
never executed. Does not know the MODEL grammar or memories. Invariant: every weight of a returned model
came from the folder.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mindset.errors import ModelFolderError, UnsupportedModelError, WeightsError
from mindset.graft.quiet import quiet

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["check_weights", "first_line", "read_config", "read_model", "read_tokenizer", "weights_bytes"]

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config.json that makes a folder a model."""
    path = folder / "config.json"
    if not folder.is_dir():
        raise ModelFolderError(f"no such folder: {folder}")
    if not path.is_file():
        raise ModelFolderError(f"{folder} is no model: it has no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{folder} is no model: its config.json cannot be read ({error})") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise ModelFolderError(f"{folder} is no model: its config.json names no model_type")
    return config


def read_model(folder: Path, *, dtype: torch.dtype) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """Load the causal LM in `folder` in eval mode, with notes about what in the folder was not used."""
    from transformers import AutoModelForCausalLM

    config = read_config(folder)
    check_weights(folder)
    try:
        with quiet():
            auto: Any = AutoModelForCausalLM  # annotated as returning the model alone
            model, info = auto.from_pretrained(
                folder, dtype=dtype, output_loading_info=True, use_safetensors=True, trust_remote_code=False
            )
    except RuntimeError as error:
        raise WeightsError(
            f"the weights in {folder} have not the shapes that its config.json asks for: {first_line(error)}"
        ) from error
    except Exception as error:  # a config value out of range fails wherever it is first used, as anything
        raise UnsupportedModelError(
            f"{folder} of type {config['model_type']!r} cannot be opened as a causal language model: "
            f"{first_line(error)}"
        ) from error
    _refuse_missing(folder, info["missing_keys"])
    return model.eval(), _unused_note(info["unexpected_keys"])


def check_weights(folder: Path) -> None:
    """Refuse weight files that are missing, truncated or not safetensors, without reading the tensors."""
    from safetensors import SafetensorError, safe_open

    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="numpy"):
                pass
        except (OSError, SafetensorError) as error:
            raise WeightsError(
                f"cannot read the weights in {path}: the file is missing, truncated or damaged "
                f"({first_line(error)}); fetch or save the model again"
            ) from error


def weights_bytes(folder: Path) -> int:
    """Add up the sizes of the folder's weight files."""
    return sum(path.stat().st_size for path in _weight_files(folder))


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer that lies beside the weights."""
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelFolderError(
            f"{folder} has no tokenizer: one of {', '.join(TOKENIZER_FILES)} must lie beside the weights"
        )
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a damaged file surfaces as a bare Exception from the tokenizers library
        raise ModelFolderError(f"cannot read the tokenizer in {folder}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Cut another library's message to one line, for use inside a sentence of ours."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".: ") if lines else type(error).__name__


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        return _shards(folder / INDEX_FILE)
    if any(folder.glob("pytorch_model*.bin")):
        raise WeightsError(
            f"{folder} has pickled weights (pytorch_model.bin), which can run code and is not opened; "
            "save the model as safetensors first"
        )
    raise WeightsError(f"{folder} has no weights: expected {WEIGHTS_FILE} or {INDEX_FILE}")


def _shards(index: Path) -> list[Path]:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [index.parent / name for name in sorted(set(names))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index} does not list the files of the weights ({error!r})") from error


def _refuse_missing(folder: Path, missing: set[str]) -> None:
    if missing:
        raise WeightsError(
            f"the weights in {folder} lack {len(missing)} tensors that its config.json asks for, "
            f"first {min(missing)!r}"
        )


def _unused_note(unused: set[str]) -> tuple[str, ...]:
    if not unused:
        return ()
    return (f"{len(unused)} tensors of the weights file have no place in the model, first {min(unused)!r}",)
