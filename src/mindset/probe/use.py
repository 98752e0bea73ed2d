"""How a memory is used: the share of slots that are read, and how well each bank stands in for its block.

Slot use is measured on the student's own activations. fvu, the fraction of variance unexplained, is measured on the
teacher's: each bank is given the inputs of the teacher's block, so that a layer is not blamed for the layers before
it. Both can watch a pass that is run for another reason (`watch_slots`, `watch_fvu`) or run their own (`slot_use`,
`fvu`). Padding is left out, and so is the first token of a window, which is not scored: many models rest their
attention on it, with outputs so large that it alone would be the variance.

Does not know bits per byte. Invariant: watching changes no output.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from mindset.graft.bank import Bank
from mindset.graft.model import banks
from mindset.graft.recording import Read, record
from mindset.probe.logits import evaluation_mode
from mindset.probe.tap import tap_blocks
from mindset.probe.windows import Windows

__all__ = ["Fvu", "SlotUse", "fvu", "slot_use", "watch_fvu", "watch_slots"]


class SlotUse:
    """Which slots were read, in passes of a student through `watch_slots`."""

    def __init__(self, held: dict[int, Bank]) -> None:
        self._read = {
            layer: torch.zeros(bank.n_heads, bank.n_slots, dtype=torch.bool) for layer, bank in held.items()
        }
        self.scored: Bool[Tensor, " tokens"] | None = None
        """Tokens of the pass that is running that count; None outside a pass."""

    def __call__(self, read: Read) -> None:
        if self.scored is not None:
            was_read = (read.weights[self.scored.to(read.weights.device)] != 0).any(dim=0)
            self._read[read.layer] |= was_read.cpu()

    @property
    def per_layer(self) -> list[float]:
        """Share of the slots of each bank, all heads together, that were read at least once."""
        return [float(was_read.float().mean()) for was_read in self._read.values()]


class Fvu:
    """What banks left unexplained of their blocks' outputs, in passes of a teacher through `watch_fvu`."""

    def __init__(self, layers: tuple[int, ...]) -> None:
        self._sums = {layer: _Residual() for layer in layers}

    def add(
        self, layer: int, output: Float[Tensor, "tokens d_model"], target: Float[Tensor, "tokens d_model"]
    ) -> None:
        """Count a bank's outputs against those of the block whose place it takes."""
        self._sums[layer].add(output, target)

    @property
    def per_layer(self) -> list[float]:
        """Squared error over the target's variance: 0 explains all, 1 no more than the mean does."""
        return [sums.ratio for sums in self._sums.values()]


class _Residual:
    """Squared error and variance of one layer, merged batch by batch (Chan et al. 1979) so that nothing cancels."""

    def __init__(self) -> None:
        self.count, self.error, self.variance = 0, 0.0, 0.0
        self.mean = torch.zeros((), dtype=torch.float64)

    def add(self, output: Float[Tensor, "tokens d_model"], target: Float[Tensor, "tokens d_model"]) -> None:
        n = len(target)
        if n == 0:
            return
        output, target = output.cpu().double(), target.cpu().double()
        self.error += float((output - target).square().sum())
        mean = target.mean(dim=0)
        between = float((mean - self.mean).square().sum()) * self.count * n / (self.count + n)
        self.variance += float((target - mean).square().sum()) + between
        self.mean = self.mean + (mean - self.mean) * (n / (self.count + n))
        self.count += n

    @property
    def ratio(self) -> float:
        if self.variance > 0:
            return self.error / self.variance
        return math.inf if self.error > 0 else 0.0


@contextmanager
def watch_slots(student: PreTrainedModel) -> Iterator[SlotUse]:
    """Note which slots `student` reads while the block is open."""
    use = SlotUse(banks(student))

    def before(_: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        use.scored = _scored(args, kwargs)

    # Other readers of the same banks, fvu among them, run them outside a pass of the student and do not count.
    def after(*_: object) -> None:
        use.scored = None

    handles = [
        student.register_forward_pre_hook(before, with_kwargs=True),
        student.register_forward_hook(after, always_call=True),
    ]
    try:
        with record(student, use):
            yield use
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watch_fvu(student: PreTrainedModel, teacher: PreTrainedModel) -> Iterator[Fvu]:
    """Feed the student's banks what the teacher's blocks are given, in its every pass while the block is open."""
    held = banks(student)
    unexplained = Fvu(tuple(held))

    with tap_blocks(teacher, tuple(held)) as passes:

        def after(_: object, args: tuple[Any, ...], kwargs: dict[str, Any], _output: object) -> None:
            scored = _scored(args, kwargs)
            for layer, bank in held.items():
                x, y = (tensor[scored.to(tensor.device)] for tensor in passes[layer].both())
                with torch.no_grad():
                    # Past the hooks: where student and teacher are one model, the taps hang on this very bank.
                    output = bank.forward(x.to(next(bank.parameters())))
                unexplained.add(layer, output, y)

        handle = teacher.register_forward_hook(after, with_kwargs=True)
        try:
            yield unexplained
        finally:
            handle.remove()


def slot_use(student: PreTrainedModel, windows: Windows, batch_tokens: int = 2048) -> list[float]:
    """Share of each bank's slots that are read at least once over the scored tokens of `windows`, by layer."""
    with watch_slots(student) as use:
        _run(student, windows, batch_tokens)
    return use.per_layer


def fvu(
    student: PreTrainedModel, teacher: PreTrainedModel, windows: Windows, batch_tokens: int = 2048
) -> list[float]:
    """Fraction of variance unexplained of each bank's output on the teacher's own activations, by layer."""
    with evaluation_mode(student), watch_fvu(student, teacher) as unexplained:
        _run(teacher, windows, batch_tokens)
    return unexplained.per_layer


def _run(model: PreTrainedModel, windows: Windows, batch_tokens: int) -> None:
    with evaluation_mode(model), torch.no_grad():
        for batch in windows.batches(batch_tokens):
            ready = batch.to(model.device)
            model(input_ids=ready.input_ids, attention_mask=ready.attention_mask, use_cache=False)


def _scored(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bool[Tensor, " tokens"]:
    """Tokens of a pass over right-padded windows that count: neither padding nor the first of their window."""
    mask = kwargs.get("attention_mask")
    mask = (
        torch.ones_like(kwargs["input_ids"] if "input_ids" in kwargs else args[0]) if mask is None else mask
    )
    scored = mask.bool().clone()
    scored[:, 0] = False
    return scored.flatten()
