"""Merging: what two slots added their merged one adds, what was known of them is kept, and undo brings both back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store.used_memory import FIELDS, drawn, make_model, read

from mindset.errors import UsageError
from mindset.store.blend import Members, blend, decoded, distances, encoded
from mindset.store.memory import Memory
from mindset.store.merging import MergeSettings, plan_merging
from mindset.store.pairs import Pairs
from mindset.store.slots import Change, Citation, NewSlot
from mindset.store.tally import PAIR_STRIDE

RULES = {"relu": lambda z: np.maximum(z, 0), "silu": lambda z: z / (1 + np.exp(-z))}


def members(n: int, rule: str, *, gated: bool, seed: int, bias: bool = True) -> Members:
    rng = np.random.default_rng(seed)
    fields = {"key": rng.normal(size=(n, 5)), "value": rng.normal(size=(n, 3))}
    if gated:
        fields["modulator"] = rng.normal(size=(n, 5))
    if bias:
        fields |= {
            f"{name}_bias": rng.normal(size=(n, 1)) for name in ("key", *(["modulator"] if gated else []))
        }
    return Members(rule, fields, rng.random(n) + 0.5, rng.random(n))


def added(x: np.ndarray, fields: dict[str, np.ndarray], rule: str, weight: np.ndarray) -> np.ndarray:
    def scores(name: str) -> np.ndarray:
        return x @ fields[name].T + (fields[f"{name}_bias"].T if f"{name}_bias" in fields else 0)

    weights = RULES[rule](scores("key"))
    if "modulator" in fields:
        weights = weights * scores("modulator")
    return weights @ (fields["value"] * weight[:, None])


@settings(max_examples=60, deadline=None)
@given(
    rule=st.sampled_from(["relu", "silu"]), gated=st.booleans(), bias=st.booleans(), seed=st.integers(0, 99)
)
def test_slots_that_say_the_same_become_one_that_says_it(
    rule: str, gated: bool, bias: bool, seed: int
) -> None:
    """Same keys (longer ones too under ReLU), modulators that differ in length and sign, any values and weights."""
    some, rng = members(3, rule, gated=gated, seed=seed, bias=bias), np.random.default_rng(seed + 1)
    for name, rows in some.fields.items():
        if name == "value":
            continue
        free = name.startswith("modulator") or rule == "relu"
        sizes = (
            np.random.default_rng(len(name.split("_")[0])).uniform(0.5, 2.0, (3, 1))
            if free
            else np.ones((3, 1))
        )
        signs = np.array([[1.0], [-1.0], [1.0]]) if name.startswith("modulator") else 1.0
        rows[:] = rows[0] * sizes * signs
    merged = blend(some, np.zeros(3, np.int64))
    np.testing.assert_allclose(merged.error, 0, atol=1e-12)
    far = distances(rule, some.keys, some.keys, some.modulators, some.modulators)
    np.testing.assert_allclose(far, 0, atol=1e-12)
    x = rng.normal(size=(20, 5))
    np.testing.assert_allclose(
        added(x, merged.fields, rule, np.ones(1)), added(x, dict(some.fields), rule, some.weight), atol=1e-10
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99))
def test_competing_weights_keep_their_sum(seed: int) -> None:
    some, rng = members(3, "softmax", gated=False, seed=seed), np.random.default_rng(seed + 1)
    some.fields["key"][:] = some.fields["key"][0]
    rest = members(4, "softmax", gated=False, seed=seed + 2).fields
    merged = blend(some, np.zeros(3, np.int64)).fields

    def read_(x: np.ndarray, fields: dict[str, np.ndarray], weight: np.ndarray) -> np.ndarray:
        odds = np.exp(x @ fields["key"].T + fields["key_bias"].T)
        return odds / odds.sum(1, keepdims=True) @ (fields["value"] * weight[:, None])

    x = rng.normal(size=(20, 5))
    before = {name: np.concatenate([some.fields[name], rest[name]]) for name in rest}
    after = {name: np.concatenate([merged[name], rest[name]]) for name in rest}
    np.testing.assert_allclose(
        read_(x, after, np.ones(5)), read_(x, before, np.concatenate([some.weight, np.ones(4)])), atol=1e-10
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), near=st.floats(1e-6, 0.02))
def test_the_estimate_bounds_what_changes_to_first_order(seed: int, near: float) -> None:
    """On an input along the keys, where a slot has most influence for its length."""
    some = members(2, "relu", gated=False, seed=seed, bias=False)
    key = some.fields["key"]
    key[1] = key[0] + near * np.random.default_rng(seed).normal(size=5) * np.linalg.norm(key[0])
    merged = blend(some, np.zeros(2, np.int64))
    alone = [
        added(
            key[:1], {n: rows[i : i + 1] for n, rows in some.fields.items()}, "relu", some.weight[i : i + 1]
        )
        for i in (0, 1)
    ]
    influence = np.array([np.linalg.norm(one) for one in alone])
    moved = np.linalg.norm(added(key[:1], merged.fields, "relu", np.ones(1)) - sum(alone))
    assert moved <= 1.2 * float((merged.error * influence).sum()) + 1e-9


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_stored_rows_survive(dtype: str) -> None:
    rows = encoded(np.random.default_rng(0).normal(size=(50, 3)), dtype)
    np.testing.assert_array_equal(encoded(decoded(rows, dtype), dtype), rows)


def test_bfloat16_is_rounded_as_torch_does() -> None:
    torch = pytest.importorskip("torch")
    rows = np.random.default_rng(0).normal(size=(2000, 3))
    wanted = torch.from_numpy(rows.astype(np.float32)).bfloat16().view(torch.uint16).numpy()
    np.testing.assert_array_equal(encoded(rows, "bfloat16"), wanted)


# ---- of a memory -------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Slots 33 and 34 are near 3; all three cite different things."""
    folder = make_model(tmp_path / "m")
    with Memory(folder) as memory:
        three = memory.store.fetch([3], list(FIELDS))
        arrays = {field: np.repeat(three[field], 2, axis=0) for field in FIELDS}
        arrays["value"] = drawn(2, 3, seed=4)
        arrays["key"][1] += 0.01
        with memory.store.ledger.editing("source") as edit:
            source = edit.add_source("stories.txt", "Once upon a time there was a fox.")
        new = [
            NewSlot(cites=Citation(source, 5, 16), label="time", tags=("seen",)),
            NewSlot(tags=("seen", "new")),
        ]
        memory.insert(0, "base", new, arrays)
        memory.change([3], Change(label="fox", tags=("old",)))
    return folder


