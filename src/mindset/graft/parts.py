"""`parts` of a model folder's config.json: how an empty bank is built from its description and put in its place.

One list, applied in order to a freshly built base model before its weights load. A part is
`{path, kind, version, layer, bank, k, propose, candidates, skip, ...}`; an unknown kind or version is refused by name.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from mindset.errors import FormatError, MindsetError
from mindset.graft.associative import AssociativeBank
from mindset.graft.bank import Bank, MirrorBank
from mindset.graft.families import Family, FeedForward, layers_of, read_ff
from mindset.graft.featural import FeaturalBank
from mindset.graft.propose import parse_propose
from mindset.graft.shard import Shard, activation_of
from mindset.graft.skip import build_skip

__all__ = ["PART_VERSION", "apply_part", "describe_part", "swap_in"]

PART_VERSION = 1


def swap_in(layer: nn.Module, family: Family, bank: Bank) -> None:
    """Put a bank where the layer's feed-forward block is; of an inline triple the other two become identities."""
    parent, _, name = family.place.rpartition(".")
    bank.call = family.call
    setattr(layer.get_submodule(parent), name, bank)
    if family.site is None:
        for path in (family.activation, family.value):
            parent, _, name = path.rpartition(".")
            setattr(layer.get_submodule(parent), name, nn.Identity())


def describe_part(bank: Bank, family: Family, skip: str) -> dict[str, Any]:
    """The part that `apply_part` builds this bank from, without its weights."""
    part: dict[str, Any] = {
        "path": f"{family.layers}.{bank.layer}.{family.place}",
        "kind": "bank",
        "version": PART_VERSION,
        "layer": bank.layer,
        "bank": bank.kind,
        "d_model": bank.d_model,
        "k": bank.k,
        "skip": skip,
    }
    if isinstance(bank, MirrorBank):
        spec = bank.propose
        part["propose"] = f"proxy:{spec.rank}" if spec.kind == "proxy" else spec.kind
        part["candidates"] = spec.candidates or None
    return part | bank.describe()


def apply_part(model: nn.Module, family: Family, part: dict[str, Any]) -> None:
    """Build an empty bank and put it in its layer."""
    kind, version = part.get("kind"), part.get("version")
    if kind != "bank":
        raise FormatError(f"this model folder has a part of kind '{kind}', which this release does not know")
    if version != PART_VERSION:
        raise FormatError(
            f"part '{part.get('path')}' has version {version}; this release reads {PART_VERSION}"
        )
    try:
        layer = layers_of(cast(Any, model), family)[part["layer"]]
        swap_in(layer, family, _empty_bank(part, layer, family))
    except MindsetError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, StopIteration) as error:
        raise FormatError(
            f"part '{part.get('path')}' of config.json is incomplete or damaged: {error!r}"
        ) from error


def _empty_bank(part: dict[str, Any], layer: nn.Module, family: Family) -> Bank:
    skip = build_skip(part["skip"], part["d_model"])
    if part["bank"] not in ("mirror", "featural", "associative"):
        raise FormatError(
            f"this model folder has a bank of kind '{part['bank']}', which this release does not know"
        )
    if part["bank"] == "mirror":
        return _empty_mirror(part, layer, family, skip)
    shape = {"n_slots": part["n_slots"], "n_heads": part["n_heads"], "d_key": part["d_key"], "k": part["k"]}
    if part["bank"] == "featural":
        return FeaturalBank(part["layer"], part["d_model"], **shape, weight=part["weight"], skip=skip)
    extra = {name: part[name] for name in ("novelty", "inserts_per_step", "gradient")}
    return AssociativeBank(part["layer"], part["d_model"], **shape, **extra, skip=skip)


def _empty_mirror(
    part: dict[str, Any], layer: nn.Module, family: Family, skip: nn.Module | None
) -> MirrorBank:
    family_activation = layer.get_submodule(family.activation)
    like = read_ff(layer, family).key
    shards = {}
    for shape in part["shards"]:
        rows = _empty_rows(shape, part["d_model"], like)
        own = shape["rule"] == "family"
        shards[shape["name"]] = Shard(
            rows, family_activation if own else activation_of(shape["rule"]), shape["rule"]
        )
    bank = MirrorBank(
        part["layer"],
        shards,
        like.new_zeros(part["d_model"]) if part["bias"] else None,
        k=part["k"],
        propose=parse_propose(part["propose"], part["candidates"]),
        skip=skip,
    )
    bank.gather_limit = part["gather_limit"]
    return bank


def _empty_rows(shape: dict[str, Any], d_model: int, like: Tensor) -> FeedForward:
    n_slots = shape["n_slots"]

    def rows(*size: int) -> Tensor:
        return torch.zeros(*size, dtype=like.dtype, device=like.device)

    return FeedForward(
        key=rows(n_slots, d_model),
        value=rows(n_slots, d_model),
        key_bias=rows(n_slots) if shape["key_bias"] else None,
        modulator=rows(n_slots, d_model) if shape["gated"] else None,
        modulator_bias=rows(n_slots) if shape["modulator_bias"] else None,
        bias=None,
    )
