"""One slot in place of several that are near: the arithmetic of merging, on plain arrays.

A slot adds `act(key . x) * (modulator . x) * value`. Where keys are the same and modulators are parallel, the sum over
slots is one slot's, whose value is the sum of theirs: so values are added, not averaged, each by what its slot's
modulator (and, under ReLU, key) is longer or shorter than the merged one, signs included. Keys and modulators are
averaged by use, from the most used slot, the leader; of slots that are the same nothing changes but the value.
Weights that compete (softmax) keep the sum in another way: the offsets of the scores add up as logarithms, values are
averaged by the share that each offset has.

`error` is how far members were moved, relative to their own length: to first order the share of what a slot added that
changes. Knows no records and no files; bfloat16 comes and goes as uint16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

__all__ = ["Blended", "Members", "blend", "decoded", "distances", "encoded"]

Rows = Float64[np.ndarray, "n d"]
Others = Float64[np.ndarray, "m d"]
Grouped = Float64[np.ndarray, "groups d"]


@dataclass(frozen=True, eq=False)
class Members:
    """Slots of one shard and head that may go into one another."""

    rule: str
    """What turns a score into a weight."""
    fields: Mapping[str, Rows]
    """`key`, `value` and, where the shard has them, `key_bias`, `modulator`, `modulator_bias`."""
    weight: Float64[np.ndarray, " n"]
    """What multiplies each value."""
    use: Float64[np.ndarray, " n"]
    """How much each is used; all 0: equally."""

    def some(self, which: Int64[np.ndarray, " m"]) -> Members:
        """Some of them, in this order."""
        fields = {name: rows[which] for name, rows in self.fields.items()}
        return Members(self.rule, fields, self.weight[which], self.use[which])

    @property
    def keys(self) -> Rows:
        """Keys, with their biases as one more number."""
        return self._with_bias("key") if self.rule != "softmax" else self.fields["key"]

    @property
    def modulators(self) -> Rows | None:
        """Modulators with their biases, where there are any."""
        return self._with_bias("modulator") if "modulator" in self.fields else None

    def _with_bias(self, name: str) -> Rows:
        bias = self.fields.get(f"{name}_bias")
        return self.fields[name] if bias is None else np.concatenate([self.fields[name], bias], axis=1)


@dataclass(frozen=True, eq=False)
class Blended:
    """Merged slots, one a group."""

    fields: dict[str, Shaped[np.ndarray, "groups d"]]
    error: Float64[np.ndarray, " n"]
    """Of each member, 0 to 1."""


def distances(
    rule: str, keys: Rows, one: Others, modulators: Rows | None, other: Others | None
) -> Float64[np.ndarray, "n m"]:
    """How far slots (rows) are from others (columns): 1 - cosine; the larger of keys' and modulators'.

    Keys of different length are further apart, but under ReLU, where a length can go into the value.
    """
    far = 1 - _cosines(keys, one)
    if rule != "relu":
        ratio = _lengths(keys)[:, None] / _lengths(one)[None]
        far += (ratio + 1 / ratio) / 2 - 1
    if modulators is not None and other is not None:
        far = np.maximum(far, 1 - np.abs(_cosines(modulators, other)))
    return far


def blend(members: Members, group: Int64[np.ndarray, " n"]) -> Blended:
    """Merge members by `group` (0, 1, ...); the first member of each group is its leader."""
    leader = np.unique(group, return_index=True)[1]
    share = _shares(members.use, group)
    factor, fields = members.weight.copy(), dict[str, np.ndarray]()
    keys, moved = _averaged(members.keys, group, leader, share, scaled=members.rule == "relu")
    if members.rule == "relu":
        factor *= _lengths(members.keys) / _lengths(members.keys[leader])[group]
    fields["key"], error = keys, moved
    if (modulators := members.modulators) is not None:
        signs = np.where((modulators * modulators[leader][group]).sum(1) < 0, -1.0, 1.0)
        factor *= signs * _lengths(modulators) / _lengths(modulators[leader])[group]
        turned = modulators * signs[:, None]
        fields["modulator"], moved = _averaged(turned, group, leader, share, scaled=True)
        error = error + moved
    if members.rule == "softmax":
        fields["key_bias"], odds = _offsets(members, group)
        factor *= odds
    fields["value"] = _summed(members.fields["value"] * factor[:, None], group)
    for name in ("key", "modulator"):
        if f"{name}_bias" in members.fields and f"{name}_bias" not in fields:
            fields[name], fields[f"{name}_bias"] = fields[name][:, :-1], fields[name][:, -1:]
    return Blended(fields, np.minimum(error, 1.0))


def decoded(array: Shaped[np.ndarray, "n d"], dtype: str) -> Rows:
    """Stored rows as float64."""
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.float64)


def encoded(rows: Rows, dtype: str) -> Shaped[np.ndarray, "n d"]:
    """Rows as they are stored, rounded to the nearest."""
    if dtype != "bfloat16":
        return rows.astype(dtype)
    bits = rows.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


# ---- inside ------------------------------------------------------------------------------------------------------


def _averaged(
    rows: Rows,
    group: Int64[np.ndarray, " n"],
    leader: Int64[np.ndarray, " groups"],
    share: Float64[np.ndarray, " n"],
    *,
    scaled: bool,
) -> tuple[Grouped, Float64[np.ndarray, " n"]]:
    """Means by group, and how far each member is from its own; `scaled`: as if all were as long as the leader."""
    first = rows[leader]
    if scaled:
        rows = rows * (_lengths(first)[group] / _lengths(rows))[:, None]
        rows[leader] = first
    mean = first + _summed((rows - first[group]) * share[:, None], group)
    return mean, np.linalg.norm(rows - mean[group], axis=1) / _lengths(rows)


def _offsets(members: Members, group: Int64[np.ndarray, " n"]) -> tuple[Grouped, Float64[np.ndarray, " n"]]:
    bias = members.fields["key_bias"][:, 0]
    total = np.full(int(group.max()) + 1, -np.inf)
    np.logaddexp.at(total, group, bias)
    return total[:, None], np.exp(bias - total[group])


def _shares(use: Float64[np.ndarray, " n"], group: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    count, total = np.bincount(group), np.bincount(group, use)
    unused: Bool[np.ndarray, " groups"] = total <= 0
    return np.asarray(np.where(unused[group], 1 / count[group], use / np.where(unused, 1.0, total)[group]))


def _summed(rows: Rows, group: Int64[np.ndarray, " n"]) -> Grouped:
    out = np.zeros((int(group.max()) + 1, rows.shape[1]))
    np.add.at(out, group, rows)
    return out


def _lengths(rows: Rows) -> Float64[np.ndarray, " n"]:
    return np.asarray(np.maximum(np.linalg.norm(rows, axis=1), 1e-300))


def _cosines(rows: Rows, others: Others) -> Float64[np.ndarray, "n m"]:
    return np.asarray((rows / _lengths(rows)[:, None]) @ (others / _lengths(others)[:, None]).T)
