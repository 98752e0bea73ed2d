"""What a compiled reading is told: the names of a block's integers, and the numbers of kinds and activations."""

from __future__ import annotations

from torch import nn

__all__ = ["FIELDS", "GELU", "KINDS", "RELU", "SILU", "TANH", "rule_of"]

FIELDS = (
    "threads", "thread_number", "thread_count", "barrier", "n_slots", "d_model", "candidates", "k", "kind", "rule",
    "rank", "x", "key", "key_bias", "modulator", "modulator_bias", "value", "norms", "scale", "project", "key_low",
    "modulator_low", "every", "out", "floats", "numbers",
)  # fmt: skip
KINDS = ("all", "score", "proxy")
SILU, RELU, GELU, TANH = range(4)

_RULES: dict[str, int] = {
    "SiLU": SILU,
    "SiLUActivation": SILU,
    "ReLU": RELU,
    "GELUActivation": GELU,
    "NewGELUActivation": TANH,
    "GELUTanh": TANH,
    "BloomGelu": TANH,
}


def rule_of(activation: nn.Module) -> int | None:
    """The number of an activation that the compiled loops know, by the name of its class."""
    return _RULES.get(str(type(activation).__name__))
