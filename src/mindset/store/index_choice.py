"""Whether a shard is searched through an index: measured on recorded queries, written down with the reason.

Half of the queries train (moments, hot rows), the other half judges. An index is chosen only where it finds the share
of the truly highest slots that was asked for, and pays: at least three times as fast as looking at every slot, one
query at a time. Everything that was tried is kept as a curve in `cache/layer-03.base.g1.choice.json`.

Does not know which activation there is: what ranks a product is handed in.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int64

from mindset.atomic_file import replacing
from mindset.store.entries import QueryMoments, extended, worths
from mindset.store.ivf import Kind
from mindset.store.search import ShardSearch, float_rows, top_columns
from mindset.store.shard_index import IndexPlace, ShardIndex

__all__ = ["Choice", "Point", "Wanted", "choose", "highest", "read_choice", "tried"]

Activation = Callable[[Float32[np.ndarray, "q n"]], Float32[np.ndarray, "q n"]]
HOT_SHARES = (0.0, 0.01, 0.02, 0.05)
PAYS = 3.0
"""How many times faster than exact search an index has to be."""
LEAST_QUERIES = 256
"""Queries that judge."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of an index."""

    k: int = 16
    """Slots that should be found."""
    candidates: int = 64
    """Slots that may be named to find them."""
    recall: float = 0.98
    """Share of the k that has to be among the candidates."""
    smallest: int = 10_000
    """Shards of fewer slots are searched exactly without a trial."""


@dataclass(frozen=True)
class Point:
    """One thing that was tried."""

    kind: Kind
    """What its lists come from."""
    hot: int
    """Rows that are looked at for every query."""
    probes: int
    """Lists that are scanned."""
    recall: float
    speedup: float
    """Time of exact search, over the time of this."""


@dataclass(frozen=True)
class Choice:
    """How a shard is searched, and why."""

    layer: int
    shard: str
    slots: int
    engine: Literal["exact", "ivf"]
    why: str
    best: Point | None
    """What was chosen, or came nearest to it."""
    wanted: Wanted
    queries: int
    """Recorded queries that judged; 0: none."""
    exact_ms: float
    """One query, looking at every slot."""
    curve: tuple[Point, ...]

    def save(self, place: IndexPlace) -> None:
        """Keep it beside the index."""
        place.folder.mkdir(exist_ok=True)
        with replacing(_file(place)) as file:
            file.write(json.dumps(asdict(self), indent=1).encode())


def read_choice(place: IndexPlace) -> Choice | None:
    """What was chosen for a shard; None where nobody tried, or the note cannot be read."""
    try:
        told = json.loads(_file(place).read_bytes())
        told["wanted"], told["curve"] = Wanted(**told["wanted"]), tuple(Point(**one) for one in told["curve"])
        told["best"] = None if told["best"] is None else Point(**told["best"])
        return Choice(**told)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def choose(
    search: ShardSearch,
    queries: Float[np.ndarray, "n d"],
    activation: Activation,
    wanted: Wanted | None = None,
    *,
    lists: int | None = None,
    seed: int = 0,
) -> tuple[Choice, ShardIndex | None]:
    """Try an index on recorded queries; it comes back where it is chosen."""
    wanted = wanted or Wanted()
    info, count = search.info, search.count
    half = len(queries) // 2
    if count < wanted.smallest:
        why = f"{count:,} slots: under {wanted.smallest:,} every slot is looked at"
    elif half < LEAST_QUERIES:
        why = f"{len(queries)} recorded queries; {2 * LEAST_QUERIES} are needed to judge"
    else:
        return tried(search, queries[:half], queries[half:], activation, wanted, lists=lists, seed=seed)
    return Choice(info.layer, info.name, count, "exact", why, None, wanted, 0, 0.0, ()), None


def tried(
    search: ShardSearch,
    training: Float[np.ndarray, "n d"],
    judging: Float[np.ndarray, "m d"],
    activation: Activation,
    wanted: Wanted,
    *,
    lists: int | None = None,
    seed: int = 0,
) -> tuple[Choice, ShardIndex | None]:
    """Try one whatever the shard's size, with other queries to train on than to judge by."""
    moments = QueryMoments.of(training)
    found = highest(search, training, 4 * wanted.k, moments, activation)
    hottest = _hottest(search, found)
    judging = judging[: 4 * LEAST_QUERIES]
    truth = highest(search, judging, wanted.k, moments, activation)
    exact_s = _seconds(lambda q: search.search_rows(q, wanted.candidates), judging)
    indexes: dict[Kind, ShardIndex] = {
        "queries": ShardIndex.of_queries(search, moments, training, found, seed=seed),
        "keys": ShardIndex.of_keys(search, moments, lists=lists, seed=seed),
    }
    curve: list[Point] = []
    for index in indexes.values():
        for share in HOT_SHARES:
            index.heat(hottest[: round(share * search.count)])
            curve += _probed(index, judging, truth, wanted, exact_s)
    best, why = _judged(curve, wanted)
    engine: Literal["exact", "ivf"] = "ivf" if best is not None and _is_good(best, wanted) else "exact"
    choice = Choice(
        search.info.layer, search.info.name, search.count, engine, why, best, wanted, len(judging), exact_s * 1000,
        tuple(curve),
    )  # fmt: skip
    if best is None or engine == "exact":
        return choice, None
    chosen = indexes[best.kind]
    chosen.heat(hottest[: best.hot])
    return choice, chosen


