"""Which parameters a distillation trains, and at which learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from mindset.distill.settings import DistillSettings
from mindset.graft.associative import AssociativeBank
from mindset.graft.bank import Bank
from mindset.graft.families import family_of, layers_of
from mindset.graft.model import banks

__all__ = ["choose_trained", "parameter_groups"]

_VALUES = ("value",)


def choose_trained(student: nn.Module, settings: DistillSettings) -> None:
    """Set `requires_grad` everywhere as `settings.trained` says."""
    own = _of(banks(student).values())
    others = _of(_tables_and_blocks(student))
    for parameter in student.parameters():
        with_attention = settings.trained == "attention" and id(parameter) not in others
        parameter.requires_grad_(id(parameter) in own or with_attention or settings.trained == "all")
    for bank in banks(student).values():
        if isinstance(bank, AssociativeBank) and bank.gradient == "frozen":
            bank.rows.key.requires_grad_(False)


def _of(modules: Iterable[nn.Module]) -> set[int]:
    return {id(parameter) for module in modules for parameter in module.parameters()}


def _tables_and_blocks(student: Any) -> Iterator[nn.Module]:
    """Embeddings, the output layer and the feed-forward blocks that no bank replaced: neither attention nor norm."""
    yield from (module for module in student.modules() if isinstance(module, nn.Embedding))
    if (head := student.get_output_embeddings()) is not None:
        yield head
    family = family_of(student.config)
    for layer in layers_of(student, family):
        if not isinstance(layer.get_submodule(family.place), Bank):
            yield from (layer.get_submodule(path) for path in {family.place, family.key, family.value})


def parameter_groups(student: nn.Module, settings: DistillSettings, lr: float) -> list[dict[str, Any]]:
    """AdamW groups: keys and modulators, values, the banks' dense parts, the rest; empty ones left out."""
    rows: dict[str, list[nn.Parameter]] = {"keys": [], "values": [], "beside": [], "dense": []}
    in_banks = set()
    for bank in banks(student).values():
        for name, parameter in bank.named_parameters():
            in_banks.add(id(parameter))
            slot = name.startswith("shards.")
            kind = ("values" if name.endswith(_VALUES) else "keys") if slot else "beside"
            rows[kind].append(parameter)
    rows["dense"] = [p for p in student.parameters() if id(p) not in in_banks]
    factors = {
        "keys": 1.0,
        "values": settings.value_lr_factor,
        "beside": 1.0,
        "dense": settings.dense_lr_factor,
    }
    groups = []
    for kind, parameters in rows.items():
        wanted = [p for p in parameters if p.requires_grad]
        if wanted:
            groups.append({"params": wanted, "lr": lr * factors[kind], "name": kind})
    return groups
