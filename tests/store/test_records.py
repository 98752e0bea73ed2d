from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mindset.errors import UsageError
from mindset.store import BankRecord, Rows, ShardRecord
from mindset.store.records import slot_axes


def shard(**changes: Any) -> ShardRecord:
    rows = Rows(np.zeros((4, 3), "f4"), "float32")
    settings: dict[str, Any] = {"name": "base", "weight": "relu", "gated": False, "n_slots": 4}
    return ShardRecord(**{**settings, "fields": {"key": rows, "value": rows}, **changes})


@pytest.mark.parametrize(
    ("shape", "heads", "n_slots", "axes"),
    [
        ((4, 3), 1, 4, 1),
        ((4,), 1, 4, 1),
        ((1, 4), 1, 4, 2),
        ((1, 4, 3), 1, 4, 2),
        ((1, 3), 1, 1, 1),
        ((2, 4, 3), 2, 4, 2),
        ((4, 4), 4, 4, 2),
        ((0, 3), 1, 0, 1),
        ((4, 3), 2, 4, None),
        ((4,), 2, 4, None),
        ((0,), 2, 0, None),
        ((4, 0), 1, 4, None),
        ((4, 3, 2), 1, 4, None),
        ((), 1, 4, None),
    ],
)
def test_which_axes_count_slots(shape: tuple[int, ...], heads: int, n_slots: int, axes: int | None) -> None:
    assert slot_axes(shape, heads, n_slots) == axes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../up"}, "lower-case letters"),
        ({"name": ""}, "lower-case letters"),
        ({"n_slots": -1}, "0 or more"),
        ({"fields": {}}, "no key and no value"),
        ({"gated": True}, "no modulator"),
        ({"fields": {"Key": Rows(np.zeros(4), "float64")}}, "field name 'Key'"),
    ],
)
def test_an_inconsistent_shard_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        shard(**changes)


@pytest.mark.parametrize(
    ("layer", "heads", "shards", "message"),
    [
        (-1, 1, (), "layers count from 0"),
        (0, 0, (), "heads from 1"),
        (0, 1, (shard(), shard()), "its own name"),
        (3, 2, (shard(),), r"layer 3, shard 'base', field 'key': shape \[4, 3\] .* give \[2, 4\] or"),
    ],
)
def test_an_inconsistent_bank_is_refused(
    layer: int, heads: int, shards: tuple[ShardRecord, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        BankRecord(layer, "mirror", heads, shards)


def test_rows_must_be_what_they_are_called() -> None:
    with pytest.raises(UsageError, match="uint16 bits"):
        Rows(np.zeros(3, "f4"), "bfloat16")