def _is_good(point: Point, wanted: Wanted) -> bool:
    return point.recall >= wanted.recall and point.speedup >= PAYS


def _judged(curve: list[Point], wanted: Wanted) -> tuple[Point | None, str]:
    """The best point and what is to be said of it."""
    enough = [point for point in curve if point.recall >= wanted.recall]
    best = max(enough, key=lambda point: point.speedup, default=None)
    if best is None:
        nearest = max(curve, key=lambda point: point.recall)
        return nearest, (
            f"no index found {wanted.recall:.0%} of the highest while it paid: {nearest.recall:.1%} at "
            f"{nearest.speedup:.1f} x the speed of exact search"
        )
    told = f"lists of {best.kind} find {best.recall:.1%} at {best.speedup:.1f} x the speed of exact search"
    return best, told if best.speedup >= PAYS else f"{told}; {PAYS:g} x is needed"


def _probed(
    index: ShardIndex,
    judging: Float[np.ndarray, "m d"],
    truth: Int64[np.ndarray, "m k"],
    wanted: Wanted,
    exact_s: float,
) -> list[Point]:
    """More and more lists, until there are enough or it stops paying."""
    points: list[Point] = []
    probes = 1
    while True:
        rows, _ = index.search_rows(judging, wanted.candidates, probes)
        recall = _recall(truth, rows)
        probed = probes
        taken = _seconds(lambda q: index.search_rows(q, wanted.candidates, probed), judging)  # noqa: B023
        points.append(
            Point(index.ivf.kind, len(index.hot), probes, round(recall, 4), round(exact_s / taken, 2))
        )
        if recall >= wanted.recall or probes >= index.ivf.lists or exact_s / taken < PAYS / 2:
            return points
        probes *= 2


def highest(
    search: ShardSearch,
    queries: Float[np.ndarray, "n d"],
    k: int,
    moments: QueryMoments,
    activation: Activation,
) -> Int64[np.ndarray, "n k"]:
    """The rows of highest influence, from every slot."""
    rows = np.flatnonzero(search.slot_of_row)
    asked, k = extended(queries), min(k, len(rows))
    best = np.zeros((len(asked), 0), np.int64)
    scores = np.zeros((len(asked), 0), np.float32)
    for start in range(0, len(rows), 1 << 14):
        some = rows[start : start + (1 << 14)]
        influence = _influence(search, asked, some, moments, activation)
        joined = np.concatenate([scores, influence], axis=1)
        named = np.concatenate([best, np.broadcast_to(some, influence.shape)], axis=1)
        columns, scores = top_columns(joined, k)
        best = np.take_along_axis(named, columns, 1)
    return best


def _influence(
    search: ShardSearch,
    asked: Float32[np.ndarray, "q d1"],
    rows: Int64[np.ndarray, " n"],
    moments: QueryMoments,
    activation: Activation,
) -> Float32[np.ndarray, "q n"]:
    store, info = search.store, search.info
    products = asked[:, :-1] @ float_rows(store.vectors.get(info, "key", rows)).T
    if "key_bias" in info.fields:
        products += float_rows(store.vectors.get(info, "key_bias", rows)).T
    if info.rule == "radius":  # it answers near its key, never on the other side
        return np.asarray(activation(products), np.float32)
    return np.asarray(np.abs(activation(products)) * worths(store, info, rows, moments), np.float32)


def _hottest(search: ShardSearch, found: Int64[np.ndarray, "n k"]) -> Int64[np.ndarray, " hot"]:
    """Rows by how often they were found, those never found left out."""
    often = np.bincount(found.reshape(-1), minlength=search.info.top)
    order = np.argsort(-often, kind="stable").astype(np.int64)
    return order[: int((often > 0).sum())]


def _recall(truth: Int64[np.ndarray, "m k"], rows: Int64[np.ndarray, "m c"]) -> float:
    return float(np.mean([np.isin(true, some).mean() for true, some in zip(truth, rows, strict=True)]))


def _seconds(search: Callable[[np.ndarray], object], queries: np.ndarray, repeats: int = 32) -> float:
    """Of one query: the median, after a warm-up."""
    taken = []
    for i in range(repeats + 2):
        one = queries[i % len(queries)][None]
        began = time.perf_counter()
        search(one)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken[2:]))


def _file(place: IndexPlace) -> Path:
    return place.folder / f"{place.stem}.choice.json"
