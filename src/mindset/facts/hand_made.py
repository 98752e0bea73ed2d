"""A slot made by hand: where a text ends like this one, say that. `mindset memory insert`.

Its key is a ball around what the layer's block sees at the prompt's last token; its value goes uphill from nothing
until the word has the wished probability there. Trained on nothing, guarded by nothing:
`learn` is for facts that are to hold in other words. Invariant: where anything fails the memory is as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mindset.errors import UsageError
from mindset.facts.background import RadiusKey, measure_backgrounds
from mindset.facts.lessons import target_tokens
from mindset.facts.subject_keys import subject_keys
from mindset.graft.bank import Bank
from mindset.graft.model import banks
from mindset.graft.mounting import mount
from mindset.graft.sources import load_teacher
from mindset.store.edit import NewShard
from mindset.store.memory import Memory
from mindset.store.overlays import check_overlay_name
from mindset.store.shard_info import RADIUS, ShardInfo
from mindset.store.slots import Citation, NewSlot
from mindset.store.store import Incoming, IncomingSlots

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Inserted", "Wish", "insert_slot", "insert_slot_into"]

_STEPS = 100
_STEP = 0.25
"""How far the value goes uphill at once, in lengths of what the block itself adds there."""


@dataclass(frozen=True)
class Wish:
    """What a slot is to do."""

    prompt: str
    """Where a text ends like this,"""
    promotes: str
    """the first token of this, behind a space,"""
    probability: float = 0.9
    """is to be this likely."""
    label: str = ""
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no slot can do."""
        if not self.prompt.strip() or not self.promotes.strip():
            raise UsageError("a slot needs a prompt to answer at, and a word to promote there")
        if not 0 < self.probability < 1:
            raise UsageError(f"a probability of {self.probability}: give one between 0 and 1")


@dataclass(frozen=True)
class Inserted:
    """A slot that was made."""

    slot: int
    overlay: str
    layer: int
    token: str
    """What it promotes."""
    before: float
    """The token's probability behind the prompt."""
    after: float


def insert_slot(
    folder: Path, wish: Wish, overlay: str = "hand", *, layer: int | None = None, device: str = "cpu"
) -> Inserted:
    """Make a slot in the memory of the model in `folder`; the layer is a middle one if none is given."""
    loaded = load_teacher(str(folder), device=device)
    if not banks(loaded.model):
        raise UsageError(f"{loaded.name} has no memory; `mindset convert {folder} --out DIR` gives it one")
    with Memory(Path(folder)) as memory:
        return insert_slot_into(memory, loaded.model, loaded.tokenizer, wish, overlay, layer=layer)


def insert_slot_into(
    memory: Memory,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    wish: Wish,
    overlay: str = "hand",
    *,
    layer: int | None = None,
) -> Inserted:
    """As `insert_slot`, with the folder's memory open and its model loaded, which has the slot afterwards."""
    check_overlay_name(overlay)
    bank = _bank(model, layer)
    shard = _shard(memory, overlay, bank)
    ids = torch.tensor([tokenizer(wish.prompt, add_special_tokens=False)["input_ids"]], device=model.device)
    token = target_tokens(tokenizer, wish.promotes)[0]
    x, value, before = _wished(model, bank, ids, token, wish)
    keys = subject_keys(x[None], measure_backgrounds(model, tokenizer, (bank.layer,))[0])
    if not keys:
        raise UsageError(
            f"what layer {bank.layer} sees at the end of {wish.prompt!r} cannot be told from ordinary text; give a "
            "longer prompt, or another layer"
        )
    slots = IncomingSlots(shard, [_record(wish)], _arrays(keys[0], value))
    source = ("command line", f"{wish.prompt} => {wish.promotes}")
    (slot,) = memory.put_in(Incoming([source], [slots]), f"a slot that promotes {wish.promotes!r}").tolist()
    mount(model, memory.store, overlay)
    after = float(_last(model, ids).detach().softmax(-1)[token])
    return Inserted(int(slot), overlay, bank.layer, str(tokenizer.decode([token])), before, after)


