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
from mindset.store.search import ShardSearch, float_rows, top_columns
from mindset.store.shard_index import IndexPlace, ShardIndex

__all__ = ["Choice", "Point", "Wanted", "choose", "highest", "read_choice"]

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
    hot: int
    probes: int
    lists: int
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
        return _tried(search, queries[:half], queries[half:], activation, wanted, lists, seed)
    return Choice(info.layer, info.name, count, "exact", why, 0, 0, 0, wanted, 0, 0.0, ()), None


def _tried(
    search: ShardSearch,
    training: Float[np.ndarray, "n d"],
    judging: Float[np.ndarray, "m d"],
    activation: Activation,
    wanted: Wanted,
    lists: int | None,
    seed: int,
) -> tuple[Choice, ShardIndex | None]:
    moments = QueryMoments.of(training)
    index = ShardIndex.built(search, moments, lists=lists, seed=seed)
    hottest = _hottest(search, highest(search, training, 4 * wanted.k, moments, activation))
    judging = judging[: 4 * LEAST_QUERIES]
    truth = highest(search, judging, wanted.k, moments, activation)
    exact_s = _seconds(lambda q: search.search_rows(q, wanted.candidates), judging)
    curve: list[Point] = []
    for share in HOT_SHARES:
        index.heat(hottest[: round(share * search.count)])
        curve += _probed(index, judging, truth, wanted, exact_s)
    good = [point for point in curve if point.recall >= wanted.recall]
    best = max(good, key=lambda point: point.speedup, default=None)
    told = (wanted, len(judging), exact_s * 1000, tuple(curve))
    place = (search.info.layer, search.info.name, search.count)
    if best is None or best.speedup < PAYS:
        return Choice(*place, "exact", _why_not(best, curve, wanted), 0, 0, index.ivf.lists, *told), None
    index.heat(hottest[: best.hot])
    why = f"recall {best.recall:.3f} at {best.speedup:.1f} x the speed of exact search"
    return Choice(*place, "ivf", why, best.hot, best.probes, index.ivf.lists, *told), index


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
        points.append(Point(len(index.hot), probes, round(recall, 4), round(exact_s / taken, 2)))
        if recall >= wanted.recall or probes >= index.ivf.lists or exact_s / taken < PAYS / 2:
            return points
        probes *= 2


def _why_not(best: Point | None, curve: list[Point], wanted: Wanted) -> str:
    if best is None:
        most = max(point.recall for point in curve)
        return f"no index found {wanted.recall:.0%} of the highest while it paid (at most {most:.1%})"
    return f"recall {best.recall:.3f} at only {best.speedup:.1f} x the speed of exact search; {PAYS:g} x is needed"


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
    worth = np.float32(1) if info.rule == "radius" else worths(store, info, rows, moments)
    return (np.abs(activation(products)) * worth).astype(np.float32)


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
