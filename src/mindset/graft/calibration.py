"""What a model's feed-forward blocks are fed: moments that proposers and skips are fitted to.

Moments are taken over tokens that the caller gives, or over the teacher's own samples where there is no text at hand.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mindset.graft.bank import Bank, MirrorBank
from mindset.graft.families import family_of, layers_of
from mindset.graft.model import banks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Moments", "calibrate", "ff_inputs", "input_moments", "own_samples"]


@dataclass
class Moments:
    """Running sums over tokens of one block's inputs, in float64."""

    count: int
    """Tokens seen."""
    total: Float[Tensor, " d_model"]
    """Sum of x."""
    square: Float[Tensor, "d_model d_model"]
    """Sum of x x'."""

    @classmethod
    def empty(cls, d_model: int) -> Moments:
        """Sums over nothing."""
        zeros = torch.zeros(d_model, d_model, dtype=torch.float64)
        return cls(0, zeros[0].clone(), zeros)

    def add(self, x: Float[Tensor, "tokens d_model"]) -> None:
        """Count the tokens of `x` in."""
        rows = x.detach().double().cpu()
        self.count += len(rows)
        self.total += rows.sum(0)
        self.square += rows.T @ rows

    @property
    def mean(self) -> Float[Tensor, " d_model"]:
        return self.total / max(self.count, 1)

    @property
    def moment(self) -> Float[Tensor, "d_model d_model"]:
        """`E[x x']`, not centred."""
        return self.square / max(self.count, 1)


@contextmanager
def ff_inputs(model: nn.Module, sink: dict[int, Any]) -> Iterator[None]:
    """Call `sink[layer](x [tokens, d_model])` with every block's inputs while the block is open."""
    family = family_of(model.config)
    layers = layers_of(model, family)  # type: ignore[arg-type]
    with ExitStack() as stack:
        for index, take in sink.items():

            def hook(_module: nn.Module, args: tuple[Tensor, ...], take: Any = take) -> None:
                take(args[0].reshape(-1, args[0].shape[-1]))

            handle = layers[index].get_submodule(family.place).register_forward_pre_hook(hook)
            stack.callback(handle.remove)
        yield


@torch.no_grad()
def input_moments(
    model: PreTrainedModel, tokens: Int[Tensor, "batch pos"], layers: tuple[int, ...]
) -> dict[int, Moments]:
    """Moments of the inputs of the feed-forward blocks (or banks) of `layers`."""
    width = next(iter(banks(model).values())).d_model if banks(model) else int(model.config.hidden_size)
    moments = {layer: Moments.empty(width) for layer in layers}
    with ff_inputs(model, {layer: moments[layer].add for layer in layers}):
        for row in tokens.split(4):
            model(row.to(model.device), use_cache=False)
    return moments


def calibrate(model: PreTrainedModel, moments: dict[int, Moments]) -> None:
    """Fit the proposers of every mirror bank to the moments of its inputs."""
    for layer, bank in banks(model).items():
        if isinstance(bank, MirrorBank):
            device = next(bank.parameters()).device
            bank.calibrate(moments[layer].moment.to(device), moments[layer].mean.to(device))


def needs_calibration(bank: Bank) -> bool:
    """Whether a bank proposes by anything that is measured."""
    return isinstance(bank, MirrorBank) and bank.propose.kind != "all"


@torch.no_grad()
def own_samples(
    model: PreTrainedModel, *, rows: int = 16, length: int = 160, seed: int = 0
) -> Int[Tensor, "batch pos"]:
    """The model's own text at temperature 1 from its first token, a few thousand tokens."""
    config = model.config
    start = next((t for t in (config.bos_token_id, config.eos_token_id, 0) if isinstance(t, int)), 0)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.full((rows, 1), start)
    # transformers renamed the argument in 5.24.
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    cache, step = None, tokens
    limit = getattr(config.get_text_config(), "max_position_embeddings", None) or length
    for _ in range(min(length, limit) - 1):
        out = model(step.to(model.device), use_cache=True, **{name: cache})
        cache = out[name]
        step = torch.multinomial(out.logits[:, -1].float().softmax(-1).cpu(), 1, generator=generator)
        tokens = torch.cat([tokens, step], dim=1)
    return tokens
