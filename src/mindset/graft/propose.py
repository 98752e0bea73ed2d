"""Proposers: which slots are worth an exact look, from the keys alone.

* `all`: every slot.
* `score`: `abs(act(key . x)) * c`, `c = rms(modulator . x) * norm(value)`; the rms is measured (`calibration`) and kept
  up to date while training. For an ungated slot this already is its influence. The negative half of SiLU counts.
* `proxy:R`: keys and modulators through a rank-R projection, the reduced-rank regression of both on the block's own
  inputs; then not even the full keys are read for slots that are not proposed.

A proposer knows nothing of k: it ranks, the bank takes the first C and rescores them exactly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindset.errors import UsageError
from mindset.graft.shard import Shard

__all__ = ["ProposerSpec", "Proxy", "parse_propose"]


@dataclass(frozen=True)
class ProposerSpec:
    """How candidates are named."""

    kind: Literal["all", "score", "proxy"] = "all"
    """`all`: every slot is a candidate."""
    candidates: int = 0
    """How many slots are rescored exactly; 0 with `all`."""
    rank: int = 0
    """Rank of the projection; 0 unless `proxy`."""

    def __post_init__(self) -> None:
        if (self.kind == "all") != (self.candidates == 0):
            raise UsageError(
                f"proposing by '{self.kind}' with {self.candidates} candidates: give --candidates C with score "
                "and proxy:R, and none with all"
            )


def parse_propose(text: str, candidates: int | None) -> ProposerSpec:
    """`all`, `score` or `proxy:R` with a number of candidates."""
    count = candidates or 0
    if text == "all":
        return ProposerSpec("all", count)
    if text == "score":
        return ProposerSpec("score", count)
    match = re.fullmatch(r"proxy:([1-9]\d*)", text)
    if match is None:
        raise UsageError(f"'{text}' is no proposer; allowed: all, score, proxy:R (R a whole number from 1)")
    return ProposerSpec("proxy", count, int(match[1]))


class Proxy(nn.Module):
    """A low-rank stand-in for a shard's keys and modulators: `key . x ~ key_low . (project x)`."""

    project: Tensor
    key_low: Tensor
    modulator_low: Tensor

    def __init__(self, n_slots: int, d_model: int, rank: int, *, gated: bool) -> None:
        super().__init__()
        if rank > d_model:
            raise UsageError(f"proxy:{rank} has a higher rank than the model is wide ({d_model})")
        self.register_buffer("project", torch.zeros(rank, d_model))
        self.register_buffer("key_low", torch.zeros(n_slots, rank))
        self.register_buffer("modulator_low", torch.zeros(n_slots if gated else 0, rank))

    def rows(self) -> dict[str, Tensor]:
        """The live dictionary of the projection and what it makes of keys and modulators, by name."""
        return cast("dict[str, Tensor]", self._buffers)

    @torch.no_grad()
    def fit(self, shard: Shard, moment: Float[Tensor, "d_model d_model"]) -> None:
        """The best rank-R projection for inputs of second moment `moment` (reduced-rank regression).

        Rows are weighted by the length of their value, since an error in a long value's slot costs more.
        """
        rows = [shard.key] if shard.modulator is None else [shard.key, shard.modulator]
        scale = shard.value_norm().double().repeat(len(rows))[:, None]
        stacked = torch.cat([row.detach().double() for row in rows]) * scale
        values, vectors = torch.linalg.eigh(moment.double())
        root = vectors * values.clamp_min(values.max() * 1e-10).sqrt()
        # All d_model right singular vectors, however few the slots; the triangle has the same ones and is small.
        _, _, right = torch.linalg.svd(torch.linalg.qr(stacked @ root, mode="r").R)
        basis = right[: self.project.shape[0]]  # rank x d_model, in whitened coordinates
        inverse = (vectors / values.clamp_min(values.max() * 1e-10).sqrt()) @ basis.T
        self.project.copy_(inverse.T.to(self.project))
        lift = (root @ basis.T).to(self.project)
        self.key_low.copy_(shard.key.detach() @ lift)
        if shard.modulator is not None:
            self.modulator_low.copy_(shard.modulator.detach() @ lift)

    def influence(self, shard: Shard, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens n_slots"]:
        """The estimated influence of every slot."""
        low = F.linear(x, self.project)
        weights = cast(Tensor, shard.activation(F.linear(low, self.key_low, shard.key_bias)))
        if shard.modulator is not None:
            weights = weights * F.linear(low, self.modulator_low, shard.modulator_bias)
        return weights.abs() * shard.value_norm()
