"""The config and opener classes through which transformers knows mindset folders.

`AutoConfig.from_pretrained(DIR)` gives a `MindsetConfig` (the base's config as it was, and the parts);
`AutoModelForCausalLM.from_pretrained(DIR)` goes through `MindsetForCausalLM` and returns an object of the base
architecture's class with its banks in place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, no_type_check

from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from mindset.errors import FormatError, UsageError

__all__ = ["FOLDER_VERSION", "MindsetConfig", "MindsetForCausalLM", "base_config", "register"]

FOLDER_VERSION = 1


# transformers makes its constructor take more than its signature says; a checker of calls has to leave it alone.
@no_type_check
class MindsetConfig(PreTrainedConfig):
    """`base`: the original config as a dict, untouched; `parts`: what was put into it."""

    model_type = "mindset"
    base: dict[str, Any] | None = None
    parts: list[dict[str, Any]] | None = None
    source: str | None = None
    format_version: int = FOLDER_VERSION


def base_config(config: MindsetConfig) -> Any:
    """The base architecture's own config object."""
    base = dict(config.base or {})
    try:
        made = AutoConfig.for_model(base.pop("model_type"), **base)
    except Exception as error:  # a value out of range fails wherever the config first uses it, as anything
        raise FormatError(
            f"config.json is damaged: its base is no config of a known architecture ({error})"
        ) from error
    return made


_REFUSED = ("quantization_config", "load_in_8bit", "load_in_4bit")


class MindsetForCausalLM:
    """Opens mindset folders for transformers' auto classes; models are of `graft.model.model_class`."""

    config_class = MindsetConfig

    @classmethod
    def from_pretrained(cls, path: str | Path, *_: Any, config: Any = None, **kwargs: Any) -> Any:
        from mindset.graft import folder

        dtype = kwargs.pop("dtype", None) or kwargs.pop("torch_dtype", None)
        slots = kwargs.pop("slots", "ram")
        allowed = {"device_map", "attn_implementation"}
        # Where the config was read first, the choice of attention code is in it.
        kwargs.setdefault("attn_implementation", getattr(config, "_attn_implementation_internal", None))
        if refused := sorted(name for name, value in kwargs.items() if name in _REFUSED and value):
            raise UsageError(f"{', '.join(refused)}: a model with a memory cannot be opened quantised")
        passed = {name: value for name, value in kwargs.items() if name in allowed}
        if not Path(path).is_dir():
            raise UsageError(f"{path} is no local folder; mindset models are opened from disk")
        return folder.load(Path(path), dtype=dtype, slots=slots, **passed)


def register() -> None:
    """Make the auto classes know model type `mindset`; calling it again changes nothing."""
    AutoConfig.register("mindset", MindsetConfig, exist_ok=True)
    AutoModelForCausalLM.register(MindsetConfig, MindsetForCausalLM, exist_ok=True)
