"""What a forward pass shows: inputs and outputs of feed-forward blocks, and the states before the output layer.

Everything is caught by hooks that come off when the block closes. While states are tapped the output layer sees one
position only, since who taps them applies it in pieces itself.

Does not know what is done with what it caught. Invariant: tapping blocks changes no output of the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from mindset.graft.families import family_of, layers_of

__all__ = ["Pass", "tap_blocks", "tap_states"]


@dataclass
class Pass:
    """One block's part in a forward pass."""

    x: Float[Tensor, "tokens d_model"] | None = None
    """The block's inputs."""
    y: Float[Tensor, "tokens d_model"] | None = None
    """What it added to the residual stream."""

    def both(self) -> tuple[Tensor, Tensor]:
        """Inputs and outputs, once the pass is done."""
        if self.x is None or self.y is None:
            raise RuntimeError("the model has not been run inside the block")
        return self.x, self.y


def _flat(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1, tensor.shape[-1])


@contextmanager
def tap_blocks(model: Any, layers: tuple[int, ...]) -> Iterator[dict[int, Pass]]:
    """Catch x and y of the feed-forward blocks of `layers`."""
    family = family_of(model.config)
    stack_of_layers = layers_of(model, family)
    passes = {index: Pass() for index in layers}
    with ExitStack() as stack:
        for index, caught in passes.items():

            def before(_m: nn.Module, args: tuple[Any, ...], caught: Pass = caught) -> None:
                caught.x = _flat(args[0])

            def after(_m: nn.Module, args: tuple[Any, ...], out: Tensor, caught: Pass = caught) -> None:
                # A copy, because Falcon adds the attention's output to this very tensor.
                caught.y = _flat(out - args[1]) if family.call == "residual" else _flat(out).clone()

            layer = stack_of_layers[index]
            stack.callback(layer.get_submodule(family.place).register_forward_pre_hook(before).remove)
            end = family.place if family.site else family.value
            stack.callback(layer.get_submodule(end).register_forward_hook(after).remove)
        yield passes


@contextmanager
def tap_states(model: Any) -> Iterator[list[Tensor]]:
    """Collect the states that the output layer would have read, gradients included."""
    seen: list[Tensor] = []

    def narrow(_m: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        seen.append(args[0])
        return (args[0][:, :1], *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(narrow)
    try:
        yield seen
    finally:
        handle.remove()
