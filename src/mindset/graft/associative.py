"""An associative bank: a memory that is written while it learns.

Every token makes a query, a key and a value. The key looks up its k nearest stored keys; where nothing is as near as
`novelty`, the pair (key, value) is inserted into a free row; the query then attends over the keys that came back.
Inserting happens in training and inside `memory.learning()`, in one batch a step, and a row written in a step is seen
in that step by its own token only, or earlier tokens would read later ones. Which of the novel tokens are written is a
choice over the whole batch; so every novel token reads its own pair in that step, written or not.

The lookup has no gradient of its own. `straight-through`: dQuery = dKeyReturned, the lookup key takes the sum of the
returned keys' gradients; dKeyInserted and dValueInserted are ordinary gradients, since the writer reads its own pair.
`scores`: the similarity is added to the attention's scores. `frozen`: stored keys and the lookup do not train.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mindset.graft.bank import Bank
from mindset.graft.featural import HeadRows

__all__ = ["AssociativeBank", "StraightThrough"]


class StraightThrough(torch.autograd.Function):
    """Returned keys; backward hands their gradients to the rows, and their sum to the lookup that found them."""

    @staticmethod
    def forward(ctx: Any, lookup: Tensor, keys: Tensor, slots: Tensor) -> Tensor:  # noqa: ARG004  for its gradient
        ctx.save_for_backward(slots)
        ctx.n_slots = keys.shape[0]
        return keys[slots]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (slots,) = ctx.saved_tensors
        (grad,) = grads
        flat = grad.reshape(-1, grad.shape[-1])
        to_keys = flat.new_zeros(ctx.n_slots, grad.shape[-1]).index_add_(0, slots.reshape(-1), flat)
        return grad.sum(dim=1), to_keys, None


class AssociativeBank(Bank):
    """Stored (key, value) pairs, found by a key and attended by a query."""

    kind = "associative"
    size: Tensor

    def __init__(
        self,
        layer: int,
        d_model: int,
        *,
        n_slots: int,
        n_heads: int = 1,
        d_key: int | None = None,
        k: int | None = None,
        novelty: float = 0.8,
        inserts_per_step: int = 64,
        gradient: str = "straight-through",
        skip: nn.Module | None = None,
    ) -> None:
        super().__init__(layer, d_model, None, skip)
        self.d_key = d_key or max(8, d_model // n_heads)
        width = n_heads * self.d_key
        self.query = nn.Linear(d_model, width, bias=False)
        self.lookup = nn.Linear(d_model, width, bias=False)
        self.content = nn.Linear(d_model, width, bias=False)
        self.shards = nn.ModuleDict({"base": HeadRows(n_heads, n_slots, self.d_key, self.d_key, "softmax")})
        self.output = nn.Linear(width, d_model)
        self.register_buffer("size", torch.zeros(n_heads, dtype=torch.long))
        self.novelty, self.inserts_per_step, self.gradient = novelty, inserts_per_step, gradient
        self.learning = False
        self.set_k(k)

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """An empty memory and random projections."""
        self.rows.key.zero_()
        self.rows.value.zero_()
        self.rows.key_bias.zero_()
        self.size.zero_()
        for linear in (self.query, self.lookup, self.content, self.output):
            bound = linear.weight.shape[1] ** -0.5
            linear.weight.copy_(torch.randn(linear.weight.shape, generator=generator) * bound)
        self.output.bias.zero_()

    @property
    def rows(self) -> HeadRows:
        return cast(HeadRows, self.shards["base"])

    @property
    def n_slots(self) -> int:
        return self.rows.n_slots

    @property
    def n_heads(self) -> int:
        return int(self.rows.key.shape[0])

    def output_bias(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens d_model"]:
        return self.output.bias.expand_as(x)

    def read(self, x: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens d_model"]:
        q, key, content = (
            linear(x).view(-1, self.n_heads, self.d_key) for linear in (self.query, self.lookup, self.content)
        )
        key = F.normalize(key, dim=-1)
        heads = [self._read_head(h, q[:, h], key[:, h], content[:, h]) for h in range(self.n_heads)]
        out = cast(Tensor, self.output(torch.cat([mixed for mixed, _ in heads], dim=-1)))
        read = torch.stack([read for _, read in heads], dim=1)
        self._count(read.flatten(1))
        self._tell(x, read, out)
        return out

    def _read_head(self, head: int, q: Tensor, key: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        filled = int(self.size[head])
        similarity = key @ self.rows.key[head, :filled].T if filled else key.new_zeros(len(key), 0)
        novel, room = self._novel(head, similarity.detach())
        k = min(self.effective_k(), filled)
        slots = similarity.detach().topk(k, dim=-1).indices
        returned = self._returned(head, key, slots)
        scores = torch.einsum("td,tkd->tk", q, returned)
        if self.gradient == "scores" and k:
            scores = scores + similarity.gather(-1, slots)
        values = self.rows.value[head][slots]
        # With an empty memory every token reads its own pair, or there is nothing to attend to.
        own = novel if k else torch.ones_like(novel)
        if bool(own.any()):
            scores = torch.cat(
                [scores, self._own_score(q, key).masked_fill(~own, -torch.inf)[:, None]], dim=1
            )
            values = torch.cat([values, content[:, None]], dim=1)
        attention = scores.softmax(-1)
        mixed = torch.einsum("tk,tkd->td", attention, values)
        self._insert(head, self._writers(novel, room, similarity.detach(), key.detach()), key, content)
        read = q.new_zeros(len(q), self.n_slots)
        return mixed, read.scatter(-1, slots, attention[:, :k].detach().to(read)) if k else read

    def _returned(self, head: int, key: Tensor, slots: Tensor) -> Tensor:
        stored = self.rows.key[head]
        if self.gradient == "frozen":
            return stored.detach()[slots]
        if self.gradient == "scores":
            return stored[slots]
        return cast(Tensor, StraightThrough.apply(key, stored, slots))  # type: ignore[no-untyped-call]

    def _own_score(self, q: Tensor, key: Tensor) -> Tensor:
        return (q * (key.detach() if self.gradient == "frozen" else key)).sum(-1)

    def _novel(self, head: int, similarity: Tensor) -> tuple[Bool[Tensor, " tokens"], int]:
        """Tokens that nothing near is known of, where anything may be written, and how many may be."""
        room = min(self.n_slots - int(self.size[head]), self.inserts_per_step)
        if room == 0 or not (self.training or self.learning):
            return similarity.new_zeros(len(similarity), dtype=torch.bool), 0
        return (similarity < self.novelty).all(-1), room

    @torch.no_grad()
    def _writers(
        self, novel: Bool[Tensor, " tokens"], room: int, similarity: Tensor, key: Tensor
    ) -> Int[Tensor, " writers"]:
        """The most novel tokens first, each far from those before it, until the room is used."""
        nearest = similarity.amax(-1) if similarity.shape[1] else key.new_full((len(key),), -1.0)
        nearest = nearest.masked_fill(~novel, torch.inf)
        chosen: list[int] = []
        while len(chosen) < room:
            candidate = int(nearest.argmin())
            if nearest[candidate] >= self.novelty:
                break
            chosen.append(candidate)
            nearest = torch.maximum(nearest, key @ key[candidate])
            nearest[candidate] = torch.inf
        return torch.tensor(chosen, dtype=torch.long, device=key.device)

    @torch.no_grad()
    def _insert(
        self,
        head: int,
        writers: Int[Tensor, " writers"],
        key: Float[Tensor, "tokens d_key"],
        content: Float[Tensor, "tokens d_key"],
    ) -> None:
        """Write into free rows; no tensor changes its shape."""
        if not len(writers):
            return
        start = int(self.size[head])
        # Through .data: autograd still holds these parameters for this step's backward, which reads other rows only.
        self.rows.key.data[head, start : start + len(writers)] = key[writers]
        self.rows.value.data[head, start : start + len(writers)] = content[writers]
        self.size[head] += len(writers)

    def describe(self) -> dict[str, Any]:
        return {
            "n_slots": self.n_slots,
            "n_heads": self.n_heads,
            "d_key": self.d_key,
            "novelty": self.novelty,
            "inserts_per_step": self.inserts_per_step,
            "gradient": self.gradient,
        }
