"""Slots by use: against a plain sort, page after page, whatever the filters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store.used_memory import make_model, read

from mindset.errors import UsageError
from mindset.store.memory import Memory
from mindset.store.ranked import ranked, shard_use
from mindset.store.scan import Where, counts
from mindset.store.slots import Change


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder, rng = make_model(tmp_path / "m"), np.random.default_rng(0)
    with Memory(folder) as memory:
        for step in range(1, 30):
            slots = np.sort(rng.choice(np.arange(1, 23), 4, replace=False)).tolist()
            read(memory, slots, step, influence=rng.random(4).tolist())
        memory.delete([5, 17])
        memory.change([1, 2, 3, 14], Change(tags=("few",)))
    return folder


@pytest.mark.parametrize("by", ["hits", "last", "influence"])
@pytest.mark.parametrize("where", [Where(), Where(layer=1), Where(tag="few"), Where(head=1, shard="base")])
def test_pages_are_a_plain_sort(model: Path, by: str, where: Where) -> None:
    with Memory(model, read_only=True) as memory:
        store = memory.store
        living = ranked(store, where, by, limit=100)
        used = {
            (info.layer, row): count
            for info in store.shards()
            for row, count in enumerate(store.usage.of(info.layer, info.name).read(info.top)[by].tolist())
        }
        plain = sorted(living, key=lambda r: (-used[r.layer, r.row], r.layer, r.row))
        assert living == plain
        assert len(living) == (4 if where.tag else 9 if where.layer else 10 if where.head else 30)
        paged, after = [], 0
        while page := ranked(store, where, by, limit=2, after=after):
            paged += page
            after = page[-1].id
        assert paged == living


def test_newest_first(model: Path) -> None:
    with Memory(model, read_only=True) as memory:
        ids = [record.id for record in ranked(memory.store, Where(layer=0), "created", limit=5)]
        assert ids == [12, 11, 10, 9, 8]
        more = ranked(memory.store, Where(layer=0), "created", limit=50, after=8)
        assert [record.id for record in more] == [7, 6, 4, 3, 2, 1]
        with pytest.raises(UsageError, match="sort by"):
            ranked(memory.store, Where(), "beauty")


def test_sums_are_of_the_living(model: Path) -> None:
    with Memory(model, read_only=True) as memory:
        use = [shard_use(memory.store, one) for one in counts(memory.store.ledger)]
        assert sum(one.hits for one in use) < 29 * 4
        assert use[0].hits > 0
        assert (use[2].hits, use[2].unread) == (0, 10)
