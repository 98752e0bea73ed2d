"""The config and opener classes through which transformers knows mindset folders.

`AutoConfig.from_pretrained(DIR)` gives a `MindsetConfig` (the base's config as it was, and the parts);
`AutoModelForCausalLM.from_pretrained(DIR)` goes through `MindsetForCausalLM` and returns an object of the base
architecture's class with its banks in place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from mindset.errors import UsageError

__all__ = ["FOLDER_VERSION", "MindsetConfig", "MindsetForCausalLM", "base_config", "register"]

FOLDER_VERSION = 1


class MindsetConfig(PreTrainedConfig):  # type: ignore[misc]
    """`base`: the original config as a dict, untouched; `parts`: what was put into it."""

    model_type = "mindset"
    base: dict[str, Any] | None = None
    parts: list[dict[str, Any]] | None = None
    source: str | None = None
    format_version: int = FOLDER_VERSION


def base_config(config: MindsetConfig) -> Any:
    """The base architecture's own config object."""
    base = dict(config.base or {})
    made = AutoConfig.for_model(base.pop("model_type"), **base)
    if config._attn_implementation_internal is not None:
        made._attn_implementation = config._attn_implementation_internal
    return made


class MindsetForCausalLM:
    """Opens mindset folders for transformers' auto classes; models are of `graft.model.model_class`."""

    config_class = MindsetConfig

    @classmethod
    def from_pretrained(cls, path: str | Path, *_: Any, config: Any = None, **kwargs: Any) -> Any:
        from mindset.graft import folder

        dtype = kwargs.pop("dtype", None) or kwargs.pop("torch_dtype", None)
        slots = kwargs.pop("slots", "ram")
        allowed = {"device_map", "attn_implementation"}
        passed = {name: value for name, value in kwargs.items() if name in allowed}
        if not Path(path).is_dir():
            raise UsageError(f"{path} is no local folder; mindset models are opened from disk")
        return folder.load(Path(path), dtype=dtype, slots=slots, **passed)


def register() -> None:
    """Make the auto classes know model type `mindset`; calling it again changes nothing."""
    AutoConfig.register("mindset", MindsetConfig, exist_ok=True)
    AutoModelForCausalLM.register(MindsetConfig, MindsetForCausalLM, exist_ok=True)
