"""A KV cache of texts that share their columns: rows come and go between passes, and all grow by one column a pass.

Texts end in the same column, so a new token of every row is written in one go; a shorter text begins later, and what
lies before it is masked (`pads`). That is how Hugging Face's models read a padded batch, so any of them can read this
one, and so do the marks of facts (`graft.trail`), which lie in the cache too. Columns stand in a room that is larger
than they are: a new one is written in place, where transformers' own cache copies all of them at every token.

Rows are counted from 0 without gaps: the last one takes the place of one that leaves. Invariant: a row's keys, values
and marks are those that it would have alone; what is masked is finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from mindset.graft.trail import MarksLayer

__all__ = ["Columns", "Kept", "can_share"]

SLACK = 64
"""Columns of room beyond those that are asked for."""
MOST_SPARE = 512
"""Columns by which a room is made larger at most, beyond that."""


@dataclass(frozen=True, eq=False)
class Kept:
    """The cache of one text, by itself."""

    ids: tuple[int, ...]
    """Its tokens."""
    layers: tuple[tuple[Float[Tensor, "heads tokens d_key"], Float[Tensor, "heads tokens d_value"]], ...]
    marks: Int[Tensor, "2 tokens"] | None = None
    """Where marks are followed."""

    def first(self, tokens: int) -> Kept:
        """The cache of the text's beginning; views, no copies."""
        layers = tuple((keys[:, :tokens], values[:, :tokens]) for keys, values in self.layers)
        return Kept(self.ids[:tokens], layers, None if self.marks is None else self.marks[:, :tokens])

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in RAM."""
        tensors = [tensor for pair in self.layers for tensor in pair]
        return sum(t.numel() * t.element_size() for t in tensors)


def can_share(config: PreTrainedConfig) -> bool:
    """Whether texts of a model may share columns: it attends, over all tokens or a window, and keeps nothing else."""
    text = config.get_text_config(decoder=True)
    if getattr(text, "attention_chunk_size", None) is not None:  # chunks are counted from a text's beginning
        return False
    layers = DynamicCache(config=config).layers
    return bool(layers) and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


class Columns:
    """The cache of a few texts; `cache` is what a model is given."""

    def __init__(self, config: PreTrainedConfig, lengths: Sequence[int] = ()) -> None:
        """An empty cache for rows whose texts are about to be read in one pass, padded to the longest of `lengths`."""
        self.cache = DynamicCache(config=config)
        self.cache.layers = [_Layer() for _ in self.cache.layers]
        longest = max(lengths, default=0)
        self.pads = [longest - length for length in lengths]
        """Masked columns before each row's text."""
        self.width = 0
        """Columns that are filled."""

    @property
    def rows(self) -> int:
        """How many texts there are."""
        return len(self.pads)

    def length(self, row: int) -> int:
        """Tokens of a row's text."""
        return self.width - self.pads[row]

    @property
    def column_bytes(self) -> int:
        """Bytes of one column of one row; 0 before anything was read."""
        return sum(layer.column_bytes for layer in self._layers)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in RAM, room that is not filled included."""
        return sum(layer.nbytes for layer in self._layers)

    # ---- what a pass is given -----------------------------------------------------------------------------------
    def mask(self, new: int) -> Int[Tensor, "rows columns"] | None:
        """Ones where there is text, `new` columns from now; None where it is everywhere."""
        if not any(self.pads):
            return None
        place = torch.arange(self.width + new)
        return (place >= torch.tensor(self.pads)[:, None]).long()

    def positions(self, new: int) -> Int[Tensor, "rows new"] | None:
        """The place of each new token in its text; None where a model counts the same."""
        if not any(self.pads):
            return None
        place = torch.arange(self.width, self.width + new)
        return (place - torch.tensor(self.pads)[:, None]).clamp_min(0)

    def advance(self, new: int) -> None:
        """A pass has written so many columns."""
        self.width += new
        self.trim()

    # ---- rows come and go ---------------------------------------------------------------------------------------
    def take(self, row: int, ids: Sequence[int]) -> Kept:
        """A copy of a row's cache; `ids` are its tokens, of which the cache may lack the last."""
        start, length = self.pads[row], self.length(row)
        layers = tuple(layer.row(row, start) for layer in self._layers)
        marks = self._marks
        return Kept(
            tuple(ids[:length]), layers, None if marks is None else marks.kept[row, :, start:].clone()
        )

    def put(self, kept: Kept) -> None:
        """Add a row."""
        length = kept.layers[0][0].shape[1]
        wider = max(0, length - self.width)
        rows, width = self.rows, self.width + wider
        for layer, (keys, values) in zip(self._layers, kept.layers, strict=True):
            layer.put(rows, keys, values, wider)
        if kept.marks is not None:
            self._put_marks(kept.marks, rows, width)
        self.pads = [pad + wider for pad in self.pads] + [width - length]
        self.width = width

    def drop(self, row: int) -> None:
        """Take a row out; the last one gets its number."""
        last = self.rows - 1
        for layer in self._layers:
            layer.drop(row, last)
        if (marks := self._marks) is not None:
            order = [last if one == row else one for one in range(last)]
            marks.put(marks.kept[order])
        self.pads[row] = self.pads[last]
        self.pads.pop()
        self.trim()

    def shrink(self) -> None:
        """Give back the room of rows that have left."""
        for layer in self._layers:
            layer.shrink()

    def trim(self) -> None:
        """Let go of columns that are no row's."""
        spare = min(self.pads, default=self.width)
        self.pads = [pad - spare for pad in self.pads]
        filled = min(spare, self.width)  # before the first pass none is
        if not filled:
            return
        for layer in self._layers:
            layer.trim(filled)
        if (marks := self._marks) is not None:
            marks.put(marks.kept[..., filled:])
        self.width -= filled

    # ---- inside -------------------------------------------------------------------------------------------------
    @property
    def _layers(self) -> list[_Layer]:
        return [layer for layer in self.cache.layers if isinstance(layer, _Layer)]

    @property
    def _marks(self) -> MarksLayer | None:
        last = self.cache.layers[-1]
        return last if isinstance(last, MarksLayer) else None

    def _put_marks(self, new: Int[Tensor, "2 tokens"], rows: int, width: int) -> None:
        if (layer := self._marks) is None:
            layer = MarksLayer()  # type: ignore[no-untyped-call]
            self.cache.layers.append(layer)
            before = torch.zeros(rows, 2, 0, dtype=new.dtype, device=new.device)
        else:
            before = layer.kept
        kept = torch.zeros(rows + 1, 2, width, dtype=new.dtype, device=new.device)
        kept[:, 1] = -1
        kept[:rows, :, width - before.shape[-1] :] = before
        kept[rows, :, width - new.shape[-1] :] = new
        layer.put(kept)


