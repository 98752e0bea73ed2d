"""Banks: what stands in a layer where its feed-forward block stood.

`Bank` is the place: it flattens tokens, adds the skip, can be muted and recorded. `MirrorBank` holds the block's own
neurons as slots, and new ones beside them in a second shard; at k = all without a skip it *is* the block, to rounding.

Reading: a proposer names candidates from the keys, their exact influence `abs(weight) * norm(value)` picks the k, the
values of the k are summed. The choice carries no gradient; weights and values of the chosen do. For a few tokens the
rows are gathered, for many masked matrix products are faster: two ways to the same sums, tested against each other.

A bank does not know models, folders or training; reading never changes it, except that `modulator_rms` follows the
inputs while `training` is on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mindset.errors import BankSizeError, UsageError
from mindset.graft.added import AddedShard
from mindset.graft.one_token import OneTokenReader, Rows
from mindset.graft.propose import ProposerSpec, Proxy
from mindset.graft.radius import Answer, Listener, RadiusShard
from mindset.graft.read_log import ReadLog
from mindset.graft.recording import Read, Recorder
from mindset.graft.shard import Shard
from mindset.graft.trail import Trail

__all__ = ["Bank", "MirrorBank", "top_mask"]

GATHER_LIMIT = 2
"""Most tokens for which gathering rows beats masked products."""

MOST_NUMBERS = 1 << 26
"""Weights of slots that reading makes at once where nothing is trained: 256 MB in float32."""
_RMS_DECAY = 0.99
"""How slowly `modulator_rms` follows the training batches."""


def top_mask(influence: Float[Tensor, "tokens n_slots"], k: int) -> Bool[Tensor, "tokens n_slots"]:
    """True for the k highest of every row."""
    best = influence.topk(k, dim=-1, sorted=False).indices
    return torch.zeros_like(influence, dtype=torch.bool).scatter_(-1, best, True)


class Bank(nn.Module):
    """The base of every bank.

    `k` slots are read for a token and head (None: all of them).
    """

    kind: str

    def __init__(self, layer: int, d_model: int, k: int | None, skip: nn.Module | None) -> None:
        super().__init__()
        self.layer = layer
        self.d_model = d_model
        self.skip = skip
        self.recorder: Recorder | None = None
        self.muted = False
        self.counter: Tensor | None = None
        self.reads: ReadLog | None = None
        self.call: Literal["plain", "residual"] = "plain"
        self.k = k
        self._overlays = nn.ModuleDict()
        self._added = nn.ModuleDict()
        self.listener: Listener | None = None
        self.trail: Trail | None = None

    @property
    def overlays(self) -> dict[str, RadiusShard]:
        """Radius slots by overlay; of those that answer a token the one mounted last does."""
        return {key[1:]: cast(RadiusShard, shard) for key, shard in self._overlays.items()}

    @property
    def added(self) -> dict[str, AddedShard]:
        """Slots of overlays that are read at every token, by overlay."""
        return {key[1:]: cast(AddedShard, shard) for key, shard in self._added.items()}

    def mount(self, overlay: str, shard: RadiusShard | AddedShard) -> None:
        """Let an overlay's slots be read beside the bank; radius slots above those that are there."""
        self.unmount(overlay)
        place = self._overlays if isinstance(shard, RadiusShard) else self._added
        place[f"/{overlay}"] = shard  # no name of a module's own attributes begins like this

    def unmount(self, overlay: str) -> None:
        """Take an overlay's slots off, if it has any here."""
        for place in (self._overlays, self._added):
            if f"/{overlay}" in place:
                del place[f"/{overlay}"]

    @property
    def n_slots(self) -> int:
        raise NotImplementedError

    @property
    def n_heads(self) -> int:
        return 1

    def set_k(self, k: int | None) -> None:
        """Read k slots from now on; None reads all."""
        if k is not None and not 1 <= k <= self.n_slots:
            raise BankSizeError(f"k = {k}, but the bank of layer {self.layer} holds {self.n_slots} slots")
        self.k = k

    def effective_k(self) -> int:
        """Return k as a number."""
        return self.n_slots if self.k is None else min(self.k, self.n_slots)

    def forward(
        self, x: Float[Tensor, "... d_model"], residual: Float[Tensor, "... d_model"] | None = None
    ) -> Float[Tensor, "... d_model"]:
        flat = x.reshape(-1, self.d_model)
        out = self.output_bias(flat) if self.muted else self.read(flat)
        if self.skip is not None:
            out = out + self.skip(flat)
        if not self.muted:
            out = self._with_overlays(flat, out)
        out = out.view_as(x)
        return out if residual is None else out + residual

    def _with_overlays(
        self, x: Float[Tensor, "tokens d_model"], out: Float[Tensor, "tokens d_model"]
    ) -> Float[Tensor, "tokens d_model"]:
        """`out` and what mounted overlays say; `out` itself where there are none."""
        for shard in self._added.values():
            out = out + shard(x)
        return self._answered(x, out) if self._overlays else out

    def _answered(
        self, x: Float[Tensor, "tokens d_model"], out: Float[Tensor, "tokens d_model"]
    ) -> Float[Tensor, "tokens d_model"]:
        """`out` and, where a radius slot fires, its value; where none does, `out` itself."""
        open_tokens = torch.ones(len(x), dtype=torch.bool, device=x.device)
        for name, overlay in reversed(self.overlays.items()):
            tokens, slots, margins = overlay.nearest(x, self.trail)
            if not len(tokens):
                continue
            still = open_tokens[tokens]
            tokens, slots, margins = tokens[still], slots[still], margins[still]
            open_tokens[tokens] = False
            if overlay.value is not None:
                out = out.index_add(0, tokens, overlay.value[slots].to(out.dtype))
            if overlay.mark is not None and self.trail is not None:
                self.trail.leave(tokens, overlay.mark[slots])
            if self.listener is not None and len(tokens):
                self.listener(Answer(self.layer, name, tokens, slots, margins))
        return out

    def output_bias(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens d_model"]:
        """What a bank without slots would add: its output bias, or zero."""
        bias = getattr(self, "bias", None)
        return torch.zeros_like(x) if bias is None else cast(Tensor, bias.expand_as(x))

    def read(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens d_model"]:
        raise NotImplementedError

    def slot_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that are memory, not dense network: the rows of the shards."""
        for name, parameter in self.named_parameters():
            if name.startswith("shards."):
                yield name, parameter

    def describe(self) -> dict[str, Any]:
        """What `parts` in config.json must say to build the bank again, empty."""
        raise NotImplementedError

    @torch.no_grad()
    def _count(self, read: Float[Tensor, "tokens slots"]) -> None:
        """Add to `counter [n_heads * n_slots]`, where one is set, how many tokens read each slot; tell `reads`."""
        if self.counter is not None:
            self.counter += (read != 0).sum(0)
        if self.reads is not None:
            self.reads.many(read, all_read=self.k is None)

    def _tell(self, x: Tensor, weights: Tensor, output: Tensor) -> None:
        if self.recorder is not None:
            skip = 0.0 if self.skip is None else self.skip(x)
            self.recorder(Read(self.layer, x, weights, output + skip))


class MirrorBank(Bank):
    """A feed-forward block's neurons as slots (shard `base`), and new slots beside them (shard `new`)."""

    kind = "mirror"
    modulator_rms: Tensor
    named_by: Callable[[Tensor, int], Tensor] | None
    """Who names the candidates of a few tokens in the proposer's place: see `indexed`."""
    reader: Callable[[MirrorBank, Tensor], Tensor] | None
    """Who reads in the bank's place, where its rows must not all come into RAM: see `bounded`."""

    def __init__(
        self,
        layer: int,
        shards: dict[str, Shard],
        bias: Tensor | None,
        *,
        k: int | None = None,
        propose: ProposerSpec | None = None,
        skip: nn.Module | None = None,
    ) -> None:
        first = next(iter(shards.values()))
        super().__init__(layer, int(first.key.shape[1]), None, skip)
        self.shards = nn.ModuleDict(shards)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.propose = propose or ProposerSpec()
        self.gather_limit = GATHER_LIMIT
        self.register_buffer("modulator_rms", torch.ones(self.n_slots, dtype=first.key.dtype))
        if self.propose.candidates > self.n_slots:
            raise BankSizeError(
                f"{self.propose.candidates} candidates, but the bank of layer {layer} holds {self.n_slots} slots"
            )
        self.proxies = nn.ModuleDict(
            {
                name: Proxy(shard.n_slots, self.d_model, self.propose.rank, gated=shard.gated)
                for name, shard in shards.items()
                if self.propose.kind == "proxy"
            }
        )
        self.named_by = self.reader = None
        self._one_token = OneTokenReader()
        self.set_k(k)

    def _apply(self, *args: Any, **kwargs: Any) -> MirrorBank:
        """Moves and casts: what was prepared for the old numbers goes."""
        self._one_token = OneTokenReader()
        return cast(MirrorBank, super()._apply(*args, **kwargs))  # type: ignore[no-untyped-call]

    @property
    def n_slots(self) -> int:
        return sum(shard.n_slots for shard in self._shards())

    def _shards(self) -> list[Shard]:
        return cast("list[Shard]", list(self.shards.values()))

    def set_k(self, k: int | None) -> None:
        super().set_k(k)
        candidates = self.propose.candidates
        if k is not None and candidates and k > candidates:
            raise UsageError(f"k = {k} of only {candidates} candidates: propose at least k")

    def forward(
        self, x: Float[Tensor, "... d_model"], residual: Float[Tensor, "... d_model"] | None = None
    ) -> Float[Tensor, "... d_model"]:
        if x.numel() != self.d_model or (out := self._read_compiled(x)) is None:
            return super().forward(x, residual)
        if self.bias is not None:
            out = out + self.bias
        if self.skip is not None:
            out = out + self.skip(x.reshape(1, -1)).view_as(x)
        if self._overlays or self._added:
            out = self._with_overlays(x.reshape(1, -1), out.reshape(1, -1)).view_as(x)
        return out if residual is None else out + residual

    def _read_compiled(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"] | None:
        """One token by the loops of `one_token`, where they apply; what `read_gathered` would return."""
        k, spec = self.k, self.propose
        if k is None or self.muted or self.training or self.recorder is not None or not self.gather_limit:
            return None
        if self.named_by is not None or self.reader is not None:
            return None
        return self._one_token.read(x, spec, k, self._rows, self.reads)

    def read(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens d_model"]:
        watched = self.recorder is not None or self.training
        if self.reader is not None and not watched:
            out = self.reader(self, x)
        elif watched or torch.is_grad_enabled() or x.shape[0] * self.n_slots <= MOST_NUMBERS:
            out = self._read_at_once(x, watched)
        else:  # a long prompt before a large memory
            pieces = x.split(max(1, MOST_NUMBERS // self.n_slots))
            out = torch.cat([self._read_at_once(piece, watched) for piece in pieces])
        return out if self.bias is None else out + self.bias

    def _read_at_once(
        self, x: Float[Tensor, "tokens d_model"], watched: bool
    ) -> Float[Tensor, "tokens d_model"]:
        few = x.shape[0] <= self.gather_limit and not watched
        return self._read_few(x) if few and self.k is not None else self.read_masked(x)

    # ---- many tokens: masked products -------------------------------------------------------------------

    def read_masked(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens d_model"]:
        """All weights, those not chosen set to zero, times all values."""
        gates = [shard.gates(x) for shard in self._shards()]
        modulations = [shard.modulations(x) for shard in self._shards()]
        if self.training:
            self._follow(modulations)
        weights = _join([g if m is None else g * m for g, m in zip(gates, modulations, strict=True)])
        mask = self._choose(x, _join(gates).detach(), weights.detach())
        read = weights if mask is None else weights * mask
        self._count(read)
        pieces = read.split([shard.n_slots for shard in self._shards()], dim=-1)
        out = sum(
            shard.combine(piece, shard.value) for piece, shard in zip(pieces, self._shards(), strict=True)
        )
        out = cast(Tensor, out)
        if self.recorder is not None:
            self._tell(x, read[:, None, :], out if self.bias is None else out + self.bias)
        return out

    def _choose(self, x: Tensor, gates: Tensor, weights: Tensor) -> Tensor | None:
        if self.k is None and self.propose.kind == "all":
            return None
        influence = weights.abs() * self._norms()
        if self.propose.kind != "all":
            candidates = top_mask(self._proposal(x, gates), self.propose.candidates)
            influence = influence.masked_fill(~candidates, -1.0)
            if self.k is None:
                return candidates
        return top_mask(influence, self.effective_k())

    # ---- a few tokens: gathered rows --------------------------------------------------------------------

    def _read_few(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens d_model"]:
        """Where there is a proposer, torch gathers for one token only: for two it takes longer than masked products."""
        if len(x) == 1 or self.propose.kind == "all" or self.named_by is not None:
            return self.read_gathered(x)
        each = [self._read_compiled(row) for row in x.contiguous().split(1)]
        read = [row for row in each if row is not None]
        return torch.cat(read) if len(read) == len(x) else self.read_masked(x)

    def read_gathered(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens d_model"]:
        """Fetch modulators and values of candidates only."""
        slots, weights = self._chosen(x)
        if self.reads is not None:
            self.reads.few(slots, weights)
        return self._sum_values(slots, weights)

    def _chosen(self, x: Float[Tensor, "tokens d_model"]) -> tuple[Tensor, Tensor]:
        """The slots of the k `[tokens, k]` and their weights."""
        k, norms = self.effective_k(), self._norms()
        if self.propose.kind == "all":
            weights = _join([shard.weights(x) for shard in self._shards()])
            slots = (weights.detach().abs() * norms).topk(k, dim=-1, sorted=False).indices
            return slots, weights.gather(-1, slots)
        candidates, weights = self._rescored(x)
        best = (weights.detach().abs() * norms[candidates]).topk(k, dim=-1, sorted=False).indices
        return candidates.gather(-1, best), weights.gather(-1, best)

    def _rows(self) -> Rows:
        shard, norms = self._shards()[0], self._norms()
        several = cast(nn.Module, self.shards)._modules  # noqa: SLF001  the live dictionary
        low = [cast(Proxy, proxy).rows() for proxy in self.proxies.values()]
        holders = [several, *shard.rows(), *low]
        known = shard.activation if len(several) == 1 else None
        if self.propose.kind == "score":
            scale = self.modulator_rms * norms
            return Rows([*holders, self._buffers], [shard.value, self.modulator_rms], norms, scale, known)
        fitted = [tensor for proxy in low for tensor in proxy.values()]
        return Rows(holders, [shard.value, *fitted], norms, norms, known)

    def _rescored(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Candidates `[tokens, C]` and their exact weights."""
        if self.named_by is not None:
            named = self.named_by(x, self.propose.candidates)
            candidates = named.clamp_min(0)
            return candidates, self._shards()[0].weights_at(x, candidates) * (named >= 0)
        by_score = self.propose.kind == "score"
        gates = _join([shard.gates(x) for shard in self._shards()]) if by_score else None
        proposal = self._proposal(x, None if gates is None else gates.detach())
        candidates = proposal.topk(self.propose.candidates, dim=-1, sorted=False).indices
        known = None if gates is None else gates.gather(-1, candidates)
        weights = torch.zeros(candidates.shape, dtype=x.dtype, device=x.device)
        for shard, local, inside in self._located(candidates):
            here = shard.weights_at(x, local, known)
            weights = here if inside is None else torch.where(inside, here, weights)
        return candidates, weights

    def _sum_values(
        self, slots: Int[Tensor, "tokens k"], weights: Float[Tensor, "tokens k"]
    ) -> Float[Tensor, "tokens d_model"]:
        out: Tensor | None = None
        for shard, local, inside in self._located(slots):
            here = weights if inside is None else weights * inside
            part = shard.sum_values(local, here)
            out = part if out is None else out + part
        return cast(Tensor, out)

    def _located(self, slots: Tensor) -> Iterator[tuple[Shard, Tensor, Tensor | None]]:
        """Each shard with the slots' rows in it and, where there are several shards, which of them are its own."""
        start, shards = 0, self._shards()
        for shard in shards:
            local = slots - start
            inside = None if len(shards) == 1 else (local >= 0) & (local < shard.n_slots)
            yield shard, local if inside is None else local.clamp(0, shard.n_slots - 1), inside
            start += shard.n_slots

    # ---- both -------------------------------------------------------------------------------------------

    def _norms(self) -> Float[Tensor, " n_slots"]:
        return _join([shard.value_norm() for shard in self._shards()])

    @torch.no_grad()
    def _proposal(
        self, x: Float[Tensor, "tokens d_model"], gates: Float[Tensor, "tokens n_slots"] | None
    ) -> Float[Tensor, "tokens n_slots"]:
        """The proposer's rank of every slot; higher is better."""
        if self.propose.kind == "score":
            return cast(Tensor, gates).abs() * (self.modulator_rms * self._norms())
        pairs = zip(self.proxies.values(), self._shards(), strict=True)
        return _join([cast(Proxy, proxy).influence(shard, x) for proxy, shard in pairs])

    @torch.no_grad()
    def _follow(self, modulations: list[Tensor | None]) -> None:
        start = 0
        for shard, modulation in zip(self._shards(), modulations, strict=True):
            if modulation is not None:
                now = modulation.detach().square().mean(dim=0).sqrt()
                kept = self.modulator_rms[start : start + shard.n_slots]
                kept.lerp_(now.to(kept), 1 - _RMS_DECAY)
            start += shard.n_slots

    @torch.no_grad()
    def calibrate(self, moment: Float[Tensor, "d_model d_model"], mean: Float[Tensor, " d_model"]) -> None:
        """Measure `modulator_rms` and fit the proxies from the second moment and mean of the bank's inputs."""
        start = 0
        for name, module in self.shards.items():
            shard = cast(Shard, module)
            if shard.modulator is not None:
                rows, bias = shard.modulator.double(), shard.modulator_bias
                square = ((rows @ moment.double()) * rows).sum(-1)
                if bias is not None:
                    square = square + 2 * bias.double() * (rows @ mean.double()) + bias.double().square()
                rms = square.clamp_min(0).sqrt().to(self.modulator_rms)
                self.modulator_rms[start : start + shard.n_slots] = rms
            if name in self.proxies:
                cast(Proxy, self.proxies[name]).fit(shard, moment)
            start += shard.n_slots

    def describe(self) -> dict[str, Any]:
        shards = [
            {
                "name": name,
                "n_slots": shard.n_slots,
                "rule": shard.rule,
                "key_bias": shard.key_bias is not None,
                "gated": shard.gated,
                "modulator_bias": shard.modulator_bias is not None,
            }
            for name, shard in zip(self.shards, self._shards(), strict=True)
        ]
        return {"shards": shards, "bias": self.bias is not None, "gather_limit": self.gather_limit}


def _join(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=-1)
