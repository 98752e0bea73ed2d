"""Conversion: a pretrained causal LM becomes one whose feed-forward blocks are banks.

`build_student` does it in memory and leaves the teacher as it was; `convert` does it for a MODEL and a folder, and says
how far the logits moved. A mirror bank at k = all moves them by rounding only; everything else loses something that
distillation brings back.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from mindset.errors import BankSizeError
from mindset.graft import packaged
from mindset.graft.associative import AssociativeBank
from mindset.graft.bank import Bank, MirrorBank
from mindset.graft.calibration import calibrate, input_moments, needs_calibration, own_samples
from mindset.graft.families import Family, FeedForward, family_of, layers_of, read_ff
from mindset.graft.featural import FeaturalBank
from mindset.graft.model import MindsetModel, banks, dense_parameters, graft, memory_parameters, reading
from mindset.graft.plan import ConversionPlan, parse_layers
from mindset.graft.shard import Shard, activation_of
from mindset.graft.skip import build_skip

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ConversionReport", "build_student", "convert"]


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did."""

    source: str
    """The MODEL as given."""
    out: str
    """The folder that was written."""
    layers: tuple[int, ...]
    """Layers whose feed-forward block is a bank now."""
    slots_per_layer: int
    """Slots of the first bank, all heads together."""
    k: int | None
    """Slots read for a token and head; None: all."""
    lossless_difference: float | None
    """Largest difference of a logit at k = all from the teacher's; None where the plan has no mirror."""
    teacher_dense_parameters: int
    """Parameters of the teacher."""
    dense_parameters: int
    """Parameters that are still dense."""
    memory_parameters: int
    """Parameters that are rows of slots now."""
    bytes_on_disk: int
    """Size of the folder."""
    notes: tuple[str, ...]
    """Sentences that belong beside every figure of this model."""

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self)


def build_student(
    teacher: PreTrainedModel, plan: ConversionPlan, calibration: Tensor | None = None
) -> PreTrainedModel:
    """A copy of `teacher` with banks as `plan` says; `calibration [batch, pos]`: tokens to fit proposers to."""
    family = family_of(teacher.config)
    layers = parse_layers(plan.layers, len(layers_of(teacher, family)))

    def make(index: int, layer: nn.Module) -> Bank:
        generator = torch.Generator().manual_seed(plan.seed * 1009 + index)
        return _make_bank(plan, family, index, layer, generator)

    student = graft(teacher, make, layers, plan.skip)
    if any(needs_calibration(bank) for bank in banks(student).values()):
        tokens = own_samples(teacher, seed=plan.seed) if calibration is None else calibration
        calibrate(student, input_moments(teacher, tokens, layers))
    return cast("PreTrainedModel", student.eval())