class _Layer(DynamicLayer):
    """Keys and values of one layer in a room `[rows, heads, columns, d]`, of which a part is filled."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rows = self._first = self._stop = 0
        """The filled part: this many rows, and the columns from `_first` up to `_stop`."""
        self._rooms: list[Tensor] = []

    @property
    def column_bytes(self) -> int:
        return sum(room.shape[1] * room.shape[3] * room.element_size() for room in self._rooms)

    def update(
        self,
        key_states: Float[Tensor, "rows heads new d_key"],
        value_states: Float[Tensor, "rows heads new d_value"],
        *_: Any,
        **__: Any,
    ) -> tuple[Float[Tensor, "rows heads filled d_key"], Float[Tensor, "rows heads filled d_value"]]:
        """Write new columns behind the others; what is filled then."""
        rows, new = int(key_states.shape[0]), int(key_states.shape[2])
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._reserve((key_states, value_states), rows, before=0, behind=new)
        for room, more in zip(self._rooms, (key_states, value_states), strict=True):
            room[:rows, :, self._stop : self._stop + new] = more
        self._rows, self._stop = rows, self._stop + new
        return self._show()

    def get_seq_length(self) -> int:
        """Columns that are filled."""
        return self._stop - self._first

    def row(self, row: int, start: int) -> tuple[Tensor, Tensor]:
        """A copy of one row's keys and values, from a column on."""
        keys, values = (room[row, :, self._first + start : self._stop].clone() for room in self._rooms)
        return keys, values

    def put(self, row: int, keys: Tensor, values: Tensor, wider: int) -> None:
        """Add a row whose last columns are these; `wider`: how many columns all others are short of it."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        self._reserve((keys[None], values[None]), row + 1, before=wider, behind=0)
        self._first -= wider
        for room, own in zip(self._rooms, (keys, values), strict=True):
            start = self._stop - own.shape[1]
            room[row, :, self._first : start] = (
                0  # nothing that another text left there may be seen, not even times 0
            )
            room[:row, :, self._first : self._first + wider] = 0
            room[row, :, start : self._stop] = own
        self._rows = row + 1
        self._show()

    def drop(self, row: int, last: int) -> None:
        """Let the last row take the place of one."""
        if row != last:
            for room in self._rooms:
                filled = room[:, :, self._first : self._stop]
                filled[row] = filled[last]
        self._rows = last
        if self._rooms:
            self._show()

    @property
    def nbytes(self) -> int:
        return sum(room.numel() * room.element_size() for room in self._rooms)

    def shrink(self) -> None:
        """Have room for the rows that there are."""
        if self._rooms and self._rows < self._rooms[0].shape[0]:
            self._move(self._rows, before=0, behind=0, like=self._rooms)
            self._show()

    def trim(self, columns: int) -> None:
        """Let the first columns go."""
        self._first += columns
        self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        keys, values = (room[: self._rows, :, self._first : self._stop] for room in self._rooms)
        self.keys, self.values = keys, values
        return keys, values

    def _reserve(self, like: tuple[Tensor, Tensor], rows: int, *, before: int, behind: int) -> None:
        """See to it that there is room for so many rows, and for columns before and behind those that are filled."""
        if self._rooms:
            there, columns = self._rooms[0].shape[0], self._rooms[0].shape[2]
            if rows <= there and before <= self._first and self._stop + behind <= columns:
                return
            rows = rows if rows <= there else max(rows, 2 * there)
        self._move(rows, before=before, behind=behind, like=like)

    def _move(self, rows: int, *, before: int, behind: int, like: Sequence[Tensor]) -> None:
        """Move what is filled into a new room."""
        width = self._stop - self._first
        columns = before + width + min(width, MOST_SPARE) + behind + SLACK
        filled = self._rooms
        self._rooms = [one.new_zeros(rows, one.shape[1], columns, one.shape[3]) for one in like]
        for new, old in zip(self._rooms, filled, strict=False):
            new[: self._rows, :, before : before + width] = old[: self._rows, :, self._first : self._stop]
        self._first, self._stop = before, before + width
