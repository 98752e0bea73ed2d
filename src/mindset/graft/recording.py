"""What a memory read, for whoever asks: slot use, `why`, fvu.

Recording is off unless a `record` block is open; closing it always takes the recorders off again. A recorded read goes
through the dense path, so that one form serves every bank: weights of all slots, zero where a slot was not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from mindset.graft.radius import Listener

__all__ = ["Read", "Recorder", "listen", "record"]


@dataclass(frozen=True)
class Read:
    """One pass of tokens through one bank."""

    layer: int
    """Index of the layer in its model."""
    x: Float[Tensor, "tokens d_model"]
    """The bank's inputs."""
    weights: Float[Tensor, "tokens n_heads n_slots"]
    """Weights of the slots that were read; zero for the others."""
    output: Float[Tensor, "tokens d_model"]
    """What the bank added to the residual stream, skip and bias included."""


Recorder = Callable[[Read], None]


@contextmanager
def record(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Call `recorder` with every read of every bank of `model` while the block is open."""
    with _told(model, "recorder", recorder):
        yield


@contextmanager
def listen(model: nn.Module, listener: Listener) -> Iterator[None]:
    """Call `listener` with every answer of radius slots of `model` while the block is open."""
    with _told(model, "listener", listener):
        yield


@contextmanager
def _told(model: nn.Module, role: str, who: Recorder | Listener) -> Iterator[None]:
    from mindset.graft.bank import Bank

    banks = [module for module in model.modules() if isinstance(module, Bank)]
    before = [getattr(bank, role) for bank in banks]
    for bank in banks:
        setattr(bank, role, who)
    try:
        yield
    finally:
        for bank, old in zip(banks, before, strict=True):
            setattr(bank, role, old)