def test_near_slots_become_one_and_come_back(model: Path) -> None:
    with Memory(model) as memory:
        read(memory, [3, 33], 5, influence=[1.0, 3.0])
        read(memory, [33, 34], 6, influence=[3.0, 2.0])
        plan = plan_merging(memory.store, MergeSettings(layer=0))
        assert [group.ids for group in plan.groups] == [(33, 34, 3)]
        assert plan.counted
        assert 0 < plan.change[0] < 0.01
        before = memory.store.records([3, 33, 34])
        arrays = memory.store.fetch([3, 33, 34], list(FIELDS))
        (merged,) = memory.merge(plan)
        (record,) = memory.store.records([int(merged)])
        assert record.label == "time + fox"
        assert record.tags == ("seen", "new", "old")
        assert record.created == min(one.created for one in before)
        assert record.cites is not None
        source = memory.store.ledger.source(record.cites.source)
        assert source.name == "slots 33, 34, 3, merged"
        assert "slot 33 'time', layer 0, base: stories.txt, characters 5 to 16: upon a time" in source.text
        assert "slot 3 'fox', layer 0, base: cites nothing" in source.text
        counts = memory.store.usage.of(0, "base").read(record.row + 1)[record.row]
        assert (counts["hits"], counts["last"], counts["influence"]) == (4, 6, 9.0)
        value = memory.store.fetch([int(merged)], ["value"])["value"]
        np.testing.assert_allclose(value[0], arrays["value"].sum(0), rtol=1e-6)
        assert memory.journal.done[-1].title == "3 slots merged into 1: 33, 34, 3"
        assert memory.store.verify() == []
        memory.undo()
        assert memory.store.records([3, 33, 34]) == before
        for field, array in memory.store.fetch([3, 33, 34], list(FIELDS)).items():
            np.testing.assert_array_equal(array, arrays[field])
        memory.redo()
        assert memory.store.records([int(merged)]) == [record]


