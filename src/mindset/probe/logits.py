"""The logits of a batch's scored positions, a few rows at a time.

Over a vocabulary of 49,152 the f32 logits of 2,048 positions take 400 MB, and comparing two models takes a
multiple. So the model runs once, with its output layer seeing one position only; the states that it would
have seen are kept, and the output layer is applied to them in pieces. What a model does to its logits
afterwards (softcap, scale) is repeated here and checked against the model's own logits at that one position,
in every batch. Where they differ, or where the output layer cannot be found, the model runs again with full
logits: slower, never wrong.

Does not know targets or losses. Invariant: the rows equal `model(...).logits` at the same positions, to
rounding, in f32 or, for a double model, in f64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from mindset.errors import UsageError
from mindset.probe.windows import WindowBatch

__all__ = ["evaluation_mode", "iter_logits"]


def iter_logits(
    model: PreTrainedModel, batch: WindowBatch, rows: int = 256
) -> Iterator[Float[Tensor, "rows vocab"]]:
    """Yield the logits that predict the scored tokens, window after window, at most `rows` at a time."""
    if rows < 1:
        raise UsageError(f"{rows} rows at a time were asked for; give at least 1.")
    # No gradient mode is held across a yield: it would leak into whoever reads the pieces.
    with torch.no_grad():
        wide, finish = _rows(model, batch.to(model.device))
    for piece in torch.split(wide, rows):
        with torch.no_grad():
            logits = finish(piece)
        yield logits if logits.dtype == torch.float64 else logits.float()


@contextmanager
def evaluation_mode(*models: nn.Module) -> Iterator[None]:
    """Dropout and the like off; afterwards every submodule is in the mode it was in."""
    before = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, training in before:
            module.training = training


def _rows(
    model: PreTrainedModel, batch: WindowBatch
) -> tuple[Float[Tensor, "scored d"], Callable[[Float[Tensor, "rows d"]], Float[Tensor, "rows vocab"]]]:
    """Return a row for each scored position, and what makes logits of some of them."""
    head = model.get_output_embeddings()
    states = _states_before(head, model, batch) if isinstance(head, nn.Module) else None
    if states is None:
        return _run(model, batch)[batch.predicting], lambda logits: logits
    return states[batch.predicting], lambda piece: _finished(head(piece), model.config)


def _run(model: PreTrainedModel, batch: WindowBatch) -> Float[Tensor, "batch pos vocab"]:
    output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    logits: Tensor = output.logits
    return logits


def _states_before(
    head: nn.Module, model: PreTrainedModel, batch: WindowBatch
) -> Float[Tensor, "batch pos d_model"] | None:
    """Return what the output layer reads everywhere; None where applying it here gives other logits."""
    with _first_position_only(head, batch) as seen:
        own = _run(model, batch)
    if len(seen) != 1:
        return None
    ours = _finished(head(seen[0][:, :1]), model.config)
    same = ours.shape == own.shape and torch.allclose(
        ours.to(own.dtype), own, rtol=1e-5, atol=1e-6, equal_nan=True
    )
    return seen[0] if same else None


@contextmanager
def _first_position_only(head: nn.Module, batch: WindowBatch) -> Iterator[list[Tensor]]:
    """Let `head` see the first position only; the list receives what it would have seen."""
    seen: list[Tensor] = []

    def narrow(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not args or args[0].shape[:-1] != batch.input_ids.shape:
            return None
        seen.append(args[0])
        return (args[0][:, :1], *args[1:])

    handle = head.register_forward_pre_hook(narrow)
    try:
        yield seen
    finally:
        handle.remove()


def _finished(logits: Float[Tensor, "... vocab"], config: Any) -> Float[Tensor, "... vocab"]:
    """Do what families do after the output layer: Gemma 2 caps, Cohere multiplies, Granite divides."""
    config = config.get_text_config()
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    if (scale := getattr(config, "logit_scale", None)) is not None:
        logits = logits * scale
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    return logits
