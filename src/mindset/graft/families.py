"""Where the feed-forward block sits in each model family: a table, not a class per family.

A row names either a module to swap (`site` is its path in a layer, `call` its signature) or an inline triple
(in, activation, out) that the layer itself strings together: then the memory takes the place of the first and the
other two become identities. What is *not* here: how a block is replaced (`swap`) and what replaces it (`bank`).

Invariant: `read_ff` copies nothing but the weights' layout; with these rows
`value.T @ (act(key @ x + key_bias) * (modulator @ x + modulator_bias)) + bias` is the block's own output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from mindset.errors import UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["FAMILIES", "Family", "FeedForward", "family_of", "layers_of", "read_ff", "shape_of"]


@dataclass(frozen=True)
class Family:
    """One row: where one architecture keeps its feed-forward block."""

    model_type: str
    """`config.model_type` of the architecture."""
    layers: str
    """Path from the causal LM to its list of layers."""
    key: str
    """Path in a layer of the linear map whose outputs are the slots' scores."""
    value: str
    """Path in a layer of the linear map from slots to the residual stream."""
    activation: str
    """Path in a layer of the activation module."""
    modulator: str | None = None
    """Path in a layer of the second map of a gated block; None: ungated."""
    site: str | None = "mlp"
    """Path in a layer of the module to swap; None: the triple is inline in the layer."""
    call: Literal["plain", "residual"] = "plain"
    """`plain`: module(x); `residual`: module(x, residual), which adds the residual itself."""

    @property
    def place(self) -> str:
        """Path in a layer of the module that the memory replaces."""
        return self.site or self.key


def _gated(model_type: str) -> Family:
    return Family(
        model_type, "model.layers", "mlp.gate_proj", "mlp.down_proj", "mlp.act_fn", modulator="mlp.up_proj"
    )


_ROWS = (
    *map(_gated, ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text")),
    Family("phi", "model.layers", "mlp.fc1", "mlp.fc2", "mlp.activation_fn"),
    Family("gpt2", "transformer.h", "mlp.c_fc", "mlp.c_proj", "mlp.act"),
    Family("gpt_neox", "gpt_neox.layers", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", "mlp.act"),
    Family("gptj", "transformer.h", "mlp.fc_in", "mlp.fc_out", "mlp.act"),
    Family("opt", "model.decoder.layers", "fc1", "fc2", "activation_fn", site=None),
    Family(
        "bloom", "transformer.h", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", "mlp.gelu_impl", call="residual"
    ),
    Family("falcon", "transformer.h", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", "mlp.act"),
)
FAMILIES: dict[str, Family] = {row.model_type: row for row in _ROWS}

_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@dataclass(frozen=True)
class FeedForward:
    """The rows of one feed-forward block, as slots. `d_mlp` is the number of slots."""

    key: Tensor
    """[d_mlp, d_model]"""
    value: Tensor
    """[d_mlp, d_model]"""
    key_bias: Tensor | None
    """[d_mlp]"""
    modulator: Tensor | None
    """[d_mlp, d_model]; None: ungated"""
    modulator_bias: Tensor | None
    """[d_mlp]"""
    bias: Tensor | None
    """[d_model], added to the sum of the values"""


def family_of(config: Any) -> Family:
    """The table's row for a model's config.

    Raises `UnsupportedModelError` for a mixture of experts (by name) and for a family without a row.
    """
    model_type = str(getattr(config, "model_type", "unknown"))
    experts = max((int(getattr(config, name, 0) or 0) for name in _EXPERT_COUNTS), default=0)
    if experts > 1 or "moe" in model_type or model_type == "mixtral":
        raise UnsupportedModelError(
            f"'{model_type}' is a mixture of experts, whose feed-forward blocks mindset does not replace; "
            f"supported families: {', '.join(sorted(FAMILIES))}"
        )
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"the model family '{model_type}' is not supported; supported: {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[model_type]


def layers_of(model: PreTrainedModel, family: Family | None = None) -> nn.ModuleList:
    """The list of transformer layers of a causal LM."""
    row = family or family_of(model.config)
    return cast(nn.ModuleList, model.get_submodule(row.layers))


def _rows(linear: nn.Module, *, transposed: bool) -> Tensor:
    """The weight with one row per slot; GPT-2's Conv1D stores [in, out], everything else [out, in]."""
    weight = cast(Tensor, linear.weight)
    is_conv1d = type(linear).__name__ == "Conv1D"
    return weight.T if is_conv1d != transposed else weight


def read_ff(layer: nn.Module, family: Family) -> FeedForward:
    """The feed-forward block of a layer as slots; the tensors are views of the layer's own."""
    key, value = layer.get_submodule(family.key), layer.get_submodule(family.value)
    modulator = layer.get_submodule(family.modulator) if family.modulator else None
    return FeedForward(
        key=_rows(key, transposed=False),
        value=_rows(value, transposed=True),
        key_bias=cast("Tensor | None", key.bias),
        modulator=None if modulator is None else _rows(modulator, transposed=False),
        modulator_bias=None if modulator is None else cast("Tensor | None", modulator.bias),
        bias=cast("Tensor | None", value.bias),
    )


def shape_of(layer: nn.Module, family: Family) -> tuple[int, int]:
    """`(d_mlp, d_model)` of a layer's feed-forward block."""
    ff = read_ff(layer, family)
    d_mlp, d_model = ff.key.shape
    return int(d_mlp), int(d_model)


def dtype_of(layer: nn.Module, family: Family) -> torch.dtype:
    """The dtype in which a layer keeps its feed-forward weights."""
    return read_ff(layer, family).key.dtype
