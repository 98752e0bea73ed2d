"""Back to a plain Hugging Face folder, where a memory can be said as feed-forward blocks.

That is so for mirror banks read at k = all without a skip, where mirrored and new slots share the family's activation
and the block's form: rows are put back as columns, nothing is approximated. Anything else is refused with the reason.
"""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from mindset.errors import UnsupportedModelError, UsageError
from mindset.graft.bank import Bank, MirrorBank
from mindset.graft.families import Family, family_of, layers_of
from mindset.graft.model import banks
from mindset.graft.mounting import mounted
from mindset.graft.quiet import quiet
from mindset.graft.shard import Shard

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["densify", "export_dense"]


def export_dense(source: Path, out: Path) -> None:
    """Write the mindset folder `source` as a plain Hugging Face folder `out`."""
    from mindset.graft import folder, plain

    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is {'not empty' if out.is_dir() else 'a file'}; give a new folder for --out")
    model = densify(folder.load(source))
    tokenizer = plain.read_tokenizer(Path(source))
    scratch = out.with_name(f".{out.name}.writing-{os.getpid()}")
    try:
        with quiet(), folder.naming_a_full_disk(out):
            scratch.mkdir(parents=True)
            model.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
            scratch.replace(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def densify(model: PreTrainedModel) -> PreTrainedModel:
    """The base architecture's own model with the memory's rows in its feed-forward blocks."""
    held = banks(model)
    if names := mounted(model):
        raise UnsupportedModelError(
            f"overlays are mounted ({', '.join(names)}), and a dense model has no place for them; take them off first: "
            "mindset memory umount DIR NAME"
        )
    for bank in held.values():
        _refuse(bank)
    family = family_of(model.config)
    config = copy.deepcopy(model.config)
    base = type(model).__mro__[2]
    dense = cast(Any, base)(config).to(dtype=model.dtype)
    state = {name: t for name, t in model.state_dict().items() if not _in_bank(name, held, family)}
    missing, unexpected = dense.load_state_dict(state, strict=False)
    for layer, bank in held.items():
        _put_back(layers_of(dense, family)[layer], family, cast(MirrorBank, bank))
    left = [name for name in missing if not _in_block(name, held, family) and "rotary" not in name]
    if unexpected or (left and not _tied(dense, left)):
        raise UnsupportedModelError(
            f"cannot map {unexpected or left} back to a plain {config.model_type} model"
        )
    dense.generation_config = model.generation_config
    return cast("PreTrainedModel", dense.eval())


def _refuse(bank: Bank) -> None:
    why = None
    if not isinstance(bank, MirrorBank):
        why = f"{'an' if bank.kind[0] in 'aeiou' else 'a'} {bank.kind} bank is no feed-forward block"
    elif bank.k is not None:
        why = f"it reads k = {bank.k} slots, a feed-forward block all; convert or load it with k = all first"
    elif bank.propose.kind != "all":
        why = f"it reads {bank.propose.candidates} proposed slots, a feed-forward block all"
    elif bank.skip is not None:
        why = "it has a skip beside its slots"
    elif list(bank.shards) != ["base"]:
        why = "it has slots beside the block's own, and one block has one width in every layer"
    if why is not None:
        raise UnsupportedModelError(f"layer {bank.layer} cannot be exported as a dense model: {why}")


def _in_bank(name: str, held: dict[int, Bank], family: Family) -> bool:
    return any(name.startswith(f"{family.layers}.{layer}.{family.place}.") for layer in held)


def _in_block(name: str, held: dict[int, Bank], family: Family) -> bool:
    roots = {path.split(".")[0] for path in (family.key, family.value)}
    return any(name.startswith(f"{family.layers}.{layer}.{root}.") for layer in held for root in roots)


def _tied(model: Any, names: list[str]) -> bool:
    return bool(model.config.tie_word_embeddings) and all("lm_head" in n or "embed_out" in n for n in names)


@torch.no_grad()
def _put_back(layer: nn.Module, family: Family, bank: MirrorBank) -> None:
    shard = cast(Shard, bank.shards["base"])
    _fill(layer.get_submodule(family.key), shard.key, shard.key_bias)
    _fill(layer.get_submodule(family.value), shard.value.T, bank.bias)
    if family.modulator and shard.modulator is not None:
        _fill(layer.get_submodule(family.modulator), shard.modulator, shard.modulator_bias)


def _fill(linear: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    target = cast(Tensor, linear.weight)
    target.copy_(weight.T if type(linear).__name__ == "Conv1D" else weight)
    if bias is not None:
        cast(Tensor, linear.bias).copy_(bias)
