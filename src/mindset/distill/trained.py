"""Which parameters a distillation trains, and at which learning rate."""

from __future__ import annotations

from typing import Any

from torch import nn

from mindset.distill.settings import DistillSettings
from mindset.graft.model import banks

__all__ = ["choose_trained", "parameter_groups"]

_VALUES = ("value",)


def choose_trained(student: nn.Module, settings: DistillSettings) -> None:
    """Set `requires_grad` everywhere as `settings.trained` says."""
    in_banks = {id(p) for bank in banks(student).values() for p in bank.parameters()}
    head = student.get_output_embeddings()  # type: ignore[operator]
    tables = {id(p) for m in (student.get_input_embeddings(), head) if m is not None for p in m.parameters()}  # type: ignore[operator]
    for parameter in student.parameters():
        own = id(parameter) in in_banks
        body = id(parameter) not in tables
        wanted = own or settings.trained == "all" or (settings.trained == "attention" and body)
        parameter.requires_grad_(wanted)
    for bank in banks(student).values():
        if getattr(bank, "gradient", None) == "frozen":
            bank.shards.base.key.requires_grad_(False)  # type: ignore[union-attr]


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
