"""One pass of a model over new tokens of a few texts, for the logits behind the last of each.

A text that is alone takes the very steps of a plain loop: no mask, no positions, the same products, so the same bits.
Knows no sampling. Invariant: hooks that are put on the model are taken off by `close`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from mindset.graft.decoding import cache_name, only_last
from mindset.graft.few_rows import FewRows
from mindset.graft.model import banks
from mindset.llm.engine.columns import Columns, Kept, can_share

__all__ = ["Passes"]


class Passes:
    """A model that reads and speaks for several texts."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Take the model into use; nobody else may run it until `close`."""
        self.model = model
        self.shares = can_share(model.config)
        """Whether texts may be read together; otherwise one at a time."""
        self._named, self._last = cache_name(model), only_last(model)
        self._knows_positions = "position_ids" in inspect.signature(model.forward).parameters
        head = model.get_output_embeddings()
        self._handle = None if head is None else head.register_forward_pre_hook(_contiguous)
        self._few_rows = FewRows(model)
        self._few_rows.active = False
        parameters = {id(p): p for p in model.parameters()}.values()
        self.bytes = sum(p.numel() * p.element_size() for p in parameters)
        """What a pass reads of the model, whoever takes part."""

    def close(self) -> None:
        """Leave the model as it was."""
        if self._handle is not None:
            self._handle.remove()
        self._few_rows.close()

    @property
    def follows_marks(self) -> bool:
        """Whether a fact that is mounted makes texts leave marks, which padding must not do."""
        return any(bank.trail is not None for bank in banks(self.model).values())

    def columns(self, lengths: Sequence[int]) -> Columns | Alone:
        """A cache for texts of these lengths."""
        return Columns(self.model.config, lengths) if self.shares else Alone()

    @torch.no_grad()
    def run(self, columns: Columns | Alone, ids: Sequence[Sequence[int]]) -> Float[Tensor, "rows vocab"]:
        """Read new tokens of every row; shorter rows are padded on the left, as `columns` was told they would be."""
        new = max(map(len, ids))
        padded = torch.tensor([[0] * (new - len(row)) + list(row) for row in ids])
        given: dict[str, Any] = {"input_ids": padded, **self._last}
        if (mask := columns.mask(new)) is not None:
            given["attention_mask"] = mask
            if self._knows_positions:
                given["position_ids"] = columns.positions(new)
        given = {
            name: value.to(self.model.device) if isinstance(value, Tensor) else value
            for name, value in given.items()
        }
        self._few_rows.active = columns.rows > 1  # one text alone is to have the bits of a plain loop
        try:
            output = self.model(use_cache=True, **{self._named: columns.cache}, **given)
        finally:
            self._few_rows.active = False
        columns.cache = output[self._named]
        columns.advance(new)
        return output.logits[:, -1].float().cpu()  # type: ignore[no-any-return]


class Alone:
    """The cache of one text of a model whose texts cannot share columns: whatever the model makes itself."""

    def __init__(self) -> None:
        self.cache: Any = None
        self.rows, self.width = 1, 0
        self.column_bytes = self.nbytes = 0
        """Nobody knows."""

    def length(self, _: int) -> int:
        """Tokens that were read."""
        return self.width

    def mask(self, _: int) -> None:
        """Nothing is padded."""
        return

    def positions(self, _: int) -> None:
        """The model counts itself."""
        return

    def advance(self, new: int) -> None:
        """A pass has read so many tokens."""
        self.width += new

    def take(self, _: int, __: Sequence[int]) -> Kept | None:
        """Such a cache is not kept."""
        return None

    def put(self, _: Kept) -> None:
        """Two such texts are never joined."""
        raise NotImplementedError("texts of this model do not share columns")

    def drop(self, _: int) -> None:
        """The one row leaves."""
        self.rows = 0

    def shrink(self) -> None:
        """There is no room to give back."""


def _contiguous(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The last positions of several rows lie apart; torch would multiply them one by one."""
    return (given[0].contiguous(), *given[1:]) if given and isinstance(given[0], Tensor) else given
