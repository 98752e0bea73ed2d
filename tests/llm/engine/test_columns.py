"""Rows that share columns, against texts that are kept apart."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from graft.tiny import CONFIGS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mindset.graft.trail import MarksLayer
from mindset.llm.engine.columns import Columns, Kept, can_share

CONFIG = CONFIGS["llama"]()
LAYERS, HEADS, KEY, VALUE = 2, 3, 4, 5


@dataclass
class Text:
    """One text's columns, by itself."""

    ids: list[int]
    pairs: list[tuple[Tensor, Tensor]]
    marks: Tensor = field(default_factory=lambda: torch.zeros(2, 0, dtype=torch.int64))


class Pair:
    """Columns and what they should be."""

    def __init__(self, marked: bool, lengths: list[int]) -> None:
        self.columns, self.marked, self.next = Columns(CONFIG, lengths), marked, 1
        empty = [(torch.zeros(HEADS, 0, KEY), torch.zeros(HEADS, 0, VALUE)) for _ in range(LAYERS)]
        self.texts = [Text([], list(empty)) for _ in lengths]

    def number(self) -> int:
        self.next += 1
        return self.next

    def read(self, counts: list[int]) -> None:
        """A pass: `counts` new tokens a row, padded on the left as `Columns` was told."""
        new = max(counts)
        mask = self.columns.mask(new)
        for layer in range(LAYERS):
            keys = torch.rand(len(counts), HEADS, new, KEY)
            values = torch.rand(len(counts), HEADS, new, VALUE)
            for text, count, own_keys, own_values in zip(self.texts, counts, keys, values, strict=True):
                before = text.pairs[layer]
                text.pairs[layer] = (
                    torch.cat([before[0], own_keys[:, new - count :]], 1),
                    torch.cat([before[1], own_values[:, new - count :]], 1),
                )
            self.columns.cache.update(keys, values, layer)
        self._mark(counts, new)
        for text, count in zip(self.texts, counts, strict=True):
            text.ids += [self.number() for _ in range(count)]
        self.columns.advance(new)
        lengths = [len(text.ids) for text in self.texts]
        if mask is None:
            assert len(set(lengths)) == 1
        else:
            assert mask.sum(1).tolist() == lengths

    def _mark(self, counts: list[int], new: int) -> None:
        """As the trail does at the end of a pass."""
        if not self.marked:
            return
        width = self.columns.width
        kept = torch.zeros(len(counts), 2, width + new, dtype=torch.int64)
        last = self.columns.cache.layers[-1]
        if isinstance(last, MarksLayer):
            kept[..., :width] = last.kept
        else:
            self.columns.cache.layers.append(last := MarksLayer())
        for row, (text, count) in enumerate(zip(self.texts, counts, strict=True)):
            fresh = torch.randint(1, 99, (2, count))
            kept[row, :, width + new - count :] = fresh
            text.marks = torch.cat([text.marks, fresh], 1)
        last.put(kept)

    def join(self, length: int) -> None:
        pairs = [(torch.rand(HEADS, length, KEY), torch.rand(HEADS, length, VALUE)) for _ in range(LAYERS)]
        text = Text([self.number() for _ in range(length)], pairs)
        if self.marked:
            text.marks = torch.randint(1, 99, (2, length))
        self.columns.put(Kept(tuple(text.ids), tuple(pairs), text.marks if self.marked else None))
        self.texts.append(text)

    def leave(self, row: int) -> None:
        self.columns.drop(row)
        self.texts[row] = self.texts[-1]
        self.texts.pop()

    def check(self) -> None:
        assert self.columns.rows == len(self.texts)
        for row, text in enumerate(self.texts):
            assert self.columns.length(row) == len(text.ids)
            kept = self.columns.take(row, [*text.ids, 7])
            assert kept.ids == tuple(text.ids)
            for (keys, values), (wanted_keys, wanted_values) in zip(kept.layers, text.pairs, strict=True):
                assert torch.equal(keys, wanted_keys)
                assert torch.equal(values, wanted_values)
            if self.marked and kept.marks is not None:
                assert torch.equal(kept.marks, text.marks)
        for layer in self.columns.cache.layers[:LAYERS]:
            if layer.keys is not None:
                assert layer.keys.shape[:3:2] == (len(self.texts), self.columns.width)
                assert bool(layer.keys.isfinite().all())


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_rows_are_what_they_would_be_alone(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    pair = Pair(data.draw(st.booleans()), lengths)
    pair.read(lengths)
    pair.check()
    for _ in range(data.draw(st.integers(1, 12))):
        what = data.draw(st.sampled_from(["step", "piece", "join", "leave"]))
        if what == "join":
            pair.join(data.draw(st.integers(1, 90)))
        elif what == "leave" and pair.texts:
            pair.leave(data.draw(st.integers(0, len(pair.texts) - 1)))
        elif pair.texts:
            pair.read([1 if what == "step" else data.draw(st.integers(2, 70))] * len(pair.texts))
        pair.check()


def test_a_row_that_leaves_before_anything_was_read() -> None:
    columns = Columns(CONFIG, [5, 2, 3])
    columns.drop(0)
    assert (columns.pads, columns.width) == ([0, 1], 0)
    assert columns.mask(3).tolist() == [[1, 1, 1], [0, 1, 1]]
    assert columns.positions(3).tolist() == [[0, 1, 2], [0, 0, 1]]


def test_new_columns_are_written_in_place() -> None:
    columns = Columns(CONFIG, [1])
    layer = columns.cache.layers[0]
    for _ in range(40):
        layer.update(torch.zeros(1, HEADS, 1, KEY), torch.zeros(1, HEADS, 1, VALUE))
    room = layer.keys.untyped_storage().data_ptr()
    for _ in range(20):
        layer.update(torch.zeros(1, HEADS, 1, KEY), torch.zeros(1, HEADS, 1, VALUE))
    assert layer.keys.untyped_storage().data_ptr() == room


def test_what_was_there_before_is_not_seen_by_a_shorter_row() -> None:
    pair = Pair(False, [8, 8])
    pair.read([8, 8])
    pair.columns.cache.layers[0].keys[1] = torch.inf
    pair.columns.drop(1)
    pair.texts.pop()
    pair.join(2)
    pair.check()


def test_which_models_share_columns() -> None:
    assert all(can_share(make()) for make in CONFIGS.values())
    sliding = CONFIGS["mistral"](sliding_window=8)
    assert can_share(sliding)
    chunked = CONFIGS["llama"]()
    chunked.attention_chunk_size = 8
    assert not can_share(chunked)