def _bank(model: PreTrainedModel, layer: int | None) -> Bank:
    there = banks(model)
    if layer is None:
        layer = sorted(there)[len(there) // 2]
    if layer not in there:
        raise UsageError(
            f"layer {layer} has no memory; those that have: {', '.join(map(str, sorted(there)))}"
        )
    return there[layer]


def _shard(memory: Memory, overlay: str, bank: Bank) -> ShardInfo | NewShard:
    fields = {
        name: {"dtype": "float32", "d": d}
        for name, d in (("key", bank.d_model), ("key_bias", 1), ("value", bank.d_model))
    }
    for info in memory.store.shards():
        if (info.layer, info.name) == (bank.layer, overlay):
            if info.fields != fields or info.rule != RADIUS:
                raise UsageError(
                    f"layer {bank.layer} of overlay {overlay!r} has slots of another kind; give another overlay"
                )
            return info
    return NewShard(bank.layer, overlay, RADIUS, 1, RADIUS, gated=False, fields=fields)


def _wished(
    model: PreTrainedModel, bank: Bank, ids: Int[Tensor, "one pos"], token: int, wish: Wish
) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"], float]:
    """What the block sees at the end, what has to be added there, and the token's probability without it."""
    seen: dict[str, Tensor] = {}
    value = torch.zeros(bank.d_model, device=model.device, dtype=next(bank.parameters()).dtype)
    before = 0.0
    for step in range(_STEPS):
        probability, direction = _uphill(model, bank, ids, token, value, seen)
        before = probability if step == 0 else before
        if probability >= wish.probability:
            break
        value = value + _STEP * seen["output"].norm() * direction / direction.norm().clamp_min(1e-12)
    else:
        raise UsageError(
            f"no slot of layer {bank.layer} makes {wish.promotes!r} as likely as {wish.probability} there, "
            f"{probability:.3g} at best; ask for less, or give another layer"
        )
    if not step:
        raise UsageError(
            f"{wish.promotes!r} has a probability of {before:.3g} there already; nothing is to be done"
        )
    return seen["x"].float().cpu(), value.float().cpu(), before


def _uphill(
    model: PreTrainedModel,
    bank: Bank,
    ids: Int[Tensor, "one pos"],
    token: int,
    value: Float[Tensor, " d_model"],
    seen: dict[str, Tensor],
) -> tuple[float, Float[Tensor, " d_model"]]:
    """The token's probability with a value added at the last place, and where it grows fastest from there."""
    added = value.detach().clone().requires_grad_()

    def add(_: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen["x"], seen["output"] = args[0][0, -1].detach(), output[0, -1].detach()
        return torch.cat([output[:, :-1], output[:, -1:] + added], dim=1)

    handle = bank.register_forward_hook(add)
    try:
        with torch.enable_grad():
            likelihood = _last(model, ids).log_softmax(-1)[token]
            (direction,) = torch.autograd.grad(likelihood, added)
    finally:
        handle.remove()
    return float(likelihood.detach().exp()), direction


def _last(model: PreTrainedModel, ids: Int[Tensor, "one pos"]) -> Float[Tensor, " vocab"]:
    logits: Tensor = model(ids, use_cache=False).logits[0, -1].float()
    return logits


def _record(wish: Wish) -> NewSlot:
    cites = Citation(0, 0, len(f"{wish.prompt} => {wish.promotes}"))
    return NewSlot(cites=cites, label=wish.label or wish.promotes.strip(), tags=wish.tags)


def _arrays(key: RadiusKey, value: Float[Tensor, " d_model"]) -> dict[str, np.ndarray]:
    return {
        "key": key.key[None].float().numpy(),
        "key_bias": np.array([[key.bias]], np.float32),
        "value": value[None].numpy(),
    }
