"""A GGUF file as an ordinary model: every tensor dequantised, nothing left of the file's own format.

transformers reads the file but marks the result as quantised, and such a model refuses to be saved; so the
model is built anew from its config and given the dequantised tensors. Does not know where the file came
from or where the model goes. Invariant: the model computes, bit for bit, what transformers' own reading of
the file computes.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from mindset.errors import UnsupportedModelError, WeightsError
from mindset.graft.plain import first_line
from mindset.graft.quiet import quiet

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Dequantised", "Header", "read", "read_header"]


@dataclass(frozen=True)
class Header:
    """What a GGUF file says about itself."""

    architecture: str
    """llama.cpp's name of the model family."""
    quantisation: str
    """The type that most weights are stored in, as llama.cpp spells it: Q4_1, Q8_0, F16 ..."""
    pre_tokenizer: str
    """llama.cpp's name of the rule that cuts text before merging; empty where the file names none."""
    file_bytes: int
    """Size of the file."""

    @property
    def note(self) -> str:
        """One line to print beside every figure of a model that came from this file."""
        bits = re.match(r"I?Q(\d)", self.quantisation)
        kind = f"{bits[1]}-bit ({self.quantisation})" if bits else self.quantisation
        return f"weights dequantised from a {kind} file of {self.file_bytes / 1e6:.0f} MB"


@dataclass(frozen=True)
class Dequantised:
    """A model and tokenizer that came out of a GGUF file."""

    model: PreTrainedModel
    """In eval mode, on the CPU, no longer marked as quantised."""
    tokenizer: PreTrainedTokenizerBase
    """With the chat template that the file carries, if any."""
    header: Header
    """What the file said."""


def read_header(path: Path) -> Header:
    """Read the file's index, and refuse a truncated or foreign file before anything large is allocated."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        types = Counter[str]()
        for tensor in reader.tensors:
            types[tensor.tensor_type.name] += int(tensor.n_elements)
        pre_tokenizer = reader.get_field("tokenizer.ggml.pre")
        header = Header(
            architecture=str(reader.get_field("general.architecture").contents()),  # type: ignore[union-attr]
            quantisation=types.most_common(1)[0][0],
            pre_tokenizer=str(pre_tokenizer.contents()) if pre_tokenizer else "",
            file_bytes=path.stat().st_size,
        )
    except (
        Exception
    ) as error:  # the reader indexes raw bytes: damage surfaces as almost any builtin exception
        raise WeightsError(
            f"cannot read {path} as a GGUF file: it is truncated, damaged or something else ({error}); "
            "fetch it again and compare its size and checksum with its source"
        ) from error
    return header


def read(path: Path, *, dtype: torch.dtype) -> Dequantised:
    """Dequantise `path` into a fresh model of `dtype`."""
    header = read_header(path)
    with quiet():
        quantised = _quantised_model(path, header, dtype)
        tokenizer = _tokenizer(path, header)
    return Dequantised(_rebuilt(quantised), tokenizer, header)


def _quantised_model(path: Path, header: Header, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    try:
        auto: Any = AutoModelForCausalLM  # annotated as returning the model alone
        model, info = auto.from_pretrained(
            path.parent, gguf_file=path.name, dtype=dtype, output_loading_info=True, trust_remote_code=False
        )
    except (ValueError, NotImplementedError, KeyError) as error:
        raise UnsupportedModelError(
            f"{path} holds a model of the architecture {header.architecture!r}, which transformers cannot "
            f"read from GGUF ({first_line(error)}); use the same model as a Hugging Face folder"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise WeightsError(
            f"{path} lacks {len(missing)} tensors that its architecture needs, first {missing[0]!r}"
        )
    return cast("PreTrainedModel", model)


def _rebuilt(quantised: PreTrainedModel) -> PreTrainedModel:
    """Put the same weights into a model that knows nothing of quantisation."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    config: Any = copy.deepcopy(quantised.config)
    auto: Any = AutoModelForCausalLM
    del config.quantization_config
    config.name_or_path = ""
    config.__dict__.pop(
        "_model_name_or_path", None
    )  # the file's free-text title, which means nothing to a loader
    # Building draws random numbers for weights that are thrown away: the caller's generator must not notice.
    with torch.random.fork_rng(devices=[]), no_init_weights():
        model: PreTrainedModel = auto.from_config(config, dtype=quantised.dtype)
    model.load_state_dict(quantised.state_dict(), strict=True, assign=True)
    model.tie_weights()
    model.generation_config = copy.deepcopy(quantised.generation_config)
    cast("torch.nn.Module", model).eval()
    return model


def _tokenizer(path: Path, header: Header) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    except Exception as error:  # the conversion fails in as many ways as there are incomplete vocabularies
        raise WeightsError(f"{path} holds no tokenizer that transformers can read ({error})") from error
    if header.pre_tokenizer == "smollm":
        _split_digits(tokenizer)
    return tokenizer


def _split_digits(tokenizer: Any) -> None:
    """Cut out every digit before the usual GPT-2 rule, as SmolLM was trained.

    transformers' conversion knows the latter rule only, and then white space before a number is merged
    otherwise than in the training data.
    """
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
