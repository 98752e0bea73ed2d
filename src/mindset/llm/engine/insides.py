"""What is inside one pass of a model: logits, hidden states, attention, reads; and texts as vectors.

To be called on the engine's thread. Attention is shown by transformers' plain attention code alone, which is put in for
that pass and taken out again. Hidden states are as transformers gives them: the last one is behind the final norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from mindset.errors import UnsupportedRequestError
from mindset.llm.engine.reads import Reads
from mindset.llm.events import Forward
from mindset.llm.request import ForwardRequest

__all__ = ["mean_states", "shown_pass"]


@torch.no_grad()
def shown_pass(model: PreTrainedModel, ids: Sequence[int], request: ForwardRequest, reads: Reads) -> Forward:
    """One pass over tokens, with what of its insides is wanted."""
    places = [len(ids) - 1] if request.last else list(range(len(ids)))
    watched = places if request.reads else []
    with _attention_code(model, request.attention), reads.watching(watched, request.reads or 0) as watch:
        output = model(
            input_ids=torch.tensor([list(ids)], device=model.device),
            use_cache=False,
            output_hidden_states=request.hidden_states,
            output_attentions=request.attention,
        )
    first = places[0]
    return Forward(
        tuple(ids),
        _array(output.logits[0, first:]) if request.logits else None,
        _stacked(output.hidden_states, first) if request.hidden_states else None,
        _stacked(output.attentions, first) if request.attention else None,
        tuple(watch.by_bank(place) for place in watched),
    )


@torch.no_grad()
def mean_states(model: PreTrainedModel, texts: Sequence[Sequence[int]]) -> Float[np.ndarray, "texts d_model"]:
    """The mean over each text's tokens of the last hidden states, at length 1."""
    longest = max(map(len, texts))
    ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts], device=model.device)
    mask = torch.tensor(
        [[1] * len(text) + [0] * (longest - len(text)) for text in texts], device=model.device
    )
    padding = {} if bool(mask.all()) else {"attention_mask": mask}
    states = model.base_model(input_ids=ids, use_cache=False, **padding)[0].float()
    means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return np.asarray(torch.nn.functional.normalize(means, dim=-1).cpu().numpy(), dtype=np.float32)


@contextmanager
def _attention_code(model: PreTrainedModel, shown: bool) -> Iterator[None]:
    """The attention code that can be looked into, for one pass."""
    before = model.config._attn_implementation  # noqa: SLF001  no public name
    if not shown or before == "eager":
        yield
        return
    if not model._can_set_attn_implementation():  # noqa: SLF001  set_attn_implementation would only warn
        raise UnsupportedRequestError(f"a {type(model).__name__} does not show its attention")
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.float().cpu().numpy(), dtype=np.float32)


def _stacked(layers: Sequence[Tensor] | None, first: int) -> np.ndarray:
    """One row of a batch, of every layer, from a position on."""
    if not layers or any(layer is None for layer in layers):
        raise UnsupportedRequestError("this model does not show its insides")
    return np.stack([_array(layer[0][..., first:, :]) for layer in layers])
