"""Policies against caches written the plain way, on traces; known identities; the best that any could do."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindset.errors import UsageError
from mindset.store.eviction import POLICIES, Policy, make_policy


def simulate(policy: Policy, trace: list[int], capacity: int) -> tuple[int, list[int | None]]:
    """Hits of a cache, and who was evicted at each step."""
    place: dict[int, int] = {}
    alive = np.zeros(capacity, bool)
    hits, gone = 0, []
    for now, item in enumerate(trace, start=1):
        victim = None
        if item in place:
            hits += 1
            policy.read(np.array([place[item]]), np.array([1]), np.array([1.0]), now)
        else:
            if len(place) == capacity:
                (row,) = policy.victims(alive, 1, now)
                victim = next(i for i, r in place.items() if r == row)
                del place[victim]
                alive[row] = False
            row = int(np.flatnonzero(~alive)[0])
            place[item], alive[row] = row, True
            policy.born(np.array([row]), now)
        gone.append(victim)
    return hits, gone


def plain(kind: str, trace: list[int], capacity: int, decay: float = 0.0) -> tuple[int, list[int | None]]:
    """The same cache with one dictionary and the definition."""
    worth: OrderedDict[int, float] = OrderedDict()
    reads: dict[int, list[int]] = {}
    hits, gone = 0, []
    for now, item in enumerate(trace, start=1):
        victim = None
        if item in worth:
            hits += 1
        else:
            if len(worth) == capacity:
                if kind == "lrfu":
                    value = {i: sum(2.0 ** (-decay * (now - t)) for t in reads[i]) for i in worth}
                else:
                    value = dict(worth)
                victim = min(worth, key=lambda i: value[i])
                del worth[victim]
            reads[item] = []
            worth[item] = 0
            if kind == "fifo":
                worth[item] = now
        reads[item].append(now)
        if kind == "lru":
            worth[item] = now
        elif kind == "lfu":
            worth[item] += 1
        gone.append(victim)
    return hits, gone


def belady(trace: list[int], capacity: int) -> int:
    """Hits of the cache that knows the future."""
    held: set[int] = set()
    hits = 0
    for now, item in enumerate(trace):
        if item in held:
            hits += 1
            continue
        if len(held) == capacity:
            later = {i: trace[now:].index(i) if i in trace[now:] else len(trace) for i in held}
            held.discard(max(later, key=lambda i: later[i]))
        held.add(item)
    return hits


TRACE = st.lists(st.integers(0, 9), max_size=80)


@settings(max_examples=80, deadline=None)
@given(trace=TRACE, capacity=st.integers(1, 5), kind=st.sampled_from(["lru", "lfu", "fifo"]))
def test_the_plain_caches_evict_the_same(trace: list[int], capacity: int, kind: str) -> None:
    assert simulate(make_policy(kind, capacity), trace, capacity) == plain(kind, trace, capacity)


@settings(max_examples=60, deadline=None)
@given(trace=TRACE, capacity=st.integers(1, 5), decay=st.sampled_from([0.013, 0.1, 0.37]))
def test_lrfu_is_its_definition(trace: list[int], capacity: int, decay: float) -> None:
    assert simulate(make_policy("lrfu", capacity, decay=decay), trace, capacity) == plain(
        "lrfu", trace, capacity, decay
    )


@settings(max_examples=60, deadline=None)
@given(trace=TRACE, capacity=st.integers(1, 5))
def test_lrfu_goes_from_lfu_to_lru(trace: list[int], capacity: int) -> None:
    """At lambda = 1 the last read outweighs all before it, or ties with them; at 0 every read counts the same."""
    hits, _ = simulate(make_policy("lrfu", capacity, decay=1.0), trace, capacity)
    assert hits == simulate(make_policy("lru", capacity), trace, capacity)[0]
    assert simulate(make_policy("lrfu", capacity, decay=0.0), trace, capacity) == plain(
        "lfu", trace, capacity
    )


@settings(max_examples=60, deadline=None)
@given(trace=TRACE, capacity=st.integers(1, 5), name=st.sampled_from(POLICIES))
def test_nobody_is_better_than_who_knows_the_future(trace: list[int], capacity: int, name: str) -> None:
    assert simulate(make_policy(name, capacity), trace, capacity)[0] <= belady(trace, capacity)


def test_on_a_skewed_trace_with_scans_each_does_what_it_is_known_for() -> None:
    rng = np.random.default_rng(0)
    trace: list[int] = []
    for start in range(20):
        trace += (rng.zipf(1.3, 300) % 200).tolist()
        trace += list(range(1000 + 100 * start, 1100 + 100 * start))  # read once, never again
    hits = {name: simulate(make_policy(name, 50, decay=0.02), trace, 50)[0] for name in POLICIES}
    assert hits["s3fifo"] > hits["fifo"]
    assert hits["lrfu"] > hits["lru"] > hits["fifo"]
    assert hits["lfu"] > hits["random"]


def test_a_batch_of_reads_is_the_reads() -> None:
    one, many = make_policy("lrfu", 4, decay=0.1), make_policy("lrfu", 4, decay=0.1)
    rows = np.arange(4)
    for policy in (one, many):
        policy.born(rows, 1)
    for _ in range(3):
        one.read(rows[:2], np.array([1, 1]), np.ones(2), 5)
    many.read(rows[:2], np.array([3, 3]), np.ones(2), 5)
    np.testing.assert_allclose(one.worth, many.worth, rtol=1e-12)


@pytest.mark.parametrize("name", POLICIES)
def test_an_heir_is_worth_what_its_predecessor_was(name: str) -> None:
    policy = make_policy(name, 4, decay=0.1)
    policy.born(np.arange(3), 1)
    policy.read(np.array([0]), np.array([5]), np.array([9.0]), 2)
    policy.inherit(np.array([0]), np.array([3]))
    alive = np.array([False, True, True, True])
    assert 3 not in policy.victims(alive, 2, 3) or name in ("fifo", "random")


def test_what_cannot_be_meant() -> None:
    with pytest.raises(UsageError, match="no eviction policy"):
        make_policy("best", 3)
    with pytest.raises(UsageError, match="decay"):
        make_policy("lrfu", 3, decay=2)
    policy = make_policy("lru", 3)
    policy.born(np.arange(2), 1)
    assert sorted(policy.victims(np.array([True, True, False]), 9, 2)) == [0, 1]
