from __future__ import annotations

import numpy as np
import pytest

from mindset.graft.torch_search import Bfloat16Searcher, bfloat16_pays, torch_searcher
from mindset.store.search import Searcher, exact


@pytest.mark.parametrize("searcher", [torch_searcher, Bfloat16Searcher()])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("dead", [False, True])
def test_torch_finds_what_numpy_finds(searcher: Searcher, dtype: type, dead: bool) -> None:
    rng = np.random.default_rng(0)
    keys = rng.standard_normal((400, 16)).astype(dtype)
    queries = rng.standard_normal((7, 16)).astype(np.float32)
    alive = rng.random(400) < 0.6 if dead else None
    rows, scores = searcher(keys, queries, 5, alive)
    wanted, told = exact(keys, queries, 5, alive)
    np.testing.assert_array_equal(rows, wanted)
    np.testing.assert_allclose(scores, told, rtol=1e-5)


def test_whether_bfloat16_pays_is_a_timing() -> None:
    assert bfloat16_pays(n=512, batch=2) in (True, False)