def _make_bank(
    plan: ConversionPlan, family: Family, index: int, layer: nn.Module, generator: torch.Generator
) -> Bank:
    ff = read_ff(layer, family)
    d_mlp, d_model = ff.key.shape
    skip = build_skip(plan.skip, d_model, generator)
    if plan.bank == "mirror":
        return _mirror(
            plan, ff, layer.get_submodule(family.activation), index, skip=skip, generator=generator
        )
    d_key = max(8, d_model // plan.heads)
    n_slots = plan.slots or d_mlp
    _check_k(plan.k, n_slots, index)
    bank: FeaturalBank | AssociativeBank
    if plan.bank == "featural":
        bank = FeaturalBank(
            index, d_model, n_slots=n_slots, n_heads=plan.heads, d_key=d_key, weight=plan.weight or "relu",
            k=plan.k, skip=skip,
        )  # fmt: skip
    else:
        bank = AssociativeBank(
            index, d_model, n_slots=n_slots, n_heads=plan.heads, d_key=d_key, k=plan.k, gradient=plan.gradient,
            skip=skip,
        )  # fmt: skip
    bank.reset(generator)
    return bank


def _check_k(k: int | None, n_slots: int, layer: int) -> None:
    if k is not None and k > n_slots:
        raise BankSizeError(
            f"k = {k}, but the bank of layer {layer} holds {n_slots} slots; give --k 1 to {n_slots} or all"
        )


def _mirror(
    plan: ConversionPlan,
    ff: FeedForward,
    activation: nn.Module,
    index: int,
    *,
    skip: nn.Module | None,
    generator: torch.Generator,
) -> MirrorBank:
    _check_k(plan.k, ff.key.shape[0] + plan.slots, index)
    shards = {"base": Shard(ff, activation, "family")}
    if plan.slots:
        rule = plan.weight or "family"
        own = activation if rule == "family" else activation_of(rule)
        shards["new"] = Shard(_random_rows(plan, ff, generator), own, rule)
    return MirrorBank(index, shards, ff.bias, k=plan.k, propose=plan.proposer, skip=skip)


def _random_rows(plan: ConversionPlan, ff: FeedForward, generator: torch.Generator) -> FeedForward:
    """New slots: keys and modulators as long as the block's own, values a twentieth of them."""

    def rows(like: Tensor, scale: float) -> Tensor:
        spread = float(like.detach().float().std()) * scale
        drawn = torch.randn(plan.slots, like.shape[1], generator=generator) * spread
        return drawn.to(like)

    gated = ff.modulator is not None and plan.weight is None
    return FeedForward(
        key=rows(ff.key, 1.0),
        value=rows(ff.value, 0.05),
        key_bias=None if ff.key_bias is None else ff.key_bias.new_zeros(plan.slots),
        modulator=rows(ff.modulator, 1.0) if gated and ff.modulator is not None else None,
        modulator_bias=None,
        bias=None,
    )


@torch.no_grad()
def lossless_difference(teacher: PreTrainedModel, student: PreTrainedModel, seed: int = 0) -> float:
    """Largest difference of a logit between a teacher and its student read at k = all, over random tokens."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, teacher.config.vocab_size, (2, 48), generator=generator).to(teacher.device)
    with reading(student, None):
        gap = student(tokens, use_cache=False).logits - teacher(tokens, use_cache=False).logits
    return float(gap.abs().max())


def source_name(given: str, path: Path | None) -> str:
    """How a model folder remembers what it was made from: a local path in full, anything else as given."""
    return str(path.resolve()) if path is not None and Path(given).exists() else given


def keep_origin(teacher: Path | None, out: Path) -> None:
    """Keep where the weights came from beside the model, so that the notes on its figures are not lost."""
    if teacher is not None and packaged.read_source(teacher):
        shutil.copy(teacher / "source.json", out / "source.json")


def convert(
    source: str, out: Path, plan: ConversionPlan, *, dtype: torch.dtype | None = None, device: str = "cpu"
) -> ConversionReport:
    """Convert MODEL `source` into the mindset folder `out`."""
    from mindset.graft import folder
    from mindset.graft.sources import load_teacher

    loaded = load_teacher(source, dtype=dtype, device=device)
    student = build_student(loaded.model, plan)
    lossless = plan.bank == "mirror" and plan.slots == 0 and plan.propose == "all"
    difference = lossless_difference(loaded.model, student) if lossless else None
    cast(MindsetModel, student).source = source_name(source, loaded.path)
    folder.save(student, Path(out), loaded.tokenizer)
    keep_origin(loaded.path, Path(out))
    held = banks(student)
    first = next(iter(held.values()))
    return ConversionReport(
        source=source,
        out=str(out),
        layers=tuple(held),
        slots_per_layer=first.n_slots * first.n_heads,
        k=plan.k,
        lossless_difference=difference,
        teacher_dense_parameters=sum(p.numel() for p in loaded.model.parameters()),
        dense_parameters=dense_parameters(student),
        memory_parameters=memory_parameters(student),
        bytes_on_disk=sum(f.stat().st_size for f in Path(out).rglob("*") if f.is_file()),
        notes=loaded.notes,
    )
