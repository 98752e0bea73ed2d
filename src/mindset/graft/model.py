"""A model with banks, still an ordinary Hugging Face causal LM.

`model_class(base)` derives one class from the base architecture's own (LlamaForCausalLM and so on) and `MindsetModel`,
so that `generate`, KV caches, padding, beam search, dtype and device moves are the base's. Only two things differ: the
constructor puts the parts in, and saving writes a mindset folder. There is no class per family.

`graft` makes such a model from a teacher, which it leaves untouched.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from mindset.errors import UsageError
from mindset.graft.associative import AssociativeBank
from mindset.graft.bank import Bank
from mindset.graft.families import family_of
from mindset.graft.parts import apply_part, describe_part, swap_in

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "MindsetModel",
    "banks",
    "dense_parameters",
    "graft",
    "learning",
    "memory_parameters",
    "model_class",
    "reading",
    "without_memory",
]


class MindsetModel:
    """What every model with banks can do besides what its base architecture can."""

    config: Any
    skips: dict[int, str]
    """The skip of every bank's layer, as the plan wrote it."""
    source: str | None
    """The MODEL that it was made from, where known: what an evaluation compares it with."""

    def __init__(self, config: Any, parts: list[dict[str, Any]] | tuple[dict[str, Any], ...] = ()) -> None:
        super().__init__(config)  # type: ignore[call-arg]  # the base architecture's constructor comes next in line
        self.skips = {}
        self.source = None
        family = family_of(config)
        for part in parts:
            apply_part(cast(nn.Module, self), family, part)
            self.skips[part["layer"]] = part["skip"]

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The description of every part, in the order in which they are applied."""
        family = family_of(self.config)
        return [describe_part(bank, family, self.skips[layer]) for layer, bank in banks(self).items()]

    def save_pretrained(self, save_directory: str | Path, **_ignored: Any) -> None:
        """Write the mindset folder; a plain Hugging Face folder is what `mindset export --dense` makes."""
        from mindset.graft import folder

        folder.save(cast("PreTrainedModel", self), Path(save_directory))


@cache
def model_class(base: type) -> type:
    """The class of models of architecture `base` with banks in them."""
    return type(f"Mindset{base.__name__}", (MindsetModel, base), {"__module__": __name__})


def banks(model: object) -> dict[int, Bank]:
    """Every bank of a model by its layer, ascending."""
    found = [module for module in cast(nn.Module, model).modules() if isinstance(module, Bank)]
    return {bank.layer: bank for bank in sorted(found, key=lambda bank: bank.layer)}


def graft(
    teacher: PreTrainedModel, make: Callable[[int, nn.Module], Bank], layers: tuple[int, ...], skip: str
) -> PreTrainedModel:
    """A copy of `teacher` with `make(layer index, layer)` in place of the feed-forward blocks of `layers`."""
    if isinstance(teacher, MindsetModel):
        raise UsageError("this model has banks already; convert the model that it was made from")
    family = family_of(teacher.config)
    made = {index: make(index, teacher.get_submodule(family.layers)[index]) for index in layers}  # type: ignore[index]
    student = _copy_without(teacher, [f"{family.layers}.{index}.{family.place}" for index in layers])
    student.__class__ = model_class(cast(type, type(teacher)))
    student.skips = dict.fromkeys(layers, skip)
    student.source = None
    for index, bank in made.items():
        reference = next(student.parameters())
        swap_in(student.get_submodule(family.layers)[index], family, bank.to(reference))
    return cast("PreTrainedModel", student)


def _copy_without(teacher: PreTrainedModel, paths: list[str]) -> Any:
    """A deep copy of a model in which the modules at `paths` are not copied, since they are replaced at once."""
    spared: dict[int, object] = {}
    for path in paths:
        block = teacher.get_submodule(path)
        spared |= {id(part): part for part in (*block.modules(), *block.parameters())}
    return copy.deepcopy(teacher, memo=spared)


def memory_parameters(model: nn.Module) -> int:
    """Numbers that are rows of slots."""
    return sum(p.numel() for bank in banks(model).values() for _, p in bank.slot_parameters())


def dense_parameters(model: nn.Module) -> int:
    """Numbers of the network that are not rows of slots; a tied tensor counts once."""
    return sum(parameter.numel() for parameter in model.parameters()) - memory_parameters(model)


@contextmanager
def without_memory(model: nn.Module) -> Iterator[None]:
    """Let banks return their skip and bias only."""
    with ExitStack() as stack:
        for bank in banks(model).values():
            stack.callback(setattr, bank, "muted", bank.muted)
            bank.muted = True
        yield


@contextmanager
def reading(model: nn.Module, k: int | None) -> Iterator[None]:
    """Read k slots a token in every bank while the block is open."""
    with ExitStack() as stack:
        for bank in banks(model).values():
            stack.callback(setattr, bank, "k", bank.k)
            bank.set_k(k)
        yield


@contextmanager
def learning(model: nn.Module) -> Iterator[None]:
    """Let associative banks insert while the block is open."""
    with ExitStack() as stack:
        for bank in banks(model).values():
            if isinstance(bank, AssociativeBank):
                stack.callback(setattr, bank, "learning", bank.learning)
                bank.learning = True
        yield
