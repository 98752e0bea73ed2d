"""Which tokens a direction in the residual stream speaks for.

A direction is pushed through what follows the last layer (the final norm, an output projection, the unembedding),
linearised at the state that is really there: a norm divides by a length, so what a direction adds to the logits
depends on what it is added to. Layers in between are left out: this is the direct path, as in a logit lens.

Does not know slots. Invariant: for a direction that the last layer adds, these are the derivatives of the logits
(before any softcap).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from mindset.graft.families import family_of, layers_of

__all__ = ["direct_logits", "final_norm", "logit_gradient", "residual_directions"]

NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")
"""Names of the norm after the last layer, beside the list of layers."""


def final_norm(model: PreTrainedModel) -> nn.Module:
    """The norm between the last layer and the output layer; an identity where there is none."""
    body = model.get_submodule(family_of(model.config).layers.rpartition(".")[0])
    found = (getattr(body, name, None) for name in NORMS)
    return next((norm for norm in found if isinstance(norm, nn.Module)), nn.Identity())


def direct_logits(
    model: PreTrainedModel, state: Float[Tensor, " d_model"], directions: Float[Tensor, "n d_model"]
) -> Float[Tensor, "n vocab"]:
    """What each direction adds to the logits, per unit of it, at the residual `state` after the last layer."""
    return _derivative(_tail(model), state, directions)


def logit_gradient(
    model: PreTrainedModel, state: Float[Tensor, " d_model"], token: int
) -> Float[Tensor, " d_model"]:
    """What one unit of each coordinate of `state` adds to the logit of `token`: `direct_logits` for one token."""
    point = state.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(_tail(model)(point[None])[0, token], point)
    return gradient


def _tail(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """From the residual stream after the last layer to the logits."""
    body = model.get_submodule(family_of(model.config).layers.rpartition(".")[0])
    modules = [final_norm(model), getattr(body, "project_out", None), model.get_output_embeddings()]

    def tail(x: Tensor) -> Tensor:
        for module in modules:
            x = x if module is None else module(x)
        return x

    return tail


def residual_directions(
    model: PreTrainedModel,
    layer: int,
    output: Float[Tensor, " d_model"],
    directions: Float[Tensor, "n d_model"],
) -> Float[Tensor, "n d_model"]:
    """Directions of a block's `output` as they reach the residual stream: Gemma norms it on the way."""
    norm = getattr(layers_of(model)[layer], "post_feedforward_layernorm", None)
    return directions if norm is None else _derivative(norm, output, directions)


def _derivative(
    function: Callable[[Tensor], Tensor], at: Float[Tensor, " d_in"], directions: Float[Tensor, "n d_in"]
) -> Float[Tensor, "n d_out"]:
    point = at.detach().expand_as(directions).contiguous()
    # Not torch.func.jvp: its forward mode compiles with torch.jit, which warns that it is deprecated.
    derivative: Tensor = torch.autograd.functional.jvp(function, point, directions.detach())[1]
    return derivative