def test_what_is_not_merged(model: Path) -> None:
    with Memory(model) as memory:
        assert len(plan_merging(memory.store, MergeSettings(within=0.0)).groups) == 1
        memory.change([3], Change(pinned=True))
        assert [set(g.ids) for g in plan_merging(memory.store, MergeSettings()).groups] == [{33, 34}]
        memory.change([33], Change(weight=0.0))
        assert not plan_merging(memory.store, MergeSettings()).groups
        assert not plan_merging(memory.store, MergeSettings(layer=1)).groups
        with pytest.raises(UsageError, match="do not merge"):
            plan_merging(memory.store, MergeSettings(within=1.0, layer=2))
        with pytest.raises(UsageError, match="nothing was counted"):
            plan_merging(memory.store, MergeSettings(co_read=True))
    for given_ in ({"within": 2.0}, {"often": 0.0}, {"most": 0}):
        with pytest.raises(UsageError):
            MergeSettings(**given_)


def test_heads_stay_apart_and_the_least_change_comes_first(model: Path) -> None:
    with Memory(model) as memory:
        plan = plan_merging(memory.store, MergeSettings(within=1.0))
        heads = {record.id: record.head for record in memory.store.records([*range(13, 23)])}
        for group in plan.groups:
            assert group.layer == 0 or len({heads[i] for i in group.ids}) == 1
        changes = [group.change for group in plan.groups]
        assert changes == sorted(changes)
        assert not plan.counted
        few = plan_merging(memory.store, MergeSettings(within=1.0, most=2))
        assert few.groups == plan.groups[:2]
        assert len(memory.merge(few)) == 2


def test_what_keeps_coming_back_together_is_merged(model: Path) -> None:
    with Memory(model) as memory:
        for step in range(1, 2 * PAIR_STRIDE + 1):
            read(memory, [5, 9, 11], step)
        pairs = Pairs.of(np.array([5, 5, 5, 9, 99]), np.array([9, 9, 11, 5, 5]))
        pairs.save(memory.store.usage.pairs_file(0, "base"))
        plan = plan_merging(memory.store, MergeSettings(co_read=True, often=1.0))
        assert [set(group.ids) for group in plan.groups] == [{5, 9}]
        assert set(plan_merging(memory.store, MergeSettings(co_read=True, often=0.5)).groups[0].ids) == {
            5,
            9,
            11,
        }
        memory.merge(plan)
        assert memory.store.verify() == []


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99))
def test_the_sketch_keeps_what_is_frequent(seed: int) -> None:
    rng, room = np.random.default_rng(seed), 2000
    seen, true = Pairs.none(), dict[tuple[int, int], int]()
    for _ in range(4):
        first, second = rng.integers(0, 3000, (2, 4000))
        first[:500], second[:500] = 7, 3
        for a, b in zip(np.minimum(first, second).tolist(), np.maximum(first, second).tolist(), strict=True):
            true[a, b] = true.get((a, b), 0) + 1
        seen = seen.plus(Pairs.of(first, second), room)
    assert len(seen.counts) <= room
    lost = 16_000 / (room + 1)
    for pair, count in zip(map(tuple, seen.pairs.tolist()), seen.counts.tolist(), strict=True):
        assert true[pair] - lost <= count <= true[pair]
    assert seen.pairs[seen.counts.argmax()].tolist() == [3, 7]


def test_pairs_are_kept_in_a_file(tmp_path: Path) -> None:
    pairs = Pairs.of(np.array([5, 1]), np.array([2, 9]))
    pairs.save(tmp_path / "p")
    np.testing.assert_array_equal(Pairs.load(tmp_path / "p").pairs, pairs.pairs)
    for content in (b"", b"x" * 60):
        (tmp_path / "p").write_bytes(content)
        assert not len(Pairs.load(tmp_path / "p").counts)
